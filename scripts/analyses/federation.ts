import { fileURLToPath } from "node:url";
import type { ClientTrainer } from "../../src/federation/client.ts";
import { type Committed, federate } from "../../src/federation/federate.ts";
import type { Round } from "../../src/federation/round.ts";
import type { RoundContext, StateTree, Strategy, Update } from "../../src/federation/strategy.ts";
import type { LocalTrainer } from "../../src/federation/trainer.ts";
import { type Assembly, assemble, measure, openTraining } from "../../src/job/assemble.ts";
import { checkJob } from "../../src/job/check.ts";
import { readJobText } from "../../src/job/load.node.ts";
import type { Params } from "../../src/tensor/params.ts";

const root = fileURLToPath(new URL("../../", import.meta.url));

/** How an analysis looks into a federation. */
export interface Watch {
  /** The updates of a round, before they are aggregated. */
  readonly updates?: (updates: readonly Update[], context: RoundContext) => void;
  /** The state after a round; round 0 is the start. */
  readonly committed?: (state: Committed, assembly: Assembly) => void | Promise<void>;
  /** The state of a client's optimizer after a round; it is kept from round to round where this is asked for. */
  readonly optimizer?: (state: Params) => void;
}

/** A federation that has ended. */
export interface Watched {
  readonly rounds: readonly Round[];
  /** Held-out measurements after the last round. */
  readonly evaluation: Readonly<Record<string, number>>;
}

/** The keys of the presidents' job, without the text that it makes. */
export async function presidentsText(): Promise<Record<string, unknown>> {
  const { value } = await readJobText("examples/presidents/job.yaml", root);
  const { generate: _, ...keys } = value;
  return keys;
}

/** The presidents' job with other values at its top level, in memory and watched. */
export async function watchPresidents(
  changes: Readonly<Record<string, unknown>>,
  watch: Watch,
): Promise<Watched> {
  const job = { ...checkJob({ ...(await presidentsText()), ...changes }), out: "" };
  const assembly = await assemble(job);
  const { pool, trainer } = await openTraining(job, assembly);
  try {
    const rounds: Round[] = [];
    let evaluation: Readonly<Record<string, number>> = {};
    for await (const round of federate({
      strategy: watched(assembly.strategy, watch),
      initial: assembly.initial,
      clients: assembly.clients,
      trainer: watchedTrainer(trainer, watch),
      rounds: job.rounds,
      seed: job.seed,
      base: assembly.base,
      participation: assembly.participation,
      concurrency: assembly.plan.workers,
      async evaluate(state, signal) {
        await watch.committed?.(state, assembly);
        if (state.round === job.rounds) evaluation = await measure(state, assembly, trainer, job, signal);
        return {};
      },
    }))
      rounds.push(round);
    return { rounds, evaluation };
  } finally {
    await pool.close();
  }
}

function watched<State extends StateTree>(strategy: Strategy<State>, watch: Watch): Strategy<State> {
  return {
    ...strategy,
    ...(watch.optimizer && { local: { ...strategy.local, optimizerState: "kept" } }),
    aggregate(state, updates, context) {
      watch.updates?.(updates, context);
      return strategy.aggregate(state, updates, context);
    },
  };
}

function watchedTrainer(trainer: LocalTrainer, watch: Watch): ClientTrainer {
  return {
    async train(task, options) {
      const result = await trainer.train(task, options);
      if (result.optimizer) watch.optimizer?.(result.optimizer);
      return result;
    },
  };
}
