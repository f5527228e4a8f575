import { type Example, ignored } from "./examples.ts";

/**
 * Puts examples into rows of at most `maxLength` tokens, the longest first and each into the first row with room for it. A
 * longer one has a row of its own. The first token of each is not predicted, since nothing of its own stands before it.
 */
export function sharedRows(examples: readonly Example[], maxLength: number): Example[] {
  const order = [...examples.keys()].sort(
    (a, b) => (examples[b]?.inputIds.length ?? 0) - (examples[a]?.inputIds.length ?? 0) || a - b,
  );
  const rows: { length: number; members: number[] }[] = [];
  // Rows before this one have room for nothing more.
  let open = 0;
  const shortest = examples[order.at(-1) ?? 0]?.inputIds.length ?? 0;
  for (const i of order) {
    const length = examples[i]?.inputIds.length ?? 0;
    while (open < rows.length && (rows[open]?.length ?? 0) + shortest > maxLength) open++;
    let place = open;
    while (place < rows.length && (rows[place]?.length ?? 0) + length > maxLength) place++;
    const row = rows[place] ?? { length: 0, members: [] };
    rows[place] = { length: row.length + length, members: [...row.members, i] };
  }
  return rows.map(({ length, members }) =>
    joined(
      members.flatMap((i) => examples[i] ?? []),
      length,
    ),
  );
}

function joined(members: readonly Example[], length: number): Example {
  const inputIds = new Int32Array(length);
  const labels = new Int32Array(length).fill(ignored);
  const segments = new Int32Array(length);
  let at = 0;
  for (const [i, member] of members.entries()) {
    inputIds.set(member.inputIds, at);
    if (member.labels !== undefined) labels.set(member.labels, at);
    labels[at] = ignored;
    segments.fill(i + 1, at, at + member.inputIds.length);
    at += member.inputIds.length;
  }
  return { inputIds, labels, segments };
}
