/**
 * Records runs for later versions to read: the events of the whole run, and a run folder as a process leaves it that is
 * stopped in the middle of the second round.
 *
 *     npx tsx --conditions=@tributary/source test/federation/record-fixture.ts FOLDER
 *
 * A recording is made once, by the version that its folder is named after, and stays as it is.
 */
import { cp, mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { canonicalJson } from "../../src/federation/canonical-json.ts";
import type { ClientTrainer } from "../../src/federation/client.ts";
import type { Env } from "../../src/federation/env.ts";
import { type FederateOptions, federate } from "../../src/federation/federate.ts";
import { readChain } from "../../src/federation/journal.ts";
import type { StateTree, Strategy } from "../../src/federation/strategy.ts";
import { nodeEnv } from "../../src/storage/node-env.ts";
import { openRunFolder } from "../../src/storage/run-folder.ts";
import { fedAvg } from "../../src/strategies/fedavg.ts";
import { fedexLora } from "../../src/strategies/fedex-lora.ts";
import { clients, memoryStore, toyOptions, toyTrainer } from "./toy.ts";

/** What is recorded: an exact sum, and changes of the base. */
export const recorded: Readonly<Record<string, Strategy>> = {
  fedavg: fedAvg() as Strategy,
  "fedex-lora": fedexLora() as Strategy,
};

/** What stands beside a recording. */
export interface Recording {
  /** Digests of the states of all rounds. */
  readonly states: readonly string[];
  /** Hash of the last event of the whole run. */
  readonly hash: string;
}

/** The options of a recorded run. */
export function recordedOptions(strategy: Strategy): FederateOptions<StateTree> {
  const env: Env = { ...nodeEnv(), wall: () => Date.UTC(2026, 0, 1), monotonic: () => 0 };
  return toyOptions(strategy, { clients: clients(2), rounds: 2, concurrency: 1, updateMemory: 0, env });
}

async function record(strategy: Strategy, into: string): Promise<void> {
  const options = recordedOptions(strategy);
  const store = memoryStore();
  const states: string[] = [];
  for await (const { state } of federate({ ...options, store })) states.push(state);
  const lines: string[] = [];
  let last = "";
  for await (const { event, hash } of readChain(store.journal)) {
    lines.push(`${canonicalJson(event)}\n`);
    last = hash;
  }
  const recording: Recording = { states, hash: last };
  await mkdir(into, { recursive: true });
  await writeFile(join(into, "events.jsonl"), lines.join(""));
  await writeFile(join(into, "recording.json"), `${JSON.stringify(recording, null, 2)}\n`);

  const halt = new AbortController();
  const trainer: ClientTrainer = {
    train(task, how) {
      const { round, client } = task.assignment;
      if (round === 2 && client === "c01") halt.abort(new Error("stopped"));
      return toyTrainer().train(task, how);
    },
  };
  const draft = await mkdtemp(join(tmpdir(), "tributary-recording-"));
  const folder = await openRunFolder(draft);
  try {
    for await (const _ of federate({ ...options, trainer, store: folder, signal: halt.signal }));
    throw new Error("record-fixture: the run ended, expected it to be stopped in round 2");
  } catch (error) {
    if (!halt.signal.aborted) throw error;
  } finally {
    folder.close();
  }
  for (const name of ["journal.sqlite", "blobs"])
    await cp(join(draft, name), join(into, "run", name), { recursive: true });
  await rm(draft, { recursive: true });
}

if (import.meta.url === pathToFileURL(process.argv[1] ?? "").href) {
  const [into] = process.argv.slice(2);
  if (into === undefined) throw new Error("record-fixture: name the folder to write to");
  for (const [name, strategy] of Object.entries(recorded)) await record(strategy, join(into, name));
}
