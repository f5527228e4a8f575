import { TributaryError } from "../errors.ts";
import { baseChain } from "../federation/base-chain.ts";
import { assemble, measurements, openTraining } from "./assemble.ts";
import type { DataJob, Job } from "./job.ts";
import type { PlacedJob } from "./run.ts";
import { readTrained } from "./run-files.node.ts";

export interface EvaluateRunOptions {
  readonly split: "validation" | "test";
  /** Other data in place of the held-out part. */
  readonly data?: string;
  /** Most examples; all where absent. */
  readonly limit?: number;
  readonly signal?: AbortSignal;
  readonly onProgress?: (done: number) => void;
}

/** What a run's model measures beside its base. */
export interface RunEvaluation {
  readonly examples: number;
  readonly base: Readonly<Record<string, number>>;
  readonly tuned: Readonly<Record<string, number>>;
}

/** Measures the model of a run and its base on held-out data, or on other data of the same kind. */
export async function evaluateRun(
  { evaluation, ...job }: PlacedJob,
  { split, data, limit, signal, onProgress = () => {} }: EvaluateRunOptions,
): Promise<RunEvaluation> {
  const trained = await readTrained(job.out);
  const changed: Job["evaluation"] = {
    ...evaluation,
    split,
    ...(limit === undefined ? {} : { maxExamples: limit }),
  };
  const other: DataJob = data === undefined ? job.data : { ...job.data, splits: { [split]: data } };
  const asked: PlacedJob = { ...job, evaluation: changed, data: other };
  const assembly = await assemble(asked);
  const { heldOut, adapter, initial, base, plan } = assembly;
  if (heldOut.length === 0) {
    throw new TributaryError(
      "no-examples",
      `eval: the run holds out no ${split} data; take the other --split, or give --data FILE`,
    );
  }
  const { pool, trainer } = await openTraining(asked, { ...assembly, plan });
  try {
    const options = { batchSize: evaluation.batchSize, ...(signal === undefined ? {} : { signal }) };
    const chain = baseChain(base.root);
    const links =
      trained.offset.size === 0
        ? []
        : [{ version: "run", changes: [{ kind: "dense" as const, difference: trained.offset }] }];
    const before = await trainer.evaluate({ params: initial, chain, rank: adapter.rank }, heldOut, {
      ...options,
      onProgress: (done) => onProgress(done / 2),
    });
    const tunedChain = links.length === 0 ? chain : { ...chain, version: "run", links };
    const after = await trainer.evaluate(
      { params: trained.params, chain: tunedChain, rank: adapter.rank },
      heldOut,
      {
        ...options,
        onProgress: (done) => onProgress(0.5 + done / 2),
      },
    );
    return {
      examples: heldOut.length,
      base: measurements(before, job.task, heldOut),
      tuned: measurements(after, job.task, heldOut),
    };
  } finally {
    await pool.close();
  }
}
