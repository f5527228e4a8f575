import { clientsOfRound } from "../job/assemble.ts";
import { readJobRecords } from "../job/data.ts";
import type { Job } from "../job/job.ts";
import { strategyOf } from "../strategies/catalogue/entries.ts";

/**
 * A job over pooled data with rounds as long as those of a federation: as many steps as all clients of a round make together,
 * or passes over as many examples. Other jobs stay as they are.
 */
export async function withPooledLength(job: Job): Promise<Job> {
  if (strategyOf(job.strategy).declares.centralized !== true) return job;
  const { partition } = await readJobRecords(job);
  const silos = [...partition.values()].filter(({ length }) => length > 0).length;
  const perRound = clientsOfRound(job, silos);
  const { epochs = 1, steps } = job.local;
  const length = steps === undefined ? { epochs: (epochs * perRound) / silos } : { steps: steps * perRound };
  const { clientsPerRound: _, quorum: __, ...rest } = job;
  return { ...rest, participation: 1, local: { ...job.local, ...length } };
}
