import { type ReadOptions, type Records, type Source, wholeText } from "./record.ts";

/** Reads plain text as one document: a row with `text` and, where it has a name, `file`. */
export async function readText(source: Source, options: ReadOptions = {}): Promise<Records> {
  const text = await wholeText(source, options);
  const file = options.name === undefined ? {} : { file: options.name };
  if (text.trim() === "") return { rows: [], dropped: [{ index: 0, reason: "a document without text" }] };
  return { rows: [{ text, ...file }], dropped: [] };
}
