import { rmSync } from "node:fs";
import { mkdir } from "node:fs/promises";
import { dirname } from "node:path";
import sqlite from "node-sqlite3-wasm";
import { TributaryError } from "../errors.ts";
import { canonicalJson } from "../federation/canonical-json.ts";
import type { EventBody, Journal, JournalEvent } from "../federation/journal.ts";
import { nodeFiles } from "../formats/file-system.node.ts";

/** A journal that holds a file open. */
export interface SqliteJournal<Body = EventBody> extends Journal<Body> {
  close(): void;
}

const PAGE = 256;

/**
 * A journal in an SQLite file, durable on return from `append` (write-ahead log, `synchronous=FULL`). The caller holds the
 * run lock: this build of SQLite has no shared memory, so the write-ahead log needs exclusive locking, and its lock is a
 * folder beside the file that a killed process leaves behind; it is removed here. Rollback journals are not used: this
 * build does not play back the one that a killed process leaves (its reserved-lock check sees its own lock).
 */
export async function sqliteJournal<Body = EventBody>(path: string): Promise<SqliteJournal<Body>> {
  await mkdir(dirname(path), { recursive: true });
  rmSync(`${path}.lock`, { recursive: true, force: true });
  const database = new sqlite.Database(path);
  try {
    database.exec("PRAGMA locking_mode=EXCLUSIVE; PRAGMA busy_timeout=5000");
    const mode = database.get("PRAGMA journal_mode=WAL");
    database.exec("PRAGMA synchronous=FULL; PRAGMA foreign_keys=ON");
    if (mode?.journal_mode !== "wal") {
      throw new TributaryError(
        "journal-open",
        `journal: ${path} has journal mode ${String(mode?.journal_mode)}, expected wal`,
      );
    }
    database.exec(
      `CREATE TABLE IF NOT EXISTS event (
         seq INTEGER PRIMARY KEY, previous_hash TEXT NOT NULL, at TEXT NOT NULL, body TEXT NOT NULL
       ) STRICT`,
    );
  } catch (error) {
    database.close();
    if (error instanceof TributaryError) throw error;
    throw new TributaryError(
      "journal-open",
      `journal: ${path} cannot be opened: ${error instanceof Error ? error.message : String(error)}; ${nextStep(error)}`,
      { cause: error },
    );
  }
  // The names of the file and of its log are durable before the first commit is acknowledged.
  await nodeFiles.syncFolder(dirname(path));

  const insert = database.prepare("INSERT INTO event (seq, previous_hash, at, body) VALUES (?, ?, ?, ?)");
  let failed: unknown;

  return {
    async append(events, expect) {
      if (failed) {
        throw new TributaryError("journal-failed", "journal: an earlier commit failed; open the run again", {
          cause: failed,
        });
      }
      const last = Number(database.get("SELECT coalesce(max(seq), 0) AS last FROM event")?.last);
      if (last !== expect) {
        throw new TributaryError(
          "journal-fenced",
          `journal: another writer has appended: ${last} events, expected ${expect}`,
        );
      }
      try {
        database.exec("BEGIN IMMEDIATE");
        for (const { seq, previousHash, at, body } of events) {
          insert.run([seq, previousHash, at, canonicalJson(body)]);
        }
        database.exec("COMMIT");
      } catch (error) {
        // Whether a failed sync has reached the disk is unknown: what is there is read again on the next opening.
        failed = error;
        if (database.inTransaction) database.exec("ROLLBACK");
        throw new TributaryError(
          "journal-failed",
          `journal: ${path} was not written: ${error instanceof Error ? error.message : String(error)}`,
          { cause: error },
        );
      }
    },
    async *read(from) {
      for (let next = from; ; ) {
        const rows = database.all(
          `SELECT seq, previous_hash, at, body FROM event WHERE seq >= ? ORDER BY seq LIMIT ${PAGE}`,
          [next],
        );
        for (const row of rows) yield eventOf<Body>(row);
        if (rows.length < PAGE) return;
        next = Number(rows.at(-1)?.seq) + 1;
      }
    },
    close() {
      insert.finalize();
      database.close();
    },
  };
}

/** A file that is no database stays one; whatever else a disk says may pass. */
function nextStep(error: unknown): string {
  return /malformed|not a database/.test(String(error))
    ? "restore it from a copy of the run folder"
    : "look at the disk that it is on, then start again";
}

function eventOf<Body>(row: Record<string, unknown>): JournalEvent<Body> {
  return {
    seq: Number(row.seq),
    previousHash: String(row.previous_hash),
    at: String(row.at),
    // Only `append` writes rows; the chain of hashes is checked by whoever replays them.
    body: JSON.parse(String(row.body)) as Body,
  };
}
