import type { Round } from "../federation/round.ts";
import type { BudgetJob } from "./job.ts";

/** What some rounds have used. */
export interface Spent {
  /** Down and up together. */
  readonly bytes: number;
  /** Optimizer steps behind the accepted updates, over all clients. */
  readonly steps: number;
}

/** What some rounds have used of a budget. */
export function spentBy(rounds: readonly Round[]): Spent {
  const sum = (value: (round: Round) => number): number =>
    rounds.reduce((total, round) => total + value(round), 0);
  return {
    bytes: sum(({ bytesDown, bytesUp }) => bytesDown + bytesUp),
    steps: sum(({ accepted }) => accepted.reduce((total, { metrics }) => total + (metrics.steps ?? 0), 0)),
  };
}

/** Share of a budget that some rounds have used; 0 where there is none. */
export function shareSpent(budget: BudgetJob | undefined, rounds: readonly Round[]): number {
  const { bytes, steps } = budget ?? {};
  const spent = spentBy(rounds);
  return Math.max(
    bytes === undefined ? 0 : spent.bytes / bytes,
    steps === undefined ? 0 : spent.steps / steps,
  );
}

/** Whether a run ends after these rounds although more are allowed. */
export function isSpent(budget: BudgetJob | undefined, rounds: readonly Round[]): boolean {
  return shareSpent(budget, rounds) >= 1;
}
