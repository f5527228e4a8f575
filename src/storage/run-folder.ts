import { join } from "node:path";
import type { RunStore } from "../federation/federate.ts";
import { durableFolders, nodeFiles } from "../formats/file-system.node.ts";
import { diskBlobs } from "./disk.ts";
import { lockRun } from "./run-lock.ts";
import { sqliteJournal } from "./sqlite.ts";

/** A run's store on disk, held by this process until it is closed. */
export interface RunFolder extends RunStore {
  close(): void;
}

/** Opens the journal (`journal.sqlite`) and the blobs (`blobs/`) of a run folder, under its lock. */
export async function openRunFolder(folder: string): Promise<RunFolder> {
  const blobs = join(folder, "blobs");
  await durableFolders(nodeFiles, folder).make(blobs);
  const lock = lockRun(folder);
  try {
    const journal = await sqliteJournal(join(folder, "journal.sqlite"));
    return {
      journal,
      blobs: diskBlobs(blobs),
      close() {
        journal.close();
        lock.release();
      },
    };
  } catch (error) {
    lock.release();
    throw error;
  }
}
