import { BinaryReader, BinaryWriter, WireType } from "@bufbuild/protobuf/wire";

/** Scalars of one step, as TensorBoard shows them. */
export interface ScalarStep {
  readonly step: number;
  /** Seconds since 1970. */
  readonly wallTime: number;
  /** Values by tag. Those that are not finite are left out. */
  readonly values: Readonly<Record<string, number>>;
}

/** Field numbers of tensorflow/core/util/event.proto and summary.proto. */
const event = { wallTime: 1, step: 2, fileVersion: 3, summary: 5 } as const;
const summary = { value: 1 } as const;
const value = { tag: 1, simpleValue: 2 } as const;

/** The record that opens an event file. */
export function eventFileHead(wallTime: number): Uint8Array {
  const writer = new BinaryWriter();
  writer.tag(event.wallTime, WireType.Bit64).double(wallTime);
  writer.tag(event.fileVersion, WireType.LengthDelimited).string("brain.Event:2");
  return recordOf(writer.finish());
}

/** All scalars of a step as one record, so that a reader has the whole step or nothing of it. */
export function scalarRecord({ step, wallTime, values }: ScalarStep): Uint8Array {
  const writer = new BinaryWriter();
  writer.tag(event.wallTime, WireType.Bit64).double(wallTime);
  writer.tag(event.step, WireType.Varint).int64(step);
  writer.tag(event.summary, WireType.LengthDelimited).fork();
  for (const [tag, number] of Object.entries(values)) {
    if (!Number.isFinite(Math.fround(number))) continue;
    writer.tag(summary.value, WireType.LengthDelimited).fork();
    writer.tag(value.tag, WireType.LengthDelimited).string(tag);
    writer.tag(value.simpleValue, WireType.Bit32).float(number);
    writer.join();
  }
  writer.join();
  return recordOf(writer.finish());
}

/** The largest step of an event file; undefined where it has none. A record that was cut short ends the file. */
export function lastStep(bytes: Uint8Array): number | undefined {
  let last: number | undefined;
  for (const data of recordsOf(bytes)) {
    const step = stepOf(data);
    if (step !== undefined) last = Math.max(last ?? step, step);
  }
  return last;
}

/** Length as 64 bits, its masked CRC, the data, their masked CRC; little-endian (TFRecord). */
function recordOf(data: Uint8Array): Uint8Array {
  const bytes = new Uint8Array(data.length + 16);
  const view = new DataView(bytes.buffer);
  view.setUint32(0, data.length, true);
  view.setUint32(8, maskedCrc(bytes.subarray(0, 8)), true);
  bytes.set(data, 12);
  view.setUint32(12 + data.length, maskedCrc(data), true);
  return bytes;
}

function* recordsOf(bytes: Uint8Array): Generator<Uint8Array> {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  let at = 0;
  while (at + 16 <= bytes.length) {
    const length = view.getUint32(at, true) + 2 ** 32 * view.getUint32(at + 4, true);
    const end = at + 12 + length;
    if (end + 4 > bytes.length) return;
    const data = bytes.subarray(at + 12, end);
    if (view.getUint32(at + 8, true) !== maskedCrc(bytes.subarray(at, at + 8))) return;
    if (view.getUint32(end, true) !== maskedCrc(data)) return;
    yield data;
    at = end + 4;
  }
}

/** The step of an event that carries a summary. */
function stepOf(data: Uint8Array): number | undefined {
  const reader = new BinaryReader(data);
  let step = 0;
  let summarized = false;
  while (reader.pos < reader.len) {
    const [field, type] = reader.tag();
    if (field === event.step) step = Number(reader.int64());
    else {
      summarized ||= field === event.summary;
      reader.skip(type);
    }
  }
  return summarized ? step : undefined;
}

/** CRC-32C (Castagnoli, reflected polynomial 0x82f63b78) of each byte. */
const table: Uint32Array = Uint32Array.from({ length: 256 }, (_, byte) => {
  let crc = byte;
  for (let bit = 0; bit < 8; bit++) crc = crc & 1 ? (crc >>> 1) ^ 0x82f63b78 : crc >>> 1;
  return crc;
});

/** The CRC, rotated right by 15 bits and moved by a constant: data that hold CRCs of their own stay well protected. */
function maskedCrc(bytes: Uint8Array): number {
  let crc = 0xffffffff;
  for (const byte of bytes) crc = (table[(crc ^ byte) & 0xff] ?? 0) ^ (crc >>> 8);
  crc = ~crc >>> 0;
  return (((crc >>> 15) | (crc << 17)) + 0xa282ead8) >>> 0;
}
