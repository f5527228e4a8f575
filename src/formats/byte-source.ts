/** Bytes that are read by range, so that nothing has to fit in memory as a whole. */
export interface ByteSource {
  readonly size: number;
  /** The bytes from `start` up to, not including, `end`; both lie within the size. */
  read(start: number, end: number): Promise<Uint8Array>;
}

/** A source over bytes in memory. */
export function bytesSource(bytes: Uint8Array): ByteSource {
  return { size: bytes.length, read: async (start, end) => bytes.subarray(start, end) };
}

/** The files of one folder, by name. */
export type Folder = ReadonlyMap<string, ByteSource>;

/** All bytes of a source. */
export function readAll(source: ByteSource): Promise<Uint8Array> {
  return source.read(0, source.size);
}
