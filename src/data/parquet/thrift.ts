/** A value of Thrift's compact protocol: structures by the numbers of their fields. */
export type ThriftValue = boolean | number | bigint | Uint8Array | readonly ThriftValue[] | ThriftStruct;

export type ThriftStruct = ReadonlyMap<number, ThriftValue>;

/** Structures within structures; Parquet needs less than ten. */
const MAX_DEPTH = 24;

/**
 * Reads a structure at `start` and says where it ends. Lists longer than the bytes that are left, strings beyond the end and
 * deep nesting are RangeErrors before anything is made for them.
 */
export function readThrift(
  view: DataView,
  start = 0,
): { readonly value: ThriftStruct; readonly end: number } {
  let at = start;

  function byte(): number {
    return view.getUint8(at++);
  }

  function variable(): bigint {
    let value = 0n;
    for (let shift = 0n; shift < 70n; shift += 7n) {
      const next = byte();
      value |= BigInt(next & 127) << shift;
      if (next < 128) return value;
    }
    throw new RangeError("a number of more than ten bytes");
  }

  function signed(): bigint {
    const value = variable();
    return (value >> 1n) ^ -(value & 1n);
  }

  function counted(): number {
    const value = variable();
    if (value > BigInt(view.byteLength - at)) throw new RangeError("a length beyond the end");
    return Number(value);
  }

  function element(kind: number, depth: number): ThriftValue {
    switch (kind) {
      case 1:
        return true;
      case 2:
        return false;
      case 3:
        return view.getInt8(at++);
      case 4:
      case 5:
        return Number(signed());
      case 6:
        return signed();
      case 7:
        at += 8;
        return view.getFloat64(at - 8, true);
      case 8: {
        const length = counted();
        at += length;
        return new Uint8Array(view.buffer, view.byteOffset + at - length, length);
      }
      case 9: {
        const head = byte();
        const length = head >> 4 === 15 ? counted() : head >> 4;
        if (length > view.byteLength - at) throw new RangeError("a list beyond the end");
        const inner = (head & 15) <= 2 ? 3 : head & 15;
        const list: ThriftValue[] = [];
        for (let i = 0; i < length; i++) list.push(element(inner, depth + 1));
        return list;
      }
      case 12:
        return struct(depth + 1);
      default:
        throw new RangeError(`a value of kind ${kind}`);
    }
  }

  function struct(depth: number): ThriftStruct {
    if (depth > MAX_DEPTH) throw new RangeError("structures too deep in each other");
    const fields = new Map<number, ThriftValue>();
    let id = 0;
    for (;;) {
      const head = byte();
      if ((head & 15) === 0) return fields;
      id = head >> 4 === 0 ? Number(signed()) : id + (head >> 4);
      fields.set(id, element(head & 15, depth));
    }
  }

  const value = struct(0);
  return { value, end: at };
}
