import { TributaryError } from "../errors.ts";
import type { Tensor } from "../tensor/tensor.ts";
import type { ByteSource } from "./byte-source.ts";
import { quote } from "./json.ts";
import { parseNpy } from "./npy.ts";

const END = 0x06054b50;
const END_64_LOCATOR = 0x07064b50;
const END_64 = 0x06064b50;
const ENTRY = 0x02014b50;
const LOCAL = 0x04034b50;
const MAX_DIRECTORY = 16 * 2 ** 20;
const MAX_ARRAY = 2 ** 32;
/** DEFLATE makes at most 258 bytes of 2 bits. */
const MAX_RATIO = 1032;

interface Entry {
  readonly name: string;
  readonly method: number;
  readonly packed: number;
  readonly size: number;
  readonly at: number;
}

/** Reads the arrays of a NumPy archive by name; `file` names it in messages. Stored and deflated members are read. */
export async function readNpz(source: ByteSource, file = "npz"): Promise<ReadonlyMap<string, Tensor>> {
  const arrays = new Map<string, Tensor>();
  for (const entry of await directory(source, file)) {
    if (!entry.name.endsWith(".npy")) continue;
    const name = entry.name.slice(0, -".npy".length);
    arrays.set(name, parseNpy(await member(source, entry, file), `${file}: ${name}`));
  }
  if (arrays.size === 0) throw refuse(file, "no arrays", "members ending in .npy");
  return arrays;
}

async function directory(source: ByteSource, file: string): Promise<Entry[]> {
  const tailAt = Math.max(0, source.size - 22 - 65_535 - 20);
  const tail = viewOf(await source.read(tailAt, source.size));
  let end = tail.byteLength - 22;
  while (end >= 0 && tail.getUint32(end, true) !== END) end--;
  if (end < 0) throw refuse(file, "no directory at the end", "a zip archive, whole");
  let count = tail.getUint16(end + 10, true);
  let size = tail.getUint32(end + 12, true);
  let at = tail.getUint32(end + 16, true);
  if (end >= 20 && tail.getUint32(end - 20, true) === END_64_LOCATOR) {
    const recordAt = Number(tail.getBigUint64(end - 12, true));
    const record = viewOf(await within(source, recordAt, 56, file));
    if (record.getUint32(0, true) !== END_64)
      throw refuse(file, "a damaged directory", "a zip archive, whole");
    count = Number(record.getBigUint64(32, true));
    size = Number(record.getBigUint64(40, true));
    at = Number(record.getBigUint64(48, true));
  }
  if (size > MAX_DIRECTORY || count * 46 > size)
    throw refuse(file, `a directory of ${size} bytes for ${count} members`, "one that fits its members");
  const bytes = viewOf(await within(source, at, size, file));
  const entries: Entry[] = [];
  let next = 0;
  for (let i = 0; i < count; i++) {
    if (next + 46 > size || bytes.getUint32(next, true) !== ENTRY)
      throw refuse(file, `a directory that ends in member ${i}`, `${count} members`);
    const [nameLength, extraLength, commentLength] = [28, 30, 32].map((offset) =>
      bytes.getUint16(next + offset, true),
    );
    const nameEnd = next + 46 + (nameLength ?? 0);
    const extraEnd = nameEnd + (extraLength ?? 0);
    if (extraEnd > size) throw refuse(file, `a directory that ends in member ${i}`, `${count} members`);
    if ((bytes.getUint16(next + 8, true) & 1) === 1) throw refuse(file, "a member with a password", "none");
    const short = {
      size: bytes.getUint32(next + 24, true),
      packed: bytes.getUint32(next + 20, true),
      at: bytes.getUint32(next + 42, true),
    };
    entries.push({
      name: new TextDecoder().decode(new Uint8Array(bytes.buffer, bytes.byteOffset + next + 46, nameLength)),
      method: bytes.getUint16(next + 10, true),
      ...wide(short, bytes, nameEnd, extraEnd),
    });
    next = extraEnd + (commentLength ?? 0);
  }
  return entries;
}

interface Places {
  readonly size: number;
  readonly packed: number;
  readonly at: number;
}

/** The sizes of a member, of which those that do not fit in 32 bits stand in an extra field, in this order. */
function wide(short: Places, view: DataView, start: number, end: number): Places {
  for (let at = start; at + 4 <= end; at += 4 + view.getUint16(at + 2, true)) {
    if (view.getUint16(at, true) !== 1) continue;
    const last = Math.min(end, at + 4 + view.getUint16(at + 2, true));
    let field = at + 4;
    const taken = (value: number): number => {
      if (value !== 0xffffffff || field + 8 > last) return value;
      field += 8;
      return Number(view.getBigUint64(field - 8, true));
    };
    return { size: taken(short.size), packed: taken(short.packed), at: taken(short.at) };
  }
  return short;
}

async function member(
  source: ByteSource,
  { name, method, packed, size, at }: Entry,
  file: string,
): Promise<Uint8Array> {
  const local = viewOf(await within(source, at, 30, file));
  if (local.getUint32(0, true) !== LOCAL)
    throw refuse(file, `no member at the place of ${quote(name)}`, "one");
  const start = at + 30 + local.getUint16(26, true) + local.getUint16(28, true);
  if (size > MAX_ARRAY || size > packed * MAX_RATIO + 64)
    throw refuse(file, `${quote(name)} of ${size} bytes out of ${packed}`, "what its bytes can hold");
  if (method === 0 && size === packed) return within(source, start, packed, file);
  if (method !== 8)
    throw refuse(file, `${quote(name)} packed by method ${method}`, "stored or deflated members");
  return inflated(await within(source, start, packed, file), size, `${file}: ${name}`);
}

async function inflated(packed: Uint8Array, size: number, file: string): Promise<Uint8Array> {
  const bytes = new Uint8Array(size);
  let at = 0;
  try {
    const stream = new Blob([new Uint8Array(packed)])
      .stream()
      .pipeThrough(new DecompressionStream("deflate-raw"));
    for await (const chunk of stream) {
      if (at + chunk.length > size) break;
      bytes.set(chunk, at);
      at += chunk.length;
    }
  } catch (cause) {
    throw refuse(file, "bytes that cannot be expanded", "deflated data; fetch the file again", cause);
  }
  if (at !== size) throw refuse(file, "another length than the directory says", `${size} bytes`);
  return bytes;
}

async function within(source: ByteSource, start: number, length: number, file: string): Promise<Uint8Array> {
  if (!(start >= 0 && length >= 0 && start + length <= source.size))
    throw refuse(file, `bytes ${start} to ${start + length}`, `places within its ${source.size} bytes`);
  return source.read(start, start + length);
}

function viewOf(bytes: Uint8Array): DataView {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}

function refuse(file: string, got: string, expected: string, cause?: unknown): TributaryError {
  const options = cause === undefined ? {} : { cause };
  return new TributaryError("npz-invalid", `${file}: got ${got}, expected ${expected}`, options);
}
