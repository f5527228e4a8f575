import { createHash } from "node:crypto";
import { basename, dirname, join } from "node:path";
import { TributaryError } from "../errors.ts";
import {
  arrives,
  assertContent,
  type BlobBytes,
  type BlobStore,
  damaged,
  piecesOf,
} from "../federation/blob-store.ts";
import { type Digest, type Hash, isDigest } from "../federation/digest.ts";
import {
  durableFolders,
  type FileSystem,
  nodeFiles,
  publishDraft,
  writeDraft,
} from "../formats/file-system.node.ts";
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
  /** Drafts of this process. */
  const drafts = new Set<string>();
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
    const work = folders
      .make(path)
      .then(() => files.syncFolder(path))
      .catch((error) => unwritten(path, error));
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

  /** Whether a blob is there and stays for a while. */
  async function isKept(path: string): Promise<boolean> {
    if ((await files.modified(path)) === undefined) return false;
    await durable(dirname(path));
    return touched(path);
  }

  /** Writes a draft of a blob and hands it on. */
  async function drafted(id: Digest, bytes: BlobBytes, use: (draft: string) => Promise<void>): Promise<void> {
    const draft = `${pathOf(id)}.tmp-${process.pid}-${written++}`;
    drafts.add(draft);
    try {
      await write(id, bytes, draft);
      await use(draft);
    } finally {
      drafts.delete(draft);
    }
  }

  async function write(id: Digest, bytes: BlobBytes, draft: string): Promise<void> {
    const path = pathOf(id);
    await folders.make(dirname(path)).catch((error) => unwritten(path, error));
    if (!arrives(bytes)) {
      const pieces = await piecesOf(bytes);
      await assertContent(id, pieces, folder, hash);
      return writeDraft(files, { draft, bytes: pieces }).catch((error) => unwritten(path, error));
    }
    let stopped: unknown;
    const checked = checkedPieces(id, bytes, folder, (error) => {
      stopped = error;
    });
    await writeDraft(files, { draft, bytes: checked }).catch((error) =>
      error === stopped ? Promise.reject(error) : unwritten(path, error),
    );
  }

  async function publish(id: Digest, draft: string): Promise<void> {
    const path = pathOf(id);
    try {
      await publishDraft(files, { path, draft });
    } catch (error) {
      // What a failed sync left cannot be told from what is durable.
      await files.remove(path).catch(() => undefined);
      synced.delete(dirname(path));
      unwritten(path, error);
    }
    recent.add(id);
    const oldest = recent.values().next().value;
    if (recent.size > RECENT && oldest !== undefined) recent.delete(oldest);
  }

  /** Runs the work of one writer of a blob; whoever puts it too waits for the same sync. */
  async function alone(id: Digest, write: () => Promise<void>): Promise<void> {
    const under = writing.get(id);
    if (under) return under;
    const work = write();
    writing.set(id, work);
    try {
      await work;
    } finally {
      writing.delete(id);
    }
  }

  return {
    async missing(ids) {
      const found = await Promise.all(ids.map(isThere));
      return ids.filter((_, i) => !found[i]);
    },
    async put(id, bytes) {
      const path = pathOf(id);
      if (!arrives(bytes))
        return alone(id, async () => {
          if (!(await isKept(path))) await drafted(id, bytes, (draft) => publish(id, draft));
        });
      if (!writing.has(id) && (await isKept(path))) return;
      // Of two that arrive neither waits for the other, which may have stopped: each has a draft of its own.
      await drafted(id, bytes, async (draft) => {
        let published = false;
        await alone(id, () => {
          published = true;
          return publish(id, draft);
        });
        if (!published) await files.remove(draft);
      });
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
        } else if (!temporary.test(name) || drafts.has(path)) continue;
        recent.delete(name);
        await files.remove(path);
        deleted++;
      }
      return deleted;
    },
  };
}

/** The pieces of a blob as they arrive; throws at their end where they are not those of the key. Tells what it throws. */
async function* checkedPieces(
  id: Digest,
  pieces: AsyncIterable<Uint8Array>,
  where: string,
  onThrow: (error: unknown) => void,
): AsyncGenerator<Uint8Array> {
  const hash = createHash("sha256");
  let length = 0;
  try {
    for await (const piece of pieces) {
      hash.update(piece);
      length += piece.length;
      yield piece;
    }
    const got = hash.digest("hex");
    if (got !== id) throw damaged(id, got, length, where);
  } catch (error) {
    onThrow(error);
    throw error;
  }
}

function unwritten(path: string, cause: unknown): never {
  throw new TributaryError("disk-write", `disk: ${path} was not written: ${messageOf(cause)}`, { cause });
}

function isAbsent(error: unknown): boolean {
  return error instanceof Error && "code" in error && error.code === "ENOENT";
}

function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
