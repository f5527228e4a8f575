import process from "node:process";
import { adapterBase } from "../adapters/adapter.ts";
import { lora } from "../adapters/lora.ts";
import type { Example } from "../data/examples.ts";
import { ignored } from "../data/examples.ts";
import { openFolder } from "../formats/files.node.ts";
import { findModel } from "../models/load.ts";
import { type BasePrecision, basePrecisions } from "../models/precision.ts";
import type { TaskModel } from "../models/task.ts";
import { adamw } from "../optim/adam.ts";
import { type BatchShape, PROGRAM_BYTES, type TrainingMemory, trainingMemory } from "../plan/memory.ts";
import { headModules, type JobAdapter } from "./adapter.ts";
import type { Job } from "./job.ts";
import { localOptions } from "./local.ts";
import { bytes } from "./units.ts";

/** What a job takes, and what is there. */
export interface MemoryPlan {
  /** In each worker. */
  readonly worker: TrainingMemory;
  readonly workers: number;
  /** The process that the workers belong to; it holds the weights too where it generates, measures answers or changes the base. */
  readonly program: number;
  /** All workers and the process that they belong to. */
  readonly total: number;
  /** Bytes that this machine has left. */
  readonly free: number;
}

/** Bytes that this process may still take. */
export function freeMemory(): number {
  return process.availableMemory();
}

/** The memory of a number of workers, beside what is free now. */
export function memoryPlan(
  worker: TrainingMemory,
  { workers, holdsWeights }: { readonly workers: number; readonly holdsWeights: boolean },
): MemoryPlan {
  const program = PROGRAM_BYTES + (holdsWeights ? worker.weights : 0);
  return { worker, workers, program, total: program + workers * worker.total, free: freeMemory() };
}

/** The memory of one worker that trains and evaluates as a job says. */
export function workerMemory(
  job: Pick<Job, "local" | "evaluation" | "task">,
  model: TaskModel,
  adapter: Pick<JobAdapter, "attach" | "rank">,
  { trained, heldOut }: { readonly trained: readonly Example[]; readonly heldOut: readonly Example[] },
): TrainingMemory {
  const { optimizer, clipNorm = 0, recompute } = localOptions(job.local);
  const evaluated = largestBatch(heldOut, job.evaluation.batchSize, job.task);
  return trainingMemory({
    model,
    attached: adapter.attach(adapter.rank),
    optimizer: optimizer({ round: 1, stepsInRound: 1 }),
    batch: largestBatch(trained, job.local.batchSize, job.task),
    clipNorm,
    ...(recompute === undefined ? {} : { recompute }),
    ...(evaluated.rows > 0 ? { evaluated } : {}),
  });
}

/** The memory of training a model in each precision, by LoRA of rank 8 on all linear layers with AdamW. */
export async function precisionPlans(
  path: string,
  { rows, length }: { readonly rows: number; readonly length: number },
): Promise<{ readonly precision: BasePrecision; readonly memory: TrainingMemory }[]> {
  const folder = await openFolder(path);
  const found: { precision: BasePrecision; memory: TrainingMemory }[] = [];
  for (const precision of basePrecisions) {
    const { model } = await findModel(folder, { precision });
    const causal = model.task === "causal-lm";
    const tokens = Math.min(length, model.config.maxPositions);
    const batch = { rows, length: tokens, labels: causal ? rows * (tokens - 1) : rows };
    const modulesToSave = headModules(model);
    const attached = lora({ rank: 8, alpha: 16, target: "all-linear", modulesToSave }).attach(
      adapterBase(model),
    );
    const optimizer = adamw({ learningRate: 1e-4 });
    found.push({ precision, memory: trainingMemory({ model, attached: [attached], optimizer, batch }) });
  }
  return found;
}

/** The batch of the longest examples. */
function largestBatch(examples: readonly Example[], batchSize: number, task: Job["task"]): BatchShape {
  const rows = Math.min(batchSize, examples.length);
  const largest = (numbers: readonly number[]): readonly number[] =>
    [...numbers].sort((a, b) => b - a).slice(0, rows);
  const [length = 0] = largest(examples.map(({ inputIds }) => inputIds.length));
  if (task !== "causal-lm") return { rows, length, labels: rows };
  const labelled = examples.map(({ labels = [] }) => labels.filter((label) => label !== ignored).length);
  return { rows, length, labels: largest(labelled).reduce((sum, count) => sum + count, 0) };
}

/** The lines of a plan. */
export function memoryLines({ worker, workers, program, total, free }: MemoryPlan): string[] {
  const parts = [
    ["weights", worker.weights],
    ["adapter", worker.adapter],
    ["optimizer state", worker.optimizer],
    ["activations", worker.activations],
    ["runtime", worker.runtime],
    ["each worker", worker.total],
    ["the program", program],
    [`${workers} ${workers === 1 ? "worker" : "workers"} in all`, total],
    ["free now", free],
  ] as const;
  return parts.map(([name, size]) => `${name.padEnd(16)}${bytes(size).padStart(10)}`);
}

/** What a person should know before a job that will not fit; undefined where it fits. */
export function shortage({ worker, workers, total, free }: MemoryPlan): string | undefined {
  if (total <= free) return undefined;
  const fewer = workers > 1 && worker.total <= free ? "set workers: 1, " : "";
  return (
    `memory: ${workers} ${workers === 1 ? "worker needs" : "workers need"} about ${bytes(total)} ` +
    `(weights ${bytes(worker.weights)}, activations ${bytes(worker.activations)} each), ${bytes(free)} are free; ` +
    `${fewer}take a smaller local.batchSize, local.recompute: layers or basePrecision: 4bit`
  );
}
