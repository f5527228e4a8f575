import { TributaryError } from "../errors.ts";
import { type Digest, type Hash, sha256 } from "./digest.ts";

/** Content-addressed bytes: a key is the SHA-256 of the bytes, checked on put and on get. */
export interface BlobStore {
  /** Those of `ids` that the store has not. */
  missing(ids: readonly Digest[]): Promise<Digest[]>;
  /** Durable on return. Putting what is there is free and changes nothing. */
  put(id: Digest, bytes: Uint8Array): Promise<void>;
  /** The bytes, verified. Throws TributaryError `blob-missing` or `blob-damaged`. */
  get(id: Digest): Promise<Uint8Array>;
  /** Deletes what is not live and was last put more than `olderThanMs` ago; the number of deleted blobs. */
  sweep(live: ReadonlySet<Digest>, olderThanMs: number): Promise<number>;
}

/** Throws TributaryError `blob-damaged` unless the bytes are those that the key names. */
export async function assertContent(
  id: Digest,
  bytes: Uint8Array,
  where: string,
  hash?: Hash,
): Promise<void> {
  const got = await sha256(bytes, hash);
  if (got !== id) {
    throw new TributaryError(
      "blob-damaged",
      `${where}: the ${bytes.length} bytes of blob ${id} hash to ${got}; restore this file from a copy of the run folder`,
    );
  }
}
