import { mkdir, readFile, rm } from "node:fs/promises";
import { join } from "node:path";
import { writeFileAtomic } from "../formats/files.node.ts";
import type { ClientStore, Unsent } from "../transports/http/client.ts";
import { diskBlobs } from "./disk.ts";

/** What a client keeps on disk for one run: `unsent.json` and `blobs/`. */
export async function openSiloFolder(folder: string): Promise<ClientStore> {
  await mkdir(join(folder, "blobs"), { recursive: true, mode: 0o700 });
  const path = join(folder, "unsent.json");
  return {
    blobs: diskBlobs(join(folder, "blobs")),
    async unsent() {
      const text = await readFile(path, "utf8").catch((error: NodeJS.ErrnoException) => {
        if (error.code === "ENOENT") return undefined;
        throw error;
      });
      // Only `keepUnsent` writes the file, whole or not at all.
      return text === undefined ? undefined : (JSON.parse(text) as Unsent);
    },
    async keepUnsent(unsent) {
      if (unsent === undefined) await rm(path, { force: true });
      else await writeFileAtomic(path, new TextEncoder().encode(JSON.stringify(unsent)));
    },
  };
}
