import { type FileHandle, mkdir, open, readdir, readFile, rename, rm, stat, utimes } from "node:fs/promises";
import { dirname, join } from "node:path";
import { TributaryError } from "../errors.ts";
import { assertContent, type BlobStore } from "../federation/blob-store.ts";
import { type Digest, isDigest } from "../federation/digest.ts";

const temporary = /\.tmp-\d+-\d+$/;

/**
 * A blob store in a folder: `<ab>/<cd>/<sha256>`, immutable files of mode 0600. A file is written under a temporary name
 * beside its place, synced, renamed, and its folder synced: after a crash it is whole or absent. Temporaries of
 * earlier processes are deleted by `sweep`.
 */
export function diskBlobs(folder: string): BlobStore {
  let written = 0;
  const made = new Set<string>();

  function pathOf(id: Digest): string {
    if (!isDigest(id)) throw new RangeError(`disk: "${id}" is not a digest of 64 hexadecimal digits`);
    return join(folder, id.slice(0, 2), id.slice(2, 4), id);
  }

  /** Makes a folder and syncs each folder that got a new entry. */
  async function makeFolder(path: string): Promise<void> {
    if (made.has(path)) return;
    const first = await mkdir(path, { recursive: true, mode: 0o700 });
    if (first !== undefined) {
      for (let at = path; at.length >= first.length; at = dirname(at)) await syncFolder(dirname(at));
    }
    made.add(path);
  }

  return {
    async missing(ids) {
      const found = await Promise.all(ids.map((id) => exists(pathOf(id))));
      return ids.filter((_, i) => !found[i]);
    },
    async put(id, bytes) {
      const path = pathOf(id);
      if (await exists(path)) {
        const now = new Date();
        await utimes(path, now, now);
        return;
      }
      await assertContent(id, bytes, folder);
      await makeFolder(dirname(path));
      const draft = `${path}.tmp-${process.pid}-${written++}`;
      try {
        const file = await open(draft, "wx", 0o600);
        try {
          await writeAll(file, bytes);
          await file.sync();
        } finally {
          await file.close();
        }
        await rename(draft, path);
        await syncFolder(dirname(path));
      } catch (error) {
        await rm(draft, { force: true }).catch(() => undefined);
        throw new TributaryError("disk-write", `disk: ${path} was not written: ${messageOf(error)}`, {
          cause: error,
        });
      }
    },
    async get(id) {
      const path = pathOf(id);
      let bytes: Uint8Array;
      try {
        bytes = await readFile(path);
      } catch (error) {
        if (!isAbsent(error)) throw error;
        throw new TributaryError(
          "blob-missing",
          `disk: there is no blob ${path}; restore it from a copy of the run folder`,
          { cause: error },
        );
      }
      await assertContent(id, bytes, path);
      return bytes;
    },
    async sweep(live, olderThanMs) {
      const limit = Date.now() - olderThanMs;
      const entries = await readdir(folder, { recursive: true, withFileTypes: true }).catch(
        (error: unknown) => {
          if (isAbsent(error)) return [];
          throw error;
        },
      );
      let deleted = 0;
      for (const entry of entries) {
        const ours = isDigest(entry.name) ? !live.has(entry.name) : temporary.test(entry.name);
        if (!entry.isFile() || !ours) continue;
        const path = join(entry.parentPath, entry.name);
        if ((await stat(path)).mtimeMs > limit) continue;
        await rm(path, { force: true });
        deleted++;
      }
      return deleted;
    },
  };
}

/** A file system may take less than it is given; a full disk takes less first and fails next. */
async function writeAll(file: FileHandle, bytes: Uint8Array): Promise<void> {
  for (let at = 0; at < bytes.length; ) {
    const { bytesWritten } = await file.write(bytes, at, bytes.length - at, at);
    at += bytesWritten;
  }
}

/** Makes a folder's new entries durable. Windows has no such call and needs none. */
export async function syncFolder(path: string): Promise<void> {
  if (process.platform === "win32") return;
  const folder = await open(path, "r");
  try {
    await folder.sync();
  } finally {
    await folder.close();
  }
}

async function exists(path: string): Promise<boolean> {
  return stat(path).then(
    () => true,
    (error: unknown) => {
      if (isAbsent(error)) return false;
      throw error;
    },
  );
}

function isAbsent(error: unknown): boolean {
  return error instanceof Error && "code" in error && error.code === "ENOENT";
}

function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
