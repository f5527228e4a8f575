import { readdir } from "node:fs/promises";
import { join } from "node:path";
import { type RoundOpened, readChain } from "../../src/federation/journal.ts";
import { open } from "../../src/federation/manifest.ts";
import { openRunFolder } from "../../src/storage/run-folder.ts";
import type { Said } from "./programs.ts";
import { faultFree, type Setting } from "./setting.ts";

/** A run between processes that is over. */
export interface Remains {
  readonly setting: Setting;
  /** Where the coordinator's files lie. */
  readonly folder: string;
  /** What the clients said. */
  readonly said: readonly Said[];
}

/**
 * Everything in which a run differs from what it promises; nothing for a good one. It has ended, its journal is a chain, each
 * accepted update and each state is there as a whole, nobody counts twice, no receipt is without its event, no temporary is
 * left, and each state is the one of a run without faults in which the same clients were absent.
 */
export async function problemsOf({ setting, folder, said }: Remains): Promise<string[]> {
  const problems: string[] = [];
  const submissions = new Set<string>();
  const counted = new Set<string>();
  const states: string[] = [];
  let opened: RoundOpened | undefined;
  let arrived = new Set<string>();
  let last = "";
  const { journal, blobs, close } = await openRunFolder(folder);
  const whole = async (what: string, manifest: string): Promise<void> => {
    await open(blobs, manifest).catch((error: unknown) => problems.push(`${what}: ${String(error)}`));
  };
  try {
    for await (const { event } of readChain(journal)) {
      const { body } = event;
      last = body.type;
      if (body.type === "round-opened") {
        opened = body;
        arrived = new Set();
      } else if (body.type === "update-accepted") {
        const { client, round, submission, manifest } = body;
        if (arrived.has(client)) problems.push(`${client} counts twice in round ${round}`);
        arrived.add(client);
        submissions.add(submission);
        await whole(`the update of ${client} in round ${round}`, manifest);
      } else if (body.type === "round-closed") {
        for (const client of body.accepted) counted.add(`${body.round} ${opened?.attempt} ${client}`);
      } else if (body.type === "checkpoint-committed") {
        await whole(`the state of round ${body.round}`, body.state);
        if (body.round > 0) states.push(body.state);
      }
    }
  } catch (error) {
    problems.push(String(error));
  } finally {
    close();
  }
  if (last !== "run-ended") problems.push(`the last event is ${last}, expected run-ended`);
  for (const { type, client, round, status, submission } of said)
    if (type === "receipt" && status === "accepted" && !submissions.has(String(submission)))
      problems.push(`${client} holds a receipt for round ${round}, the journal has no such update`);
  for (const name of await readdir(folder, { recursive: true }))
    if (/\.tmp-|\.(?:new|stale)-/.test(name)) problems.push(`${join(folder, name)} was left behind`);
  const expected = await faultFree(setting, counted);
  if (states.length !== expected.length)
    problems.push(`${states.length} rounds were committed, expected ${expected.length}`);
  for (const [i, state] of states.entries())
    if (state !== expected[i])
      problems.push(`round ${i + 1} ended in state ${state}, without faults in ${expected[i]}`);
  return problems;
}
