import { TributaryError } from "../errors.ts";

/**
 * A document with the table of a sweep between the lines `<!-- sweep: NAME -->` and `<!-- end of sweep -->`, in place of what
 * stands there. Throws TributaryError `no-marks` where the document has no such lines.
 */
export function withTable(document: string, table: string, name: string, file: string): string {
  const [start, end] = [`<!-- sweep: ${name} -->`, "<!-- end of sweep -->"];
  const from = document.indexOf(start);
  const to = document.indexOf(end, Math.max(0, from));
  if (from < 0 || to < 0) {
    throw new TributaryError(
      "no-marks",
      `${file}: has no place for the table, expected the lines ${start} and ${end}; add them where it should go`,
    );
  }
  return `${document.slice(0, from + start.length)}\n\n${table.trim()}\n\n${document.slice(to)}`;
}
