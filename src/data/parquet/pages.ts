import type { ColumnMetaData, Compressors, FileMetaData, SchemaElement } from "hyparquet";
import type { ByteSource } from "../../formats/byte-source.ts";
import { readThrift, type ThriftStruct } from "./thrift.ts";

/** Rows and values that a file may hold for each of its bytes, and at least. */
const PER_BYTE = 16;
const AT_LEAST = 1_000_000;
const MAX_PAGE = 2 ** 29;

const DATA_PAGE = 0;
const DICTIONARY_PAGE = 2;
const DATA_PAGE_V2 = 3;

const PLAIN = 0;
const PLAIN_DICTIONARY = 2;
const RLE = 3;
const DELTA_BINARY_PACKED = 5;
const DELTA_LENGTH_BYTE_ARRAY = 6;
const DELTA_BYTE_ARRAY = 7;
const RLE_DICTIONARY = 8;
const BYTE_STREAM_SPLIT = 9;

export interface PageCheck {
  readonly source: ByteSource;
  readonly metadata: FileMetaData;
  readonly compressors: Compressors;
}

/**
 * Walks through every page of a file before a reader decodes it, so that no count in it makes more than the file can hold:
 * sizes of pages, numbers of values, runs of equal numbers. Throws RangeError with what is wrong.
 */
export async function checkPages({ source, metadata, compressors }: PageCheck): Promise<void> {
  const most = Math.max(AT_LEAST, PER_BYTE * source.size);
  const leaves = leavesOf(metadata.schema);
  let rows = 0;
  let values = 0;
  for (const group of metadata.row_groups) {
    const groupRows = Number(group.num_rows);
    rows += groupRows;
    if (!(groupRows >= 0 && rows <= most)) throw new RangeError(`${rows} rows in ${source.size} bytes`);
    if (group.columns.length !== leaves.length)
      throw new RangeError(`${group.columns.length} columns in a group, ${leaves.length} in the schema`);
    for (const [i, { meta_data: column, file_path: elsewhere }] of group.columns.entries()) {
      const leaf = leaves[i];
      if (column === undefined || leaf === undefined || elsewhere)
        throw new RangeError(`column ${i} without its place in this file`);
      if (column.path_in_schema.join("\0") !== leaf.path.join("\0"))
        throw new RangeError(`column ${i} under another name than in the schema`);
      const numValues = Number(column.num_values);
      values += numValues;
      if (!(numValues >= 0 && values <= most * 4))
        throw new RangeError(`${values} values in ${source.size} bytes`);
      if (leaf.repetitionLevel === 0 && numValues !== groupRows)
        throw new RangeError(`${numValues} values of ${groupRows} rows`);
      await checkColumn(source, column, leaf, compressors);
    }
  }
  if (rows !== Number(metadata.num_rows))
    throw new RangeError(`${rows} rows in groups of ${metadata.num_rows}`);
}

interface Leaf {
  readonly path: readonly string[];
  readonly element: SchemaElement;
  readonly definitionLevel: number;
  readonly repetitionLevel: number;
}

/** The columns of a schema, which lists a tree depth first. */
function leavesOf(schema: readonly SchemaElement[]): Leaf[] {
  const leaves: Leaf[] = [];
  let next = 0;
  const visit = (path: readonly string[], definition: number, repetition: number, depth: number): void => {
    const element = schema[next++];
    if (element === undefined || depth > 24) throw new RangeError("a schema that is no tree");
    const root = next === 1;
    const own = root ? path : [...path, element.name];
    const optional = !root && element.repetition_type !== "REQUIRED" ? 1 : 0;
    const repeated = !root && element.repetition_type === "REPEATED" ? 1 : 0;
    const levels = [definition + optional, repetition + repeated] as const;
    if (!root && element.type !== undefined) {
      leaves.push({ path: own, element, definitionLevel: levels[0], repetitionLevel: levels[1] });
      return;
    }
    for (let i = 0; i < (element.num_children ?? 0); i++) visit(own, ...levels, depth + 1);
  };
  visit([], 0, 0, 0);
  if (next !== schema.length) throw new RangeError("a schema that is no tree");
  return leaves;
}

