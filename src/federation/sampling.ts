import { stream } from "../tensor/random.ts";

/** How many clients a round asks, and of whom. */
export interface CohortOptions {
  /** All enrolled clients. */
  readonly clients: readonly string[];
  readonly seed: number;
  readonly round: number;
  /** From 1; another attempt at the same round draws another cohort. */
  readonly attempt: number;
  /** Updates that the round waits for. */
  readonly target: number;
  /** Share of further clients asked, in case some do not answer. */
  readonly spare: number;
}

/** The cohort of a round, in order of client id: `target x (1 + spare)` clients, drawn from (seed, round, attempt). */
export function drawCohort({ clients, seed, round, attempt, target, spare }: CohortOptions): string[] {
  const sorted = [...clients].sort(byText);
  const size = Math.min(sorted.length, Math.ceil(target * (1 + spare) - 1e-9));
  if (size === sorted.length) return sorted;
  return stream({ seed, round, purpose: `cohort/${attempt}` })
    .sample(sorted.length, size)
    .map((index) => sorted[index] ?? "")
    .sort(byText);
}

/** Order by UTF-16 code units: the same on every machine. */
export function byText(a: string, b: string): number {
  return a < b ? -1 : a > b ? 1 : 0;
}
