import { TributaryError } from "../errors.ts";
import { type Digest, type Hash, webHash } from "./digest.ts";

/** Content-addressed bytes: a key is the SHA-256 of the bytes, checked on put and on get. */
export interface BlobStore {
  /** Those of `ids` that the store has not. */
  missing(ids: readonly Digest[]): Promise<Digest[]>;
  /** Stores bytes, whole or in pieces. Durable on return. Putting what is there is free and changes nothing. */
  put(id: Digest, bytes: Uint8Array | readonly Uint8Array[]): Promise<void>;
  /**
   * The bytes, verified; read into `into`, where it is given and has their length, so that they are not copied again.
   * Throws TributaryError `blob-missing` or `blob-damaged`.
   */
  get(id: Digest, into?: Uint8Array): Promise<Uint8Array>;
  /** Deletes what is not live and was last put more than `olderThanMs` ago; the number of deleted blobs. */
  sweep(live: ReadonlySet<Digest>, olderThanMs: number): Promise<number>;
}

/** The pieces of what is put. */
export function piecesOf(bytes: Uint8Array | readonly Uint8Array[]): readonly Uint8Array[] {
  return bytes instanceof Uint8Array ? [bytes] : bytes;
}

/** Throws TributaryError `blob-damaged` unless the bytes are those that the key names. */
export async function assertContent(
  id: Digest,
  pieces: readonly Uint8Array[],
  where: string,
  hash: Hash = webHash,
): Promise<void> {
  const got = await hash(pieces);
  if (got !== id) {
    const length = pieces.reduce((sum, piece) => sum + piece.length, 0);
    throw new TributaryError(
      "blob-damaged",
      `${where}: the ${length} bytes of blob ${id} hash to ${got}; restore this file from a copy of the run folder`,
    );
  }
}
