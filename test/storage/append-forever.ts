import { openSync, writeSync } from "node:fs";
import { GENESIS, readChain } from "../../src/federation/journal.ts";
import { sqliteJournal } from "../../src/storage/sqlite.ts";
import { chainOf, numbered } from "../contracts/journal.ts";

const [path = "", log = ""] = process.argv.slice(2);
const acknowledged = openSync(log, "a");
const journal = await sqliteJournal(path);
let last = { seq: 0, hash: GENESIS };
for await (const { event, hash } of readChain(journal)) last = { seq: event.seq, hash };
for (let first = true; ; first = false) {
  const { events, hash } = await chainOf(
    [numbered(last.seq), numbered(last.seq + 1), numbered(last.seq + 2)],
    last,
  );
  await journal.append(events, last.seq);
  last = { seq: last.seq + events.length, hash };
  writeSync(acknowledged, `${last.seq}\n`);
  // The time until the kill counts from the first acknowledged append, however slow the machine is.
  if (first) process.stdout.write("ready\n");
}
