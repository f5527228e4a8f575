import { checkJob } from "../../src/job/check.ts";
import type { RunRow, SweepPlan } from "../../src/sweep/sweep.ts";
import { rawJob } from "../job/job.ts";

/** A plan of the methods A and B over the seeds 1 and 2. */
export function planOf(changes: Partial<SweepPlan> = {}): SweepPlan {
  const partitions = changes.partitions ?? [{ label: "even", slug: "even" }];
  const methods = changes.methods ?? [
    { label: "A", slug: "a" },
    { label: "B, or |B|", slug: "b-or-b" },
  ];
  const seeds = changes.seeds ?? [1, 2];
  return {
    name: "letters",
    folder: "/runs/letters-sweep",
    methods,
    partitions,
    seeds,
    budget: { rounds: 3 },
    metric: "accuracy",
    protocol: "last",
    workers: 2,
    runs: seeds.flatMap((seed) =>
      partitions.flatMap((partition) =>
        methods.map((method) => {
          const id = `${method.slug}/${partition.slug}/seed-${seed}`;
          const job = { ...checkJob(rawJob({ seed })), out: `/runs/letters-sweep/runs/${id}` };
          return { id, method: method.label, partition: partition.label, seed, job };
        }),
      ),
    ),
    ...changes,
  };
}

/** The row of a finished run with an accuracy after its last round. */
export function rowWith(
  method: string,
  seed: number,
  accuracy: number,
  changes: Partial<RunRow> = {},
): RunRow {
  return {
    run: `${method.toLowerCase()}/even/seed-${seed}`,
    method,
    strategy: "fedit",
    partition: "even",
    partitionKind: "iid",
    seed,
    rounds: 3,
    steps: 12,
    endedBy: "rounds",
    metricProtocol: "last",
    before: { accuracy: 0.5, loss: 0.75 },
    after: { accuracy, loss: 0.5 },
    best: { accuracy: accuracy + 0.125, loss: 0.25 },
    bytesDown: 1_500_000,
    bytesUp: 2_000_000,
    seconds: 10 + seed,
    serverSeconds: 0.25,
    peakBytes: 300e6,
    threads: 1,
    ...changes,
  };
}
