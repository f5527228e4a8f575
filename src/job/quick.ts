import type { Job } from "./job.ts";

const most = (value: number | undefined, limit: number): number => Math.min(value ?? limit, limit);

/** The job in small, to see that its parts fit: at most two rounds of four clients with four steps, in a folder of its own. */
export function quickJob<J extends Job & { readonly out: string }>(job: J): J {
  const { epochs: _, ...local } = job.local;
  return {
    ...job,
    rounds: most(job.rounds, 2),
    participation: 1,
    clientsPerRound: most(job.clientsPerRound, 4),
    data: { ...job.data, perSilo: most(job.data.perSilo, 64) },
    local: { ...local, steps: most(local.steps, 4), batchSize: most(local.batchSize, 8), accumulate: 1 },
    evaluation: { ...job.evaluation, every: 0, maxExamples: most(job.evaluation.maxExamples, 32) },
    out: `${job.out}-quick`,
  };
}
