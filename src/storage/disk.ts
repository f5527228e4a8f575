import { basename, dirname, join } from "node:path";
import { TributaryError } from "../errors.ts";
import { assertContent, type BlobStore, piecesOf } from "../federation/blob-store.ts";
import { type Digest, type Hash, isDigest } from "../federation/digest.ts";
import { durableFolders, type FileSystem, nodeFiles, replaceFile } from "../formats/file-system.node.ts";
import { nodeEnv } from "./node-env.ts";

/** Digests that a store remembers to have written. */
const RECENT = 4096;

const temporary = /\.tmp-\d+-\d+$/;

/** What a store on disk stands on. */
export interface DiskOptions {
  /** Default: the file system of this machine. */
  readonly files?: FileSystem;
  /** SHA-256. Default: Node's, which copies nothing; WebCrypto's copy for its thread costs more than the hash. */
  readonly hash?: Hash;
}

/**
 * A blob store in a folder: `<ab>/<sha256>`, immutable files of mode 0600. A file is written under a temporary name
 * beside its place, synced, renamed, and its folder synced: after a crash it is whole or absent. Temporaries of
 * earlier processes are deleted by `sweep`. One level of 256 folders: each new folder costs a further sync.
 */
export function diskBlobs(
  folder: string,
  { files = nodeFiles, hash = nodeEnv().hash }: DiskOptions = {},
): BlobStore {
  let written = 0;
  const folders = durableFolders(files, folder);
  const writing = new Map<Digest, Promise<void>>();
  /** Folders whose files are durable, but for those that are being written. */
  const synced = new Map<string, Promise<void>>();
  /** What this process has made durable lately, in order: whoever asks need not look. */
  const recent = new Set<Digest>();

  function pathOf(id: Digest): string {
    if (!isDigest(id)) throw new RangeError(`disk: "${id}" is not a digest of 64 hexadecimal digits`);
    return join(folder, id.slice(0, 2), id);
  }

  /** Resolves when the files that are in a folder are durable: a killed process may have left one that is not. */
  function durable(path: string): Promise<void> {
    const known = synced.get(path);
    if (known) return known;
    const work = folders.make(path).then(() => files.syncFolder(path));
    synced.set(path, work);
    work.catch(() => synced.delete(path));
    return work;
  }

  async function isThere(id: Digest): Promise<boolean> {
    const path = pathOf(id);
    if (recent.has(id)) return true;
    if ((await files.modified(path)) === undefined || writing.has(id)) return false;
    await durable(dirname(path));
    return true;
  }

  /** Whether a file that was found is still there: a sweep may have taken it. */
  function touched(path: string): Promise<boolean> {
    return files.touch(path).then(
      () => true,
      (error: unknown) => {
        if (isAbsent(error)) return false;
        throw error;
      },
    );
  }

  async function write(id: Digest, bytes: readonly Uint8Array[]): Promise<void> {
    const path = pathOf(id);
    if ((await files.modified(path)) !== undefined) {
      await durable(dirname(path));
      if (await touched(path)) return;
    }
    await assertContent(id, bytes, folder, hash);
    await folders.make(dirname(path));
    try {
      await replaceFile(files, { path, draft: `${path}.tmp-${process.pid}-${written++}`, bytes });
      recent.add(id);
      const oldest = recent.values().next().value;
      if (recent.size > RECENT && oldest !== undefined) recent.delete(oldest);
    } catch (error) {
      // What a failed sync left cannot be told from what is durable.
      await files.remove(path).catch(() => undefined);
      synced.delete(dirname(path));
      throw new TributaryError("disk-write", `disk: ${path} was not written: ${messageOf(error)}`, {
        cause: error,
      });
    }
  }

  return {
    async missing(ids) {
      const found = await Promise.all(ids.map(isThere));
      return ids.filter((_, i) => !found[i]);
    },
    async put(id, bytes) {
      // Whoever puts it too waits for the same sync.
      const under = writing.get(id);
      if (under) return under;
      const work = write(id, piecesOf(bytes));
      writing.set(id, work);
      try {
        await work;
      } finally {
        writing.delete(id);
      }
    },
    async get(id, into) {
      const path = pathOf(id);
      let bytes: Uint8Array;
      try {
        bytes = await files.read(path, into);
      } catch (error) {
        if (!isAbsent(error)) throw error;
        recent.delete(id);
        throw new TributaryError(
          "blob-missing",
          `disk: there is no blob ${path}; restore it from a copy of the run folder`,
          { cause: error },
        );
      }
      await assertContent(id, [bytes], path, hash);
      return bytes;
    },
    async sweep(live, olderThanMs) {
      const limit = files.now() - olderThanMs;
      let deleted = 0;
      for (const path of await files.list(folder)) {
        const name = basename(path);
        if (isDigest(name)) {
          if (live.has(name) || ((await files.modified(path)) ?? Number.POSITIVE_INFINITY) > limit) continue;
        } else if (!temporary.test(name) || writing.has(name.slice(0, 64))) continue;
        recent.delete(name);
        await files.remove(path);
        deleted++;
      }
      return deleted;
    },
  };
}

function isAbsent(error: unknown): boolean {
  return error instanceof Error && "code" in error && error.code === "ENOENT";
}

function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
