import {
  type DataRecord,
  type Dropped,
  isRecord,
  kindOf,
  malformed,
  type ReadOptions,
  type Records,
  type Source,
  wholeText,
} from "./record.ts";

/** Reads a JSON file: an array of objects, an object with such an array as `data`, or one object as the only row. */
export async function readJson(source: Source, options: ReadOptions = {}): Promise<Records> {
  const { name = "data", dropMalformed = false } = options;
  const text = await wholeText(source, options);
  const value = parse(text, name);
  const inner = isRecord(value) && Array.isArray(value.data) ? value.data : value;
  const entries: readonly unknown[] = Array.isArray(inner) ? inner : [inner];
  const rows: DataRecord[] = [];
  const dropped: Dropped[] = [];
  for (const [index, entry] of entries.entries()) {
    if (isRecord(entry)) rows.push(entry);
    else if (dropMalformed) dropped.push({ index, reason: `${kindOf(entry)}, expected an object` });
    else
      throw malformed(
        name,
        undefined,
        `${kindOf(entry)} as entry ${index}`,
        "an array of objects; for one object a line use .jsonl",
      );
  }
  return { rows, dropped };
}

function parse(text: string, name: string): unknown {
  try {
    return JSON.parse(text);
  } catch (cause) {
    const at = cause instanceof SyntaxError ? /position (\d+)/.exec(cause.message)?.[1] : undefined;
    const line = at === undefined ? undefined : text.slice(0, Number(at)).split("\n").length;
    throw malformed(
      name,
      line,
      "text that is not JSON",
      "an array of objects; for one object a line use .jsonl",
      cause,
    );
  }
}
