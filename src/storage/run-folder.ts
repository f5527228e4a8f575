import { mkdir } from "node:fs/promises";
import { join } from "node:path";
import type { RunStore } from "../federation/federate.ts";
import { diskBlobs, syncFolder } from "./disk.ts";
import { lockRun } from "./run-lock.ts";
import { sqliteJournal } from "./sqlite.ts";

/** A run's store on disk, held by this process until it is closed. */
export interface RunFolder extends RunStore {
  close(): void;
}

/** Opens the journal (`journal.sqlite`) and the blobs (`blobs/`) of a run folder, under its lock. */
export async function openRunFolder(folder: string): Promise<RunFolder> {
  const lock = lockRun(folder);
  try {
    await mkdir(join(folder, "blobs"), { recursive: true, mode: 0o700 });
    const journal = await sqliteJournal(join(folder, "journal.sqlite"));
    await syncFolder(folder);
    return {
      journal,
      blobs: diskBlobs(join(folder, "blobs")),
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