async function checkColumn(
  source: ByteSource,
  column: ColumnMetaData,
  leaf: Leaf,
  compressors: Compressors,
): Promise<void> {
  const first = Number(column.dictionary_page_offset || column.data_page_offset);
  const length = Number(column.total_compressed_size);
  if (!(first >= 0 && length >= 0 && first + length <= source.size))
    throw new RangeError(`a column from byte ${first} on, ${length} long`);
  const bytes = await source.read(first, first + length);
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const wanted = Number(column.num_values);
  let seen = 0;
  let dictionary = 0;
  for (let at = 0; at < length && seen < wanted; ) {
    const { value: header, end } = readThrift(view, at);
    const packed = whole(header, 3);
    const size = whole(header, 2);
    if (end + packed > length) throw new RangeError(`a page of ${packed} bytes beyond its column`);
    const page = { header, bytes: bytes.subarray(end, end + packed), size, codec: column.codec, compressors };
    const kind = whole(header, 1);
    if (kind === DICTIONARY_PAGE) {
      dictionary = whole(struct(header, 7), 1);
      checkPlain(dictionary, unpacked(page, 0), leaf);
    } else if (kind === DATA_PAGE || kind === DATA_PAGE_V2) {
      seen +=
        kind === DATA_PAGE ? checkPage(page, leaf, wanted - seen) : checkPageV2(page, leaf, wanted - seen);
    }
    at = end + packed;
  }
  if (seen !== wanted) throw new RangeError(`${seen} values in the pages of a column of ${wanted}`);
}

interface Page {
  readonly header: ThriftStruct;
  readonly bytes: Uint8Array;
  /** Bytes once it is expanded. */
  readonly size: number;
  readonly codec: ColumnMetaData["codec"];
  readonly compressors: Compressors;
}

/** Version 1: levels and values are packed together, each level with its length before it. */
function checkPage(page: Page, leaf: Leaf, room: number): number {
  const header = struct(page.header, 5);
  const count = counted(header, room);
  const bytes = unpacked(page, 0);
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  let at = 0;
  let present = count;
  for (const level of [leaf.repetitionLevel, leaf.definitionLevel]) {
    if (level === 0) continue;
    const length = view.getUint32(at, true);
    const runs = bytes.subarray(at + 4, at + 4 + length);
    if (runs.length !== length) throw new RangeError("levels beyond their page");
    present = checkRuns(runs, count, 32 - Math.clz32(level), level);
    at += 4 + length;
  }
  checkValues(whole(header, 2), leaf.definitionLevel > 0 ? present : count, bytes.subarray(at), leaf);
  return count;
}

/** Version 2: levels stand unpacked before the values. */
function checkPageV2(page: Page, leaf: Leaf, room: number): number {
  const header = struct(page.header, 8);
  const count = counted(header, room);
  const [nulls, definition, repetition] = [whole(header, 2), whole(header, 5), whole(header, 6)];
  if (nulls > count || whole(header, 3) > count || definition + repetition > page.bytes.length)
    throw new RangeError("levels beyond their page");
  const levels = [
    [leaf.repetitionLevel, page.bytes.subarray(0, repetition)],
    [leaf.definitionLevel, page.bytes.subarray(repetition, repetition + definition)],
  ] as const;
  for (const [level, runs] of levels) if (level > 0) checkRuns(runs, count, 32 - Math.clz32(level), level);
  const skipped = definition + repetition;
  const rest = { ...page, bytes: page.bytes.subarray(skipped), size: page.size - skipped };
  const plain = header.get(7) === false ? rest.bytes : unpacked(rest, skipped);
  checkValues(whole(header, 4), count - nulls, plain, leaf);
  return count;
}

function checkValues(encoding: number, count: number, bytes: Uint8Array, leaf: Leaf): void {
  switch (encoding) {
    case PLAIN:
      checkPlain(count, bytes, leaf);
      return;
    case PLAIN_DICTIONARY:
    case RLE_DICTIONARY: {
      const [width = 0] = bytes;
      if (count === 0) return;
      if (width > 32 || bytes.length === 0) throw new RangeError(`indices of ${width} bits`);
      if (width > 0) checkRuns(bytes.subarray(1), count, width);
      return;
    }
    case RLE:
      // Booleans, with a length before them.
      checkRuns(bytes.subarray(4), count, 1);
      return;
    case DELTA_BINARY_PACKED:
    case DELTA_LENGTH_BYTE_ARRAY: {
      const perBlock = variable(bytes, variable(bytes, 0).end).value;
      if (perBlock === 0 || perBlock > 4096) throw new RangeError(`blocks of ${perBlock} parts`);
      return;
    }
    case BYTE_STREAM_SPLIT:
      checkPlain(count, bytes, leaf);
      return;
    default:
      throw new RangeError(
        encoding === DELTA_BYTE_ARRAY
          ? "the encoding DELTA_BYTE_ARRAY, which is not read"
          : `the encoding ${encoding}`,
      );
  }
}

