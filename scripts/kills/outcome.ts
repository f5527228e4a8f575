import { createHash } from "node:crypto";
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { emptyRun, reduce } from "../../src/federation/coordinator.ts";
import { readChain } from "../../src/federation/journal.ts";
import { getManifest } from "../../src/federation/manifest.ts";
import { readResolvedJob } from "../../src/job/load.node.ts";
import { verifyRun } from "../../src/job/verify.ts";
import { openRunFolder } from "../../src/storage/run-folder.ts";

/** What two runs of one job must share, by name: SHA-256 of bytes, or a text. */
export type Outcome = ReadonlyMap<string, string>;

/**
 * The bytes of the final adapter folder, of the offset of the base and of the global state, the digests of all rounds,
 * and the names of the files of a run folder. Throws where the journal does not replay to them.
 */
export async function outcomeOf(folder: string): Promise<Outcome> {
  const outcome = new Map<string, string>();
  const names = readdirSync(folder, { recursive: true, encoding: "utf8" }).sort();
  for (const name of names) {
    if (/^adapter\/|\.safetensors$/.test(name)) outcome.set(name, sha256(readFileSync(join(folder, name))));
  }
  // Event files of TensorBoard are named by the second in which a process opened them.
  outcome.set("files", names.filter((name) => !/^(blobs|tensorboard)/.test(name)).join(" "));
  const store = await openRunFolder(folder);
  try {
    let state = emptyRun;
    const counted = new Map<string, number>();
    for await (const { event } of readChain(store.journal)) {
      const { body } = event;
      state = reduce(state, [body]);
      if (body.type !== "update-accepted") continue;
      const key = `${body.round} ${body.client}`;
      counted.set(key, (counted.get(key) ?? 0) + 1);
    }
    outcome.set(
      "updates",
      [...counted]
        .map(([key, times]) => `${key} x${times}`)
        .sort()
        .join(", "),
    );
    for (const round of state.rounds)
      outcome.set(`round ${round.number}`, `${round.state} ${round.model} ${round.baseVersion}`);
    const { state: digest = "" } = state.checkpoint ?? {};
    const bytes: Uint8Array[] = [];
    for (const chunk of (await getManifest(store.blobs, digest)).chunks)
      bytes.push(await store.blobs.get(chunk));
    outcome.set("state", sha256(...bytes));
  } finally {
    store.close();
  }
  const job = await readResolvedJob(folder);
  if (job === undefined) throw new Error(`${folder} holds no job`);
  const { rounds, adapter } = await verifyRun({ ...job, out: folder });
  outcome.set("replayed", `${rounds.map(({ same }) => same).join()} ${adapter}`);
  return outcome;
}

/** What differs between two outcomes; empty where nothing does. */
export function differences(expected: Outcome, got: Outcome): string[] {
  return [...new Set([...expected.keys(), ...got.keys()])]
    .filter((name) => expected.get(name) !== got.get(name))
    .map((name) => `${name}: ${got.get(name) ?? "absent"}, expected ${expected.get(name) ?? "absent"}`);
}

function sha256(...pieces: readonly Uint8Array[]): string {
  const hash = createHash("sha256");
  for (const piece of pieces) hash.update(piece);
  return hash.digest("hex");
}
