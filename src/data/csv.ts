import { CsvError, type Info, type Options, parse } from "csv-parse/browser/esm/sync";
import {
  type DataRecord,
  type Dropped,
  malformed,
  type ReadOptions,
  type Records,
  type Source,
  wholeText,
} from "./record.ts";

export interface CsvOptions extends ReadOptions {
  /** One character between fields. A tab makes it TSV. */
  readonly delimiter?: string;
}

interface Row {
  readonly record: readonly string[];
  readonly info: Info;
}

/**
 * Reads CSV as RFC 4180 has it, `"` doubled inside quoted fields; the first row names the fields, and all values are text.
 */
export async function readCsv(source: Source, options: CsvOptions = {}): Promise<Records> {
  const { name = "data", delimiter = ",", dropMalformed = false } = options;
  const [head, ...body] = split(await wholeText(source, options), delimiter, name);
  if (head === undefined)
    throw malformed(name, 1, "an empty file", "a first row with the names of the fields");
  const fields = head.record.map((field) => field.trim());
  const repeated = fields.find((field, i) => fields.indexOf(field) !== i);
  if (repeated !== undefined || fields.includes("")) {
    const got = repeated ? `the field ${JSON.stringify(repeated)} twice` : "a field without a name";
    throw malformed(name, 1, got, "one name for each column in the first row");
  }
  const rows: DataRecord[] = [];
  const dropped: Dropped[] = [];
  for (const { record, info } of body) {
    if (record.length === fields.length)
      rows.push(Object.fromEntries(fields.map((field, i) => [field, record[i]])));
    else if (dropMalformed)
      dropped.push({ index: info.lines, reason: `${record.length} fields, expected ${fields.length}` });
    else {
      const expected = `${fields.length} as in the first row; quote fields that contain the delimiter, or drop malformed rows`;
      throw malformed(name, info.lines, `${record.length} fields`, expected);
    }
  }
  return { rows, dropped };
}

function split(text: string, delimiter: string, name: string): Row[] {
  const settings: Options = {
    delimiter,
    record_delimiter: ["\r\n", "\n"],
    info: true,
    relax_column_count: true,
    skip_empty_lines: true,
  };
  try {
    // With `info`, csv-parse returns pairs, which its types leave out.
    const rows: unknown = parse(text, settings);
    return Array.isArray(rows) ? rows : [];
  } catch (cause) {
    if (!(cause instanceof CsvError)) throw cause;
    throw malformed(
      name,
      typeof cause.lines === "number" ? cause.lines : undefined,
      csvFault(cause.code),
      "CSV as in RFC 4180",
      cause,
    );
  }
}

function csvFault(code: string): string {
  return code === "CSV_QUOTE_NOT_CLOSED"
    ? "a quoted field without its end"
    : code.toLowerCase().replaceAll("_", " ");
}
