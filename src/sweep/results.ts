import type { Round } from "../federation/round.ts";
import { isSpent, spentBy } from "../job/budget.ts";
import type { RunSummary } from "../job/events.ts";
import { bestOf } from "../metrics/table.ts";
import type { MetricProtocol, RunRow, SweepRun } from "./sweep.ts";

/** What the folder of a run holds. */
export interface RunRecord {
  readonly rounds: readonly Round[];
  readonly summary?: RunSummary | undefined;
  readonly threads?: number | undefined;
}

/** Whether a run has all that its job asks for. */
export function isFinished({ job }: Pick<SweepRun, "job">, { rounds, summary }: RunRecord): boolean {
  if (summary === undefined || summary.rounds !== rounds.length) return false;
  return rounds.length >= job.rounds || isSpent(job.budget, rounds);
}

/** The row of a run, as far as it has come. */
export function rowOf(
  { id, method, partition, seed, job }: SweepRun,
  { rounds, summary, threads }: RunRecord,
  { protocol, failure }: { readonly protocol: MetricProtocol; readonly failure?: string | undefined },
): RunRow {
  const sum = (value: (round: Round) => number): number =>
    rounds.reduce((total, round) => total + value(round), 0);
  const deviation = deviationOf(rounds);
  return {
    run: id,
    method,
    strategy: job.strategy.name,
    partition,
    partitionKind: job.partition.kind,
    seed,
    ...(failure === undefined ? {} : { failure }),
    rounds: rounds.length,
    steps: spentBy(rounds).steps,
    ...(failure === undefined ? { endedBy: isSpent(job.budget, rounds) ? "budget" : "rounds" } : {}),
    metricProtocol: protocol,
    before: summary?.before ?? {},
    after: summary?.after ?? {},
    best: bestMetrics(rounds),
    bytesDown: sum(({ bytesDown }) => bytesDown),
    bytesUp: sum(({ bytesUp }) => bytesUp),
    seconds: sum(({ seconds }) => seconds),
    serverSeconds: sum(({ phases }) => phases.aggregate),
    ...(summary === undefined ? {} : { peakBytes: summary.peakBytes }),
    ...(deviation === undefined ? {} : { relativeDeviation: deviation }),
    ...(threads === undefined ? {} : { threads }),
  };
}

function bestMetrics(rounds: readonly Round[]): Readonly<Record<string, number>> {
  const names = new Set(rounds.flatMap(({ evaluation }) => Object.keys(evaluation)));
  return Object.fromEntries(
    [...names].flatMap((name) => {
      const found = bestOf(
        name,
        rounds.flatMap(({ evaluation }) => evaluation[name] ?? []),
      );
      return found === undefined ? [] : [[name, found]];
    }),
  );
}

/** The mean of what strategies measure; nothing where every round had one update, which is its own mean. */
function deviationOf(rounds: readonly Round[]): number | undefined {
  const all = rounds
    .filter(({ accepted }) => accepted.length > 1)
    .flatMap(({ measurements }) =>
      Object.entries(measurements).flatMap(([name, value]) =>
        name.startsWith("relativeDeviation/") ? [value] : [],
      ),
    );
  return all.length === 0 ? undefined : all.reduce((sum, value) => sum + value, 0) / all.length;
}
