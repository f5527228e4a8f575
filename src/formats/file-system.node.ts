import { type FileHandle, mkdir, open, readdir, readFile, rename, rm, stat, utimes } from "node:fs/promises";
import { dirname, join } from "node:path";

/** What a store asks of a file system. */
export interface FileSystem {
  /** Makes a folder and those above it, for their owner only; the first that was made, if any. */
  makeFolder(path: string): Promise<string | undefined>;
  /** Makes an empty file, for its owner only where no mode is given; a file that is there is emptied. */
  create(path: string, mode?: number): Promise<OpenFile>;
  /** The bytes of a file, read into `into` where that has their length. Throws an error of code `ENOENT` where there is none. */
  read(path: string, into?: Uint8Array): Promise<Uint8Array>;
  /** When a file was last written or touched; undefined where there is none. */
  modified(path: string): Promise<number | undefined>;
  touch(path: string): Promise<void>;
  rename(from: string, to: string): Promise<void>;
  /** Removes a file where there is one. */
  remove(path: string): Promise<void>;
  /** The files of a folder and of the folders below it; none where there is no such folder. */
  list(folder: string): Promise<string[]>;
  /** Makes the entries of a folder durable. */
  syncFolder(path: string): Promise<void>;
  /** Milliseconds on the clock of `modified`. */
  now(): number;
}

/** A file that is being written. */
export interface OpenFile {
  /** Appends bytes; the number that was taken, which may be smaller. */
  write(bytes: Uint8Array): Promise<number>;
  /** Makes what was written durable. */
  sync(): Promise<void>;
  close(): Promise<void>;
}

/** The file system of this machine. */
export const nodeFiles: FileSystem = {
  makeFolder: (path) => mkdir(path, { recursive: true, mode: 0o700 }),
  create: async (path, mode = 0o600) => openFile(await open(path, "w", mode)),
  read: (path, into) => (into ? readInto(path, into) : readFile(path)),
  modified: (path) => stat(path).then(({ mtimeMs }) => mtimeMs, absent(undefined)),
  async touch(path) {
    const now = new Date();
    await utimes(path, now, now);
  },
  rename,
  remove: (path) => rm(path, { force: true }),
  async list(folder) {
    const entries = await readdir(folder, { recursive: true, withFileTypes: true }).catch(absent([]));
    return entries.flatMap((entry) => (entry.isFile() ? [join(entry.parentPath, entry.name)] : []));
  },
  async syncFolder(path) {
    // Windows has no such call and needs none.
    if (process.platform === "win32") return;
    const folder = await open(path, "r");
    try {
      await folder.sync();
    } finally {
      await folder.close();
    }
  },
  now: Date.now,
};

async function readInto(path: string, into: Uint8Array): Promise<Uint8Array> {
  const file = await open(path, "r");
  try {
    const { size } = await file.stat();
    if (size !== into.length) return await file.readFile();
    for (let at = 0; at < size; ) {
      const { bytesRead } = await file.read(into, at, size - at, at);
      // Cut short meanwhile: what is left of it is not what its name says.
      if (bytesRead === 0) return into.subarray(0, at);
      at += bytesRead;
    }
    return into;
  } finally {
    await file.close();
  }
}

function openFile(file: FileHandle): OpenFile {
  let at = 0;
  return {
    async write(bytes) {
      const { bytesWritten } = await file.write(bytes, 0, Math.min(bytes.length, 2 ** 30), at);
      at += bytesWritten;
      return bytesWritten;
    },
    sync: () => file.sync(),
    close: () => file.close(),
  };
}

/**
 * Replaces a file, or makes it, so that after a crash it is the old one or the new one: a draft beside it, fsync, rename,
 * fsync of the folder. Durable on return. The name of the draft is the writer's own; what a killed one left is overwritten.
 */
export async function replaceFile(
  files: FileSystem,
  { path, ...draft }: Draft & { readonly path: string },
): Promise<void> {
  await writeDraft(files, draft);
  await publishDraft(files, { path, draft: draft.draft });
}

/** A file that is written beside its place. */
export interface Draft {
  readonly draft: string;
  readonly bytes: Uint8Array | readonly Uint8Array[] | AsyncIterable<Uint8Array>;
  readonly mode?: number;
}

/** Writes a draft; its bytes are durable on return, its name is not. Nothing is left where that fails. */
export async function writeDraft(files: FileSystem, { draft, bytes, mode }: Draft): Promise<void> {
  try {
    const file = await files.create(draft, mode);
    try {
      if (bytes instanceof Uint8Array) await writeAll(file, bytes);
      else for await (const piece of bytes) await writeAll(file, piece);
      await file.sync();
    } finally {
      await file.close();
    }
  } catch (error) {
    await files.remove(draft).catch(() => undefined);
    throw error;
  }
}

/** Gives a draft its name, which is durable on return. */
export async function publishDraft(
  files: FileSystem,
  { path, draft }: { readonly path: string; readonly draft: string },
): Promise<void> {
  try {
    await files.rename(draft, path);
    await files.syncFolder(dirname(path));
  } catch (error) {
    await files.remove(draft).catch(() => undefined);
    throw error;
  }
}

/** A file system may take less than it is given; a full disk takes less first and fails next. */
async function writeAll(file: OpenFile, bytes: Uint8Array): Promise<void> {
  for (let at = 0; at < bytes.length; ) at += await file.write(bytes.subarray(at));
}

/** Makes folders durable, once for each. */
export interface DurableFolders {
  /** Makes a folder and those above it, down from the root; their entries are durable on return. */
  make(path: string): Promise<void>;
}

/**
 * The folders from a root downwards. One that is there may be the work of a process that was killed before its entry was
 * durable, so each is synced when this process first meets it.
 */
export function durableFolders(files: FileSystem, root: string): DurableFolders {
  const met = new Map<string, Promise<void>>();

  function make(path: string): Promise<void> {
    const known = met.get(path);
    if (known) return known;
    const work = meet(path);
    met.set(path, work);
    work.catch(() => met.delete(path));
    return work;
  }

  async function meet(path: string): Promise<void> {
    if (path.length > root.length) await make(dirname(path));
    const first = await files.makeFolder(path);
    await files.syncFolder(dirname(path));
    if (first !== undefined)
      for (let at = dirname(path); at.length >= first.length; at = dirname(at))
        await files.syncFolder(dirname(at));
  }

  return { make };
}

function absent<T>(instead: T): (error: unknown) => T {
  return (error) => {
    if (error instanceof Error && "code" in error && error.code === "ENOENT") return instead;
    throw error;
  };
}
