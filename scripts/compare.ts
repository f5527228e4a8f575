/**
 * Runs FedIT, FedEx-LoRA and centralized LoRA on an example under one budget, and writes the table into its README:
 *
 *     npm run compare [-- --seeds 3] [--job examples/presidents/job.yaml]
 *
 * The centralized run takes as many steps in a round as all the clients of a federated round together.
 */
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { availableParallelism, tmpdir } from "node:os";
import { dirname, join, resolve } from "node:path";
import { parseArgs } from "node:util";
import { bytes } from "../src/cli/progress/format.ts";
import type { Round } from "../src/federation/round.ts";
import type { JobEvent, RunSummary } from "../src/job/events.ts";
import { loadJob } from "../src/job/load.node.ts";
import { type PlacedJob, runJob } from "../src/job/run.ts";

interface Run {
  readonly summary: RunSummary;
  readonly rounds: readonly Round[];
}

const { values } = parseArgs({
  options: {
    job: { type: "string", default: "examples/presidents/job.yaml" },
    seeds: { type: "string", default: "3" },
  },
});
const seeds = Array.from({ length: Number(values.seeds) }, (_, i) => i + 1);
if (seeds.length === 0) throw new RangeError(`--seeds: got ${values.seeds}, expected how many seeds to run`);
const strategies = [
  ["fedit", "FedIT"],
  ["fedex-lora", "FedEx-LoRA"],
  ["centralized", "centralized LoRA"],
] as const;
type Name = (typeof strategies)[number][0];

const folder = await mkdtemp(join(tmpdir(), "tributary-compare-"));
const readme = resolve(dirname(values.job), "README.md");
try {
  const rows: string[] = [];
  for (const [strategy, title] of strategies) {
    const runs: Run[] = [];
    for (const seed of seeds) runs.push(await runOnce(strategy, seed));
    rows.push(rowOf(title, runs));
  }
  const text = await readFile(readme, "utf8");
  await writeFile(readme, withTable(text, [...head(await jobOf("fedit", 1)), ...rows].join("\n")));
  console.log(`\n${rows.join("\n")}\nwritten to ${readme}`);
} finally {
  await rm(folder, { recursive: true });
}

/** The job of one run; the sample of text is left out. */
async function jobOf(strategy: Name, seed: number): Promise<PlacedJob> {
  const { job } = await loadJob({
    path: values.job,
    flags: [
      { path: "strategy.name", texts: [strategy] },
      { path: "seed", texts: [String(seed)] },
    ],
    cwd: process.cwd(),
  });
  const { generate: _, ...quiet } = job;
  const out = join(folder, `${strategy}-${seed}`);
  const { steps } = job.local;
  const { clientsPerRound } = job;
  if (steps === undefined || clientsPerRound === undefined)
    throw new RangeError(`${values.job}: expected local.steps and clientsPerRound, which make the budget`);
  if (strategy !== "centralized") return { ...quiet, out };
  return { ...quiet, out, clientsPerRound: 1, local: { ...job.local, steps: steps * clientsPerRound } };
}

async function runOnce(strategy: Name, seed: number): Promise<Run> {
  const rounds: Round[] = [];
  const onEvent = (event: JobEvent): void => {
    if (event.type === "round-committed") rounds.push(event.round);
  };
  const summary = await runJob(await jobOf(strategy, seed), { onEvent });
  const { before, after, seconds } = summary;
  console.log(
    `${strategy}, seed ${seed}: held-out loss ${before.loss?.toFixed(4)} -> ${after.loss?.toFixed(4)} in ${seconds.toFixed(1)} s`,
  );
  return { summary, rounds };
}

function head({ local: { steps = 0, batchSize }, rounds, clientsPerRound = 1 }: PlacedJob): string[] {
  const total = rounds * clientsPerRound * steps;
  return [
    `Each row is the mean over ${seeds.length} seeds of ${total} optimizer steps of ${batchSize} blocks: ${rounds} rounds of ${clientsPerRound} clients with ${steps} steps each, or of one client with ${clientsPerRound * steps}. Seconds are those of the rounds, without evaluation, on ${availableParallelism()} cores.`,
    "",
    "| strategy | held-out loss | perplexity | change | down | up | seconds | deviation |",
    "| --- | --- | --- | --- | --- | --- | --- | --- |",
  ];
}

/** A line of the table: means over the seeds, and the range of the final perplexity where there are several. */
function rowOf(title: string, runs: readonly Run[]): string {
  const mean = (value: (run: Run) => number): number =>
    runs.reduce((sum, run) => sum + value(run), 0) / runs.length;
  const before = (name: string): number => mean(({ summary }) => summary.before[name] ?? Number.NaN);
  const after = (name: string): number => mean(({ summary }) => summary.after[name] ?? Number.NaN);
  const finals = runs.map(({ summary }) => summary.after.perplexity ?? Number.NaN);
  const range =
    runs.length > 1 ? ` (${Math.min(...finals).toFixed(2)} to ${Math.max(...finals).toFixed(2)})` : "";
  const change = 100 * (after("perplexity") / before("perplexity") - 1);
  const cells = [
    title,
    `${before("loss").toFixed(4)} → ${after("loss").toFixed(4)}`,
    `${before("perplexity").toFixed(2)} → ${after("perplexity").toFixed(2)}${range}`,
    `${change.toFixed(1)} %`,
    bytes(Math.round(mean(({ summary }) => summary.bytesDown))),
    bytes(Math.round(mean(({ summary }) => summary.bytesUp))),
    mean(({ summary }) => summary.seconds).toFixed(0),
    deviationOf(runs),
  ];
  return `| ${cells.join(" | ")} |`;
}

/** The mean over layers and rounds of the distance from the ideal mean of products, relative to its norm. */
function deviationOf(runs: readonly Run[]): string {
  const all = runs.flatMap(({ rounds }) =>
    rounds.flatMap(({ measurements }) =>
      Object.entries(measurements).flatMap(([name, value]) =>
        name.startsWith("relativeDeviation/") ? [value] : [],
      ),
    ),
  );
  const one = runs.every(({ rounds }) => rounds.every(({ accepted }) => accepted.length === 1));
  if (all.length === 0 || one) return "-";
  const found = all.reduce((sum, value) => sum + value, 0) / all.length;
  return found === 0 ? "0" : found < 1e-4 ? found.toExponential(0) : found.toFixed(3);
}

function withTable(text: string, table: string): string {
  const [start, end] = ["<!-- comparison: npm run compare -->", "<!-- end of comparison -->"];
  const [from, to] = [text.indexOf(start), text.indexOf(end)];
  if (from < 0 || to < from)
    throw new RangeError(`${readme}: expected the lines ${start} and ${end}, between which the table goes`);
  return `${text.slice(0, from + start.length)}\n\n${table}\n\n${text.slice(to)}`;
}
