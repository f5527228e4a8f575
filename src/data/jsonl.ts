import {
  type DataRecord,
  type Dropped,
  isRecord,
  kindOf,
  malformed,
  type ReadOptions,
  type Records,
  type Source,
  textOf,
} from "./record.ts";

/** Reads JSON Lines: one object a line; blank lines are no rows. */
export async function readJsonl(source: Source, options: ReadOptions = {}): Promise<Records> {
  const { name = "data", dropMalformed = false } = options;
  const rows: DataRecord[] = [];
  const dropped: Dropped[] = [];
  let number = 0;
  for await (const line of lines(textOf(source, options))) {
    number++;
    if (line.trim() === "") continue;
    const got = parse(line);
    if (isRecord(got.value)) rows.push(got.value);
    else if (dropMalformed) dropped.push({ index: number, reason: `${got.what}, expected a JSON object` });
    else
      throw malformed(
        name,
        number,
        got.what,
        "a JSON object; correct the line, or drop malformed rows",
        got.cause,
      );
  }
  return { rows, dropped };
}

interface Parsed {
  readonly value?: unknown;
  readonly what: string;
  readonly cause?: unknown;
}

function parse(line: string): Parsed {
  try {
    const value: unknown = JSON.parse(line);
    return { value, what: kindOf(value) };
  } catch (cause) {
    return { what: `a line of ${line.length} characters that is not JSON`, cause };
  }
}

async function* lines(texts: AsyncIterable<string>): AsyncIterable<string> {
  // The pieces of an open line are joined once, so that a long line costs its length and not its square.
  let open: string[] = [];
  for await (const text of texts) {
    let start = 0;
    for (let end = text.indexOf("\n"); end >= 0; end = text.indexOf("\n", start)) {
      open.push(text.slice(start, end));
      yield open.join("");
      open = [];
      start = end + 1;
    }
    if (start < text.length) open.push(text.slice(start));
  }
  if (open.length > 0) yield open.join("");
}
