import { stat } from "node:fs/promises";
import { join } from "node:path";
import { TributaryError } from "../errors.ts";
import { readChain } from "../federation/journal.ts";
import { openBaseChanges, openState } from "../federation/manifest.ts";
import { runFiles } from "../job/run-files.node.ts";
import { jobStrategy } from "../job/updates.ts";
import { openRunFolder, type RunFolder } from "../storage/run-folder.ts";
import { type RankedState, type RankHistory, rankHistory } from "./ranks.ts";
import type { RunRecord } from "./run-record.node.ts";

/** Ranks of the accumulated update from the states that the journal of a run names, or a sentence that says why not. */
export async function runRanks({ folder, job, manifest }: RunRecord): Promise<RankHistory | string> {
  const strategy = jobStrategy(job);
  if (strategy.declares.personal === true)
    return "The rank of the accumulated update is not shown: every client has a model of its own.";
  const there = await stat(join(folder, runFiles.journal)).catch(() => undefined);
  if (there === undefined)
    return "The rank of the accumulated update is not shown: the run folder has no journal to read the states from.";
  const [largest] = manifest.clients.toSorted((a, b) => b.rank - a.rank);
  let store: RunFolder | undefined;
  try {
    store = await openRunFolder(folder);
    const { blobs, journal } = store;
    const states: RankedState[] = [];
    for await (const { event } of readChain(journal)) {
      const { body } = event;
      if (body.type !== "checkpoint-committed") continue;
      const { round, state, base } = body;
      states.push({
        round,
        params: async () => strategy.global(await openState(blobs, state)),
        changes: async () => (base === null ? [] : openBaseChanges(blobs, base)),
      });
    }
    const history = await rankHistory(states, { scaling: largest?.scaling ?? 1 });
    return history.measured.length > 0
      ? history
      : "The rank of the accumulated update is not shown: the run trains no matrix that could be decomposed in a few seconds.";
  } catch (error) {
    // A diverged run has numbers that cannot be decomposed.
    if (!(error instanceof TributaryError || error instanceof RangeError)) throw error;
    return `The rank of the accumulated update is not shown: ${error.message}`;
  } finally {
    store?.close();
  }
}
