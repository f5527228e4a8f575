import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { stringify } from "yaml";

/** How large the job is that gets killed. */
export interface SmallJobOptions {
  readonly strategy: string;
  readonly rounds: number;
  readonly silos: number;
  /** Optimizer steps of a client in a round. */
  readonly steps: number;
}

const base = fileURLToPath(new URL("../../examples/presidents/base", import.meta.url));

/** Writes `job.yaml` and its data into a folder: a few short texts a silo for the base model of the example. */
export function writeSmallJob(folder: string, { strategy, rounds, silos, steps }: SmallJobOptions): void {
  mkdirSync(folder, { recursive: true });
  const rows = Array.from({ length: 8 * silos }, (_, i) => ({
    text: `The ${i} people of the United States and of the world, and the ${i * i} laws of the land.`,
    silo: `silo-${i % silos}`,
  }));
  writeFileSync(join(folder, "train.jsonl"), rows.map((row) => `${JSON.stringify(row)}\n`).join(""));
  const job = {
    schema: 1,
    model: base,
    data: { path: "train.jsonl", maxLength: 32, splits: { validation: 0.2 } },
    partition: { kind: "natural", field: "silo" },
    adapter: { kind: "lora", rank: 2, target: ["q_proj", "v_proj"] },
    strategy: { name: strategy },
    local: { optimizer: { name: "adamw", learningRate: 1e-3 }, steps, batchSize: 2 },
    rounds,
    evaluation: { every: 1, maxExamples: 4 },
    workers: 2,
    threads: 1,
  };
  writeFileSync(join(folder, "job.yaml"), stringify(job));
}
