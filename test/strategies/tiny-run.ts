import type { AttachedAdapter } from "../../src/adapters/adapter.ts";
import { startParams } from "../../src/adapters/adapter.ts";
import type { Example } from "../../src/data/examples.ts";
import type { FederatedClient } from "../../src/federation/door.ts";
import { type FederateOptions, federate } from "../../src/federation/federate.ts";
import type { Round } from "../../src/federation/round.ts";
import type { StateTree, Strategy } from "../../src/federation/strategy.ts";
import { type LocalTrainer, localTrainer } from "../../src/federation/trainer.ts";
import type { TrainingParts } from "../../src/federation/training-parts.ts";
import type { Optimizer } from "../../src/optim/optimizer.ts";
import type { Params } from "../../src/tensor/params.ts";
import { stream } from "../../src/tensor/random.ts";
import { openPool, type Pool } from "../../src/train/pool.node.ts";
import { llamaJson, tinyModel } from "../models/tiny.ts";

/** A small Llama, with random weights, on one worker. */
export const tiny: ReturnType<typeof tinyModel> = tinyModel(llamaJson);

export function openTinyPool(): Promise<Pool> {
  return openPool({
    base: { kind: "params", params: tiny.weights },
    plan: { workers: 1, threads: 1, why: "a test" },
  });
}

/** Texts of one client: sequences that count up from a number of its own, in steps of its own. */
function texts(client: number, count: number): Example[] {
  const random = stream({ seed: 4, client: String(client), purpose: "texts" });
  return Array.from({ length: count }, () => {
    const start = random.integer(31);
    const inputIds = Int32Array.from({ length: 9 }, (_, i) => (start + (client + 1) * i) % 31);
    return { inputIds, labels: inputIds };
  });
}

export interface TinyRunOptions<State extends StateTree> {
  readonly pool: Pool;
  readonly strategy: Strategy<State>;
  readonly attach: (rank: number) => readonly AttachedAdapter[];
  readonly optimizer: () => Optimizer;
  readonly rounds: number;
  /** Steps of a client in a round. Default: 4. */
  readonly steps?: number;
  /** Ranks of the clients. Default: three clients of rank 2. */
  readonly ranks?: readonly number[];
  readonly parts?: TrainingParts;
  readonly options?: Partial<FederateOptions<State>>;
}

export interface TinyRun {
  readonly rounds: readonly Round[];
  readonly trainer: LocalTrainer;
  readonly initial: Params;
  /** The parameters after the last round. */
  readonly global: Params;
}

/** Runs a federation that really trains: clients with texts of their own, in the order of the data. */
export async function tinyRun<State extends StateTree>({
  pool,
  strategy,
  attach,
  optimizer,
  rounds,
  steps = 4,
  ranks = [2, 2, 2],
  parts,
  options = {},
}: TinyRunOptions<State>): Promise<TinyRun> {
  const examples = new Map(ranks.map((_, i) => [`c${i}`, texts(i, 4 + 4 * i)] as const));
  const clients = ranks.map(
    (rank, i): FederatedClient => ({
      id: `c${i}`,
      rank,
      scaling: rank > 0 ? 4 / rank : 1,
      numExamples: examples.get(`c${i}`)?.length ?? 0,
    }),
  );
  const initial = startParams(attach(Math.max(...ranks)), { seed: 1, base: tiny.weights });
  const trainer = localTrainer({
    model: tiny.taskModel,
    pretrained: tiny.weights,
    attach,
    examples,
    local: { optimizer, length: { steps }, batchSize: 4, order: "as-given" },
    pool,
    ...(parts && { parts }),
  });
  const records: Round[] = [];
  let global = initial;
  const evaluate: NonNullable<FederateOptions<State>["evaluate"]> = (state) => {
    global = state.global();
    return Promise.resolve({});
  };
  const run = federate({ strategy, initial, clients, trainer, rounds, seed: 3, evaluate, ...options });
  for await (const round of run) records.push(round);
  return { rounds: records, trainer, initial, global };
}