const widths: Readonly<Record<string, number>> = {
  INT32: 4,
  FLOAT: 4,
  INT64: 8,
  DOUBLE: 8,
  INT96: 12,
  BYTE_ARRAY: 4,
};

function checkPlain(count: number, bytes: Uint8Array, { element }: Leaf): void {
  const type = element.type ?? "";
  const width = type === "BOOLEAN" ? 1 / 8 : (widths[type] ?? element.type_length ?? 0);
  if (!(width > 0) || count * width > bytes.length)
    throw new RangeError(`${count} values of ${type} in a page of ${bytes.length} bytes`);
}

/** Goes along runs that make `count` numbers; says how many of them are `level`. */
function checkRuns(bytes: Uint8Array, count: number, width: number, level = -1): number {
  let seen = 0;
  let equal = 0;
  let at = 0;
  while (seen < count) {
    const { value, end } = variable(bytes, at);
    at = end;
    if (value % 2 === 1) {
      const numbers = ((value - 1) / 2) * 8;
      if (numbers - 8 >= count - seen) throw new RangeError("more packed numbers than values");
      if (level >= 0) equal += packedEqual(bytes, at, Math.min(numbers, count - seen), width, level);
      at += (numbers / 8) * width;
      // The last run may end before the numbers that only fill it.
      if (numbers === 0 || at > bytes.length + width)
        throw new RangeError("packed numbers beyond their page");
      seen += numbers;
    } else {
      const run = value / 2;
      if (run > count - seen || run === 0)
        throw new RangeError(`a run of ${run} where ${count - seen} values are left`);
      let number = 0;
      for (let i = 0; i < Math.ceil(width / 8); i++) number += (bytes[at++] ?? 0) * 256 ** i;
      if (number === level) equal += run;
      seen += run;
    }
    if (at > bytes.length && seen < count) throw new RangeError("runs beyond their page");
  }
  return equal;
}

function packedEqual(bytes: Uint8Array, start: number, count: number, width: number, level: number): number {
  let equal = 0;
  for (let i = 0; i < count; i++) {
    let number = 0;
    for (let bit = 0; bit < width; bit++) {
      const place = i * width + bit;
      number |= (((bytes[start + (place >> 3)] ?? 0) >> (place & 7)) & 1) << bit;
    }
    if (number === level) equal++;
  }
  return equal;
}

function variable(bytes: Uint8Array, start: number): { readonly value: number; readonly end: number } {
  let value = 0;
  for (let i = 0; i < 5; i++) {
    const byte = bytes[start + i];
    if (byte === undefined) throw new RangeError("runs beyond their page");
    value += (byte & 127) * 128 ** i;
    if (byte < 128) return { value, end: start + i + 1 };
  }
  throw new RangeError("a run of more than five bytes");
}

function unpacked({ bytes, size, codec, compressors }: Page, before: number): Uint8Array {
  if (codec === "UNCOMPRESSED") {
    if (bytes.length !== size)
      throw new RangeError(`a page of ${bytes.length} bytes that says ${size + before}`);
    return bytes;
  }
  const expand = compressors[codec];
  if (expand === undefined) throw new RangeError(`the compression ${codec}, which is not read`);
  // The densest of them, zstd, makes 128 KiB of a few bytes.
  if (!(size >= 0 && size <= MAX_PAGE && size <= 2 ** 16 * (bytes.length + 1)))
    throw new RangeError(`a page of ${size} bytes out of ${bytes.length}`);
  const found = expand(bytes, size);
  if (found.length !== size) throw new RangeError(`a page of ${found.length} bytes that says ${size}`);
  return found;
}

function counted(header: ThriftStruct, room: number): number {
  const count = whole(header, 1);
  if (count > room) throw new RangeError(`${count} values in a page where ${room} are left`);
  return count;
}

function struct(header: ThriftStruct, field: number): ThriftStruct {
  const value = header.get(field);
  if (value instanceof Map) return value;
  throw new RangeError("a page without its header");
}

function whole(header: ThriftStruct, field: number): number {
  const value = header.get(field);
  if (typeof value === "number" && Number.isInteger(value) && value >= 0) return value;
  throw new RangeError(`a page header without a count in field ${field}`);
}
