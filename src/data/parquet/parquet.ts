import { type Compressors, type FileMetaData, parquetMetadata, parquetReadObjects } from "hyparquet";
import { decompressZstd, compressors as packages } from "hyparquet-compressors";
import { TributaryError } from "../../errors.ts";
import type { ByteSource } from "../../formats/byte-source.ts";
import { type DataRecord, isRecord, malformed, type ReadOptions, type Records } from "../record.ts";
import { checkPages } from "./pages.ts";
import { readThrift } from "./thrift.ts";

const MAX_FOOTER = 2 ** 28;

/** Given a place of the length that was checked, zstd does not make one of the length that its own header says. */
const compressors: Compressors = {
  ...packages,
  ZSTD: (input, length) => decompressZstd(input, new Uint8Array(length)),
};

/**
 * Reads the rows of a Parquet file with all its columns. Whole numbers that fit are numbers; columns that are not marked
 * as text stay bytes. The file is checked first: one that is damaged is refused and takes no more memory than a sound one of its size.
 */
export async function readParquet(source: ByteSource, { name = "data" }: ReadOptions = {}): Promise<Records> {
  try {
    const metadata = await footer(source);
    await checkPages({ source, metadata, compressors });
    const rows = await parquetReadObjects({
      file: {
        byteLength: source.size,
        slice: async (start, end = source.size) => buffer(await source.read(start, end)),
      },
      metadata,
      compressors,
      geoparquet: false,
      // Only columns that say so are text.
      utf8: false,
    });
    return { rows: rows.map((row) => plainRecord(row)), dropped: [] };
  } catch (cause) {
    // What the disk refuses is told apart from what is wrong with the bytes.
    if (!(cause instanceof Error) || cause instanceof TributaryError || "syscall" in cause) throw cause;
    throw malformed(name, undefined, cause.message, "a whole Parquet file; fetch or write it again", cause);
  }
}

async function footer(source: ByteSource): Promise<FileMetaData> {
  if (source.size < 12) throw new RangeError("a file that is too short");
  const tail = await source.read(source.size - 8, source.size);
  const view = new DataView(tail.buffer, tail.byteOffset, tail.byteLength);
  const length = view.getUint32(0, true);
  if (view.getUint32(4, true) !== 0x31524150) throw new RangeError("other last bytes than PAR1");
  if (length > source.size - 12 || length > MAX_FOOTER) throw new RangeError(`a footer of ${length} bytes`);
  const bytes = buffer(await source.read(source.size - 8 - length, source.size));
  // The walk refuses what would make the reader allocate beyond the footer's size.
  readThrift(new DataView(bytes, 0, length));
  return parquetMetadata(bytes, { geoparquet: false });
}

function buffer(bytes: Uint8Array): ArrayBuffer {
  const copy = new ArrayBuffer(bytes.length);
  new Uint8Array(copy).set(bytes);
  return copy;
}

function plainRecord(row: Readonly<Record<string, unknown>>): DataRecord {
  return Object.fromEntries(Object.entries(row).map(([field, value]) => [field, plain(value)]));
}

function plain(value: unknown): unknown {
  if (typeof value === "bigint") {
    const number = Number(value);
    return Number.isSafeInteger(number) ? number : String(value);
  }
  if (value instanceof Date) return value.toISOString();
  if (value instanceof Uint8Array) return value;
  if (ArrayBuffer.isView(value))
    return value instanceof DataView ? value : Array.from(value as Float64Array, plain);
  if (Array.isArray(value)) return value.map(plain);
  return isRecord(value) ? plainRecord(value) : value;
}
