import { type FileHandle, mkdir, open, readdir, rm, stat } from "node:fs/promises";
import { basename, dirname, join } from "node:path";
import { TributaryError } from "../errors.ts";
import type { ByteSource, Folder } from "./byte-source.ts";
import { nodeFiles, replaceFile } from "./file-system.node.ts";
import { isGgufName } from "./gguf/gguf.ts";

/** A source over a file, which is opened for each read and so never left open. */
export async function fileSource(path: string): Promise<ByteSource> {
  const { size } = await stat(path).catch((cause: unknown) => {
    throw new TributaryError("missing-file", `${path}: no such file, or it cannot be read`, { cause });
  });
  return {
    size,
    async read(start, end) {
      const file = await open(path, "r");
      try {
        return await readRange(file, path, start, end);
      } finally {
        await file.close();
      }
    },
  };
}

/**
 * The regular files of a folder, not of its subfolders, in order of their names. The path of a GGUF file, which holds a
 * whole model, stands for a folder of that file.
 */
export async function openFolder(path: string): Promise<Folder> {
  if (isGgufName(path)) return new Map([[basename(path), await fileSource(path)]]);
  const entries = await readdir(path, { withFileTypes: true }).catch((cause: unknown) => {
    throw new TributaryError("missing-file", `${path}: no such folder, or it cannot be read`, { cause });
  });
  const names = entries.filter((entry) => !entry.isDirectory()).map((entry) => entry.name);
  const folder = new Map<string, ByteSource>();
  for (const name of names.sort()) folder.set(name, await fileSource(join(path, name)));
  return folder;
}

/** Names under which `writeFileAtomic` writes before it renames: process and time of the start of writing. */
const temporaries = /\.tmp-\d+-[\d.]+$/;

/** Deletes what killed processes left half written in a folder; a folder that is not there has nothing. */
export async function removeTemporaries(path: string): Promise<void> {
  const names = await readdir(path).catch((error: unknown): string[] => {
    if (error instanceof Error && "code" in error && error.code === "ENOENT") return [];
    throw error;
  });
  for (const name of names) if (temporaries.test(name)) await rm(join(path, name), { force: true });
}

/**
 * Writes a file so that a reader sees the old bytes or the new ones, also after a crash: a temporary file in the same
 * folder, fsync, rename, fsync of the folder. Folders on the way are made. `mode` is that of a new file, less the umask.
 */
export async function writeFileAtomic(
  path: string,
  bytes: Uint8Array | AsyncIterable<Uint8Array>,
  { mode = 0o666 }: { readonly mode?: number } = {},
): Promise<void> {
  const draft = `${path}.tmp-${process.pid}-${performance.now()}`;
  try {
    await mkdir(dirname(path), { recursive: true });
    await replaceFile(nodeFiles, { path, draft, bytes, mode });
  } catch (cause) {
    if (cause instanceof TributaryError) throw cause;
    const why = cause instanceof Error ? cause.message : String(cause);
    throw new TributaryError("disk-write", `${path} was not written: ${why}`, { cause });
  }
}

async function readRange(file: FileHandle, path: string, start: number, end: number): Promise<Uint8Array> {
  const bytes = new Uint8Array(end - start);
  let filled = 0;
  while (filled < bytes.length) {
    // Node limits one read to 2^31 - 1 bytes.
    const length = Math.min(bytes.length - filled, 2 ** 30);
    const { bytesRead } = await file.read(bytes, filled, length, start + filled);
    if (bytesRead === 0) {
      throw new TributaryError("file-truncated", `${path}: ended at byte ${start + filled}, expected ${end}`);
    }
    filled += bytesRead;
  }
  return bytes;
}
