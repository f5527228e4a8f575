import { writeSync } from "node:fs";
import { GENESIS } from "../../src/federation/journal.ts";
import { sqliteJournal } from "../../src/storage/sqlite.ts";
import { chainOf, numbered } from "../contracts/journal.ts";

const journal = await sqliteJournal(process.argv[2] ?? "");
let last = { seq: 0, hash: GENESIS };
for (const turn of [1, 2, 3]) {
  const { events, hash } = await chainOf([numbered(last.seq), numbered(last.seq + 1)], last);
  writeSync(2, `append ${turn}\n`);
  await journal.append(events, last.seq);
  writeSync(2, `resolved ${turn}\n`);
  last = { seq: last.seq + events.length, hash };
}
journal.close();
