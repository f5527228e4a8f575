import { mkdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import type { Round } from "../../src/federation/round.ts";
import { checkJob } from "../../src/job/check.ts";
import type { RunHeader, RunSummary } from "../../src/job/events.ts";
import { resolvedJobName, resolvedJobText } from "../../src/job/load.node.ts";
import { rawJob } from "../job/job.ts";

/** A round of a run that never took place. */
export function round(number: number, changes: Partial<Round> = {}): Round {
  return {
    number,
    clients: ["a", "b"],
    accepted: ["a", "b"].map((client, i) => ({
      client,
      numExamples: 10 * (i + 1),
      norm: 1 + i,
      loss: 3 - 0.5 * number + i,
      metrics: {},
      bytes: 500,
    })),
    rejected: [],
    failedAttempts: 0,
    loss: 3 - 0.5 * number,
    metrics: {},
    measurements: {},
    evaluation: { loss: 2.5 - 0.25 * number, accuracy: 0.5 + 0.1 * number },
    bytesDown: 2000,
    bytesUp: 1000,
    bytesFull: 90_000,
    seconds: 1.5,
    phases: { train: 1.25, aggregate: 0.2, commit: 0.05 },
    state: "00",
    model: "00",
    baseVersion: "00",
    ...changes,
  };
}

/** What the report reads of a run folder; parts set to null are not written. */
export interface RunParts {
  readonly rounds: readonly Round[];
  readonly header?: Partial<RunHeader> | null;
  readonly before?: Readonly<Record<string, number>> | null;
  readonly job?: Readonly<Record<string, unknown>>;
}

/** Writes the files of a run folder that a report reads, without a run. */
export async function writeRunFolder(
  folder: string,
  { rounds, header = {}, before = { loss: 2.5, accuracy: 0.5 }, job: changes = {} }: RunParts,
): Promise<void> {
  await mkdir(folder, { recursive: true });
  const job = checkJob(rawJob({ name: "hand-made", rounds: rounds.length, ...changes }));
  const silos = header?.silos ?? [
    { name: "a", examples: 10 },
    { name: "b", examples: 20 },
  ];
  const written: RunHeader = {
    name: job.name,
    folder,
    model: { path: "/somewhere/tiny-model", family: "llama", parameters: 1234 },
    task: job.task,
    adapter: "LoRA of rank 4",
    trainable: 100,
    strategy: { name: "FedIT", paper: "A paper" },
    silos,
    picture: "",
    perRound: 2,
    rounds: rounds.length,
    heldOut: { split: "test", examples: 7 },
    device: "cpu",
    workers: 1,
    threads: 1,
    why: "",
    notes: [],
    ...header,
  };
  const clients = silos.map(({ name, examples }) => ({
    id: name,
    rank: 4,
    scaling: 2,
    numExamples: examples,
  }));
  const summary: RunSummary = {
    folder,
    task: job.task,
    rounds: rounds.length,
    before: before ?? {},
    after: {},
    bytesDown: 0,
    bytesUp: 0,
    bytesFull: 0,
    seconds: 0,
    peakBytes: 0,
  };
  const files: [string, string][] = [
    [resolvedJobName, resolvedJobText(job, folder)],
    ["manifest.json", JSON.stringify({ versions: { protocol: "1" }, seed: 7, base: "abc123", clients })],
    ["rounds.jsonl", rounds.map((one) => `${JSON.stringify(one)}\n`).join("")],
    ...(header === null ? [] : [["header.json", JSON.stringify(written)] satisfies [string, string]]),
    ...(before === null ? [] : [["summary.json", JSON.stringify(summary)] satisfies [string, string]]),
  ];
  for (const [name, text] of files) await writeFile(join(folder, name), text);
}

/** A method of a sweep that never took place: its label, and the accuracy that each seed comes to. */
export interface SweptMethod {
  readonly label: string;
  readonly accuracies: readonly number[];
  /** Bytes of one round, down and up alike. */
  readonly bytes: number;
}

/** Writes the folder of a sweep with three rounds a run. */
export async function writeSweepFolder(
  folder: string,
  {
    methods,
    partitions = ["IID"],
    failure,
  }: {
    readonly methods: readonly SweptMethod[];
    readonly partitions?: readonly string[];
    readonly failure?: string;
  },
): Promise<void> {
  await mkdir(folder, { recursive: true });
  const rows: Record<string, unknown>[] = [];
  for (const [p, partition] of partitions.entries()) {
    for (const [m, { label, accuracies, bytes }] of methods.entries()) {
      for (const [seed, accuracy] of accuracies.entries()) {
        const run = `m${m}/p${p}/seed-${seed}`;
        const rounds = [1, 2, 3].map((number) =>
          round(number, {
            evaluation: {
              loss: 2 - number * 0.1 * accuracy,
              accuracy: 0.5 + ((accuracy - 0.5) * number) / 3,
            },
            bytesDown: bytes,
            bytesUp: bytes,
          }),
        );
        const before = { loss: 2, accuracy: 0.5 };
        await writeRunFolder(join(folder, "runs", run), { rounds, before });
        rows.push({
          run,
          method: label,
          strategy: "fedit",
          partition,
          partitionKind: "iid",
          seed,
          rounds: 3,
          steps: 12,
          endedBy: "rounds",
          metricProtocol: "last",
          before,
          after: { accuracy, loss: 2 - 0.3 * accuracy },
          best: { accuracy },
          bytesDown: 3 * bytes,
          bytesUp: 3 * bytes,
          seconds: 3,
          serverSeconds: 0.5,
        });
      }
    }
  }
  if (failure !== undefined) rows.push({ ...rows[0], seed: 9, failure, run: "m0/p0/seed-9" });
  const table = partitions.flatMap((partition) =>
    methods.map(({ label, accuracies }) => ({
      method: label,
      strategy: "fedit",
      partition,
      finished: accuracies.length,
      failed: 0,
      figures: { "accuracy last": { mean: 0.625, deviation: 0.0125, n: accuracies.length } },
    })),
  );
  const document = {
    schema: 1,
    name: "hand-made",
    methods: methods.map(({ label }, i) => ({ label, slug: `m${i}` })),
    partitions: partitions.map((label, i) => ({ label, slug: `p${i}` })),
    seeds: methods[0]?.accuracies.map((_, seed) => seed) ?? [],
    budget: { rounds: 3 },
    metric: "accuracy",
    metricProtocol: "last",
    workers: 1,
    machine: {
      versions: { tributary: "1" },
      processor: "a processor",
      cores: 2,
      memoryBytes: 2 ** 33,
      system: "linux",
    },
    runs: rows.map(({ run }) => ({ run })),
    rows,
    table,
  };
  await writeFile(join(folder, "sweep.json"), JSON.stringify(document));
}
