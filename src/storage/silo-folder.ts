import { join } from "node:path";
import { TributaryError } from "../errors.ts";
import { durableFolders, nodeFiles, replaceFile } from "../formats/file-system.node.ts";
import type { ClientStore, Unsent } from "../transports/http/client.ts";
import { type DiskOptions, diskBlobs } from "./disk.ts";

/** What a client keeps on disk for one run: `unsent.json` and `blobs/`. */
export async function openSiloFolder(folder: string, options: DiskOptions = {}): Promise<ClientStore> {
  const { files = nodeFiles } = options;
  const blobs = join(folder, "blobs");
  await durableFolders(files, folder).make(blobs);
  const path = join(folder, "unsent.json");
  return {
    blobs: diskBlobs(blobs, options),
    async unsent() {
      const bytes = await files.read(path).catch((error: NodeJS.ErrnoException) => {
        if (error.code === "ENOENT") return undefined;
        throw error;
      });
      // Only `keepUnsent` writes the file, whole or not at all.
      return bytes === undefined ? undefined : (JSON.parse(new TextDecoder().decode(bytes)) as Unsent);
    },
    async keepUnsent(unsent) {
      // Where a crash brings the file back, its update is sent again and has its answer again.
      if (unsent === undefined) return files.remove(path);
      const bytes = new TextEncoder().encode(JSON.stringify(unsent));
      try {
        await replaceFile(files, { path, draft: `${path}.tmp-${process.pid}-0`, bytes });
      } catch (cause) {
        const why = cause instanceof Error ? cause.message : String(cause);
        throw new TributaryError("disk-write", `${path} was not written: ${why}`, { cause });
      }
    },
  };
}
