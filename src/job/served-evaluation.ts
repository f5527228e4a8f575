import type { Committed } from "../federation/federate.ts";
import { assemble, measure, openTraining } from "./assemble.ts";
import type { PlacedJob } from "./run.ts";

/** Measures the states of a run on data that the coordinator holds itself. */
export interface ServedEvaluation {
  readonly examples: number;
  measure(state: Committed, signal: AbortSignal): Promise<Readonly<Record<string, number>>>;
  close(): Promise<void>;
}

/**
 * Opens the held-out data of a job that are a file of the coordinator; undefined where the job names none. What is held
 * out as a share of the silos' data stays with the silos.
 */
export async function servedEvaluation(job: PlacedJob): Promise<ServedEvaluation | undefined> {
  const path = (job.data.splits as Readonly<Record<string, unknown>>)[job.evaluation.split];
  if (typeof path !== "string") return undefined;
  // The file stands where training data would, for the readers and the checks; it is measured, not trained.
  const held = await assemble({
    ...job,
    data: { ...job.data, path: [path], splits: { [job.evaluation.split]: path } },
    partition: { kind: "contiguous", clients: 1 },
    participation: 1,
    ...(job.quorum === undefined ? {} : { quorum: 1 }),
  });
  const { pool, trainer } = await openTraining(job, held);
  return {
    examples: held.heldOut.length,
    measure: (state, signal) => measure(state, { ...held, clients: [] }, trainer, job, signal),
    close: () => pool.close(),
  };
}
