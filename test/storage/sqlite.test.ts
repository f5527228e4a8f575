import { spawn } from "node:child_process";
import { existsSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { describe, expect, it } from "vitest";
import { readChain } from "../../src/federation/journal.ts";
import { type SqliteJournal, sqliteJournal } from "../../src/storage/sqlite.ts";
import { chainOf, describeJournal, numbered } from "../contracts/journal.ts";
import { temporaryFolder } from "./temporary.ts";

const root = temporaryFolder();
let files = 0;

describeJournal("SQLite", async () => {
  const path = join(root, `${files++}`, "journal.sqlite");
  let journal: SqliteJournal = await sqliteJournal(path);
  return {
    journal,
    async reopen() {
      journal.close();
      journal = await sqliteJournal(path);
      return journal;
    },
  };
});

describe("the SQLite journal", () => {
  it("opens although a killed process left its lock behind", async () => {
    const path = join(root, "locked", "journal.sqlite");
    const first = await sqliteJournal(path);
    const { events } = await chainOf([numbered(1)]);
    await first.append(events, 0);
    first.close();
    mkdirSync(`${path}.lock`);
    const second = await sqliteJournal(path);
    const seqs: number[] = [];
    for await (const { event } of readChain(second)) seqs.push(event.seq);
    expect(seqs).toEqual([1]);
    second.close();
    expect(existsSync(`${path}.lock`)).toBe(false);
  });

  it("finds a changed event", async () => {
    const path = join(root, "forged", "journal.sqlite");
    const { events } = await chainOf([numbered(1), numbered(2), numbered(3)]);
    const forged = events.map((event, i) => (i === 1 ? { ...event, body: numbered(9) } : event));
    const journal = await sqliteJournal(path);
    await journal.append(forged, 0);
    const read = async (): Promise<void> => {
      for await (const _ of readChain(journal));
    };
    await expect(read()).rejects.toMatchObject({ code: "journal-damaged" });
    journal.close();
  });

  it("says plainly that a file is not a journal", async () => {
    const path = join(root, "text.sqlite");
    writeFileSync(path, "this is no database, but it is long enough to look like one ".repeat(40));
    await expect(sqliteJournal(path)).rejects.toMatchObject({ code: "journal-open" });
  });

  it("loses nothing acknowledged when its process is killed, and its chain stays whole", {
    timeout: 60_000,
  }, async () => {
    const path = join(root, "killed", "journal.sqlite");
    const log = join(root, "acknowledged");
    writeFileSync(log, "");
    let total = 0;
    for (let kill = 0; kill < 6; kill++) {
      await appendUntilKilled(path, log, 20 + 37 * kill);
      const acknowledged = Number(readFileSync(log, "utf8").trim().split("\n").at(-1) ?? 0);
      const journal = await sqliteJournal(path);
      let last = 0;
      for await (const { event } of readChain(journal)) last = event.seq;
      journal.close();
      expect(last).toBeGreaterThanOrEqual(acknowledged);
      expect(last).toBeGreaterThan(total);
      total = last;
    }
  });
});

/** Runs a process that appends and writes down what was acknowledged; SIGKILL after `ms` of appending. */
async function appendUntilKilled(path: string, log: string, ms: number): Promise<void> {
  const script = fileURLToPath(new URL("append-forever.ts", import.meta.url));
  const child = spawn(process.execPath, ["--import", "tsx", script, path, log], {
    stdio: ["ignore", "pipe", "inherit"],
  });
  const ended = new Promise((resolve) => child.once("exit", resolve));
  await new Promise((resolve, reject) => {
    child.stdout.once("data", resolve);
    child.once("exit", () => reject(new Error("the child ended before it was killed")));
  });
  setTimeout(() => child.kill("SIGKILL"), ms);
  await ended;
}
