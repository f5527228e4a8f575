import { TributaryError } from "../errors.ts";
import { type Digest, type Hash, webHash } from "./digest.ts";

/** What is put: bytes as a whole, in pieces, or as they arrive. */
export type BlobBytes = Uint8Array | readonly Uint8Array[] | AsyncIterable<Uint8Array>;

/** Content-addressed bytes: a key is the SHA-256 of the bytes, checked on put and on get. */
export interface BlobStore {
  /** Those of `ids` that the store has not. */
  missing(ids: readonly Digest[]): Promise<Digest[]>;
  /**
   * Stores bytes. Durable on return. Putting what is there is free and changes nothing. Throws TributaryError `blob-damaged`
   * where the bytes are not those of the key, and what the bytes throw on their way.
   */
  put(id: Digest, bytes: BlobBytes): Promise<void>;
  /**
   * The bytes, verified; read into `into`, where it is given and has their length, so that they are not copied again.
   * Throws TributaryError `blob-missing` or `blob-damaged`.
   */
  get(id: Digest, into?: Uint8Array): Promise<Uint8Array>;
  /** Deletes what is not live and was last put more than `olderThanMs` ago; the number of deleted blobs. */
  sweep(live: ReadonlySet<Digest>, olderThanMs: number): Promise<number>;
}

/** Whether what is put is still on its way. */
export function arrives(bytes: BlobBytes): bytes is AsyncIterable<Uint8Array> {
  return Symbol.asyncIterator in bytes;
}

/** All pieces of what is put. */
export async function piecesOf(bytes: BlobBytes): Promise<readonly Uint8Array[]> {
  if (bytes instanceof Uint8Array) return [bytes];
  if (!arrives(bytes)) return bytes;
  const pieces: Uint8Array[] = [];
  for await (const piece of bytes) pieces.push(piece);
  return pieces;
}

/** Throws TributaryError `blob-damaged` unless the bytes are those that the key names. */
export async function assertContent(
  id: Digest,
  pieces: readonly Uint8Array[],
  where: string,
  hash: Hash = webHash,
): Promise<void> {
  const got = await hash(pieces);
  if (got === id) return;
  const length = pieces.reduce((sum, piece) => sum + piece.length, 0);
  throw damaged(id, got, length, where);
}

/** The error of bytes that are not those of their key. */
export function damaged(id: Digest, got: Digest, length: number, where: string): TributaryError {
  return new TributaryError(
    "blob-damaged",
    `${where}: the ${length} bytes of blob ${id} hash to ${got}; restore this file from a copy of the run folder`,
  );
}
