import { problemsOf } from "./checks.ts";
import { type Counts, type SimulationOptions, simulate } from "./simulate.ts";

/** Many runs, one for each seed. */
export interface CampaignOptions extends Omit<SimulationOptions, "seed"> {
  readonly seeds: Iterable<number>;
}

/** What became of one seed. */
export interface SeedResult {
  readonly seed: number;
  readonly strategy: string;
  /** Whether every update had to count. */
  readonly all: boolean;
  readonly problems: readonly string[];
  readonly counts: Counts;
}

/** Simulates and checks one seed after the other. */
export async function* campaign({
  seeds,
  ...options
}: CampaignOptions): AsyncGenerator<SeedResult, void, void> {
  for (const seed of seeds) {
    const history = await simulate({ ...options, seed });
    const { strategy, faults, counts } = history;
    yield { seed, strategy: strategy.name, all: faults.all, problems: await problemsOf(history), counts };
  }
}

/** What is wrong with a seed, and the command that shows it again. */
export function report(
  { seed, strategy, problems }: SeedResult,
  { clients, rounds }: Pick<CampaignOptions, "clients" | "rounds">,
): string {
  const shown = problems.slice(0, 8).map((problem) => `  ${problem}`);
  if (problems.length > shown.length) shown.push(`  and ${problems.length - shown.length} more`);
  const size = `${clients === 50 ? "" : ` --clients ${clients}`}${rounds === 5 ? "" : ` --rounds ${rounds}`}`;
  return [
    `seed ${seed} (${strategy}):`,
    ...shown,
    `  again: npm run faults -- --seed ${seed}${size} --trace`,
  ].join("\n");
}
