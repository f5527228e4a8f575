import { type AttachedAdapter, adapterBase, type Start, startParams } from "../adapters/adapter.ts";
import { denseSubset } from "../adapters/dense-subset.ts";
import { dora } from "../adapters/dora.ts";
import { lora, loraScaling } from "../adapters/lora.ts";
import { TributaryError } from "../errors.ts";
import type { Strategy } from "../federation/strategy.ts";
import type { LoraConfigFile, PeftAdapter } from "../formats/peft.ts";
import { floatWeight } from "../models/precision.ts";
import type { TaskModel } from "../models/task.ts";
import { add, type Params } from "../tensor/params.ts";
import type { AdapterJob, LoraJob } from "./job.ts";
import { either } from "./problem.ts";

/** The adapter of a job for clients of any rank. */
export interface JobAdapter {
  /** What is trained, in words. */
  readonly text: string;
  /** The largest rank of the run; 0 where no low-rank adapter is trained. */
  readonly rank: number;
  attach(rank: number): readonly AttachedAdapter[];
  scaling(rank: number): number;
  /** `adapter_config.json` at a rank; undefined for dense training. */
  config(rank: number, baseModel: string): LoraConfigFile | undefined;
}

/** The adapter that a job describes, in the form that its strategy trains. */
export function jobAdapter(
  job: AdapterJob,
  taskModel: TaskModel,
  strategy: Pick<Strategy, "adapters"> = {},
): JobAdapter {
  const base = adapterBase(taskModel);
  if (job.kind === "dense") {
    const target = targetOf(job.target);
    return {
      text: target === "all" ? "all weights" : `weights ${spelled(target)}`,
      rank: 0,
      attach: () => [denseSubset({ target }).attach(base)],
      scaling: () => 1,
      config: () => undefined,
    };
  }
  const modulesToSave = [...new Set([...job.modulesToSave, ...headModules(taskModel)])];
  const target = targetOf(job.target);
  const largest = Math.max(job.rank, ...(job.ranks === undefined ? [] : Object.values(job.ranks)));
  const whole = modulesToSave.length === 0 ? "" : ` and ${either(modulesToSave)} whole`;
  const { adapters = (options) => [(job.dora ? dora : lora)(options)] } = strategy;
  return {
    text: `${job.dora ? "DoRA" : "LoRA"} of rank ${largest}, alpha ${job.alpha}${job.rsLora ? " (rsLoRA)" : ""}, on ${spelled(target)}${whole}`,
    rank: largest,
    attach: (rank) => {
      const { alpha, rsLora, init } = job;
      return adapters({ rank, alpha, target, rsLora, init, modulesToSave }).map((one) => one.attach(base));
    },
    scaling: (rank) => loraScaling(rank, job.alpha, job.rsLora),
    config: (rank, baseModel) => loraConfig(job, { rank, baseModel, modulesToSave, target }, taskModel),
  };
}

/** The rank of a client: from the list, dealt in turn, or by name. */
export function rankOfClient(adapter: AdapterJob, name: string, index: number): number {
  if (adapter.kind === "dense") return 0;
  const { ranks, rank } = adapter;
  if (ranks === undefined) return rank;
  return (isList(ranks) ? ranks[index % ranks.length] : ranks[name]) ?? rank;
}

/** Parameters before round 1: drawn from the seed, or those of a PEFT adapter. */
export function initialParams(
  adapter: JobAdapter,
  base: Start["base"],
  seed: number,
  from?: PeftAdapter,
): Params {
  const drawn = startParams(adapter.attach(adapter.rank), { seed, base });
  if (from === undefined) return drawn;
  const wrong = [...drawn].flatMap(([name, { shape }]) => {
    const given = from.params.get(name);
    if (given === undefined) return [`${name} is missing`];
    return given.shape.join() === shape.join() ? [] : [`${name} is [${given.shape}], expected [${shape}]`];
  });
  const surplus = [...from.params.keys()]
    .filter((name) => !drawn.has(name))
    .map((name) => `${name} is surplus`);
  const problems = [...wrong, ...surplus];
  if (problems.length > 0) {
    const more = problems.length > 5 ? ` and ${problems.length - 5} more` : "";
    throw new TributaryError(
      "adapter-mismatch",
      `adapter.from: the adapter does not fit the job: ${problems.slice(0, 5).join("; ")}${more}; correct adapter.rank, adapter.target or adapter.modulesToSave`,
    );
  }
  return new Map(
    [...drawn.keys()]
      .flatMap((name) => (from.params.has(name) ? [[name, from.params.get(name)] as const] : []))
      .filter(isEntry),
  );
}

/** `initialParams`; the base weights are read where a parameter starts from its base. */
export async function readInitialParams(
  adapter: JobAdapter,
  weights: () => Promise<Params>,
  seed: number,
  from?: PeftAdapter,
): Promise<Params> {
  let asked = false;
  const unread = {
    get(): undefined {
      asked = true;
      return undefined;
    },
  };
  try {
    return initialParams(adapter, unread, seed, from);
  } catch (error) {
    if (!asked) throw error;
  }
  const held = await weights();
  return initialParams(adapter, { get: (name) => floatWeight(held, name) }, seed, from);
}

/** The base weights of a model with an offset added. */
export function withOffset(weights: Params, offset: Params): Params {
  const changed = new Map(weights);
  for (const [name, difference] of offset) {
    const weight = weights.get(name);
    if (weight === undefined) throw new RangeError(`base offset: the model has no tensor ${name}`);
    for (const [key, sum] of add(new Map([[name, weight]]), new Map([[name, difference]])))
      changed.set(key, sum);
  }
  return changed;
}

type Entry = readonly [string, NonNullable<ReturnType<Params["get"]>>];

function isEntry(entry: readonly [string, ReturnType<Params["get"]>]): entry is Entry {
  return entry[1] !== undefined;
}

function isList(ranks: NonNullable<LoraJob["ranks"]>): ranks is readonly number[] {
  return Array.isArray(ranks);
}

/** A name without the signs of regular expressions is an ending of names, as in a list. */
function targetOf(target: string | readonly string[]): string | readonly string[] {
  if (typeof target !== "string" || target === "all" || target === "all-linear") return target;
  return /^[\w.]+$/.test(target) ? [target] : target;
}

function spelled(target: string | readonly string[]): string {
  return typeof target === "string" ? target : target.join(", ");
}

/**
 * Modules of the task's head, which start fresh or fit another task: they are trained whole, as PEFT does. A head of
 * several layers is named by the module that holds them.
 */
export function headModules({ model, config, task }: TaskModel): string[] {
  if (task === "causal-lm") return [];
  const names = [...model.parameters(config, task)]
    .filter(([, { head }]) => head === true)
    .map(([name]) => name);
  return [...new Set(names.map((name) => name.split(".")[0] ?? name))];
}

const taskTypes: ReadonlyMap<TaskModel["task"], string> = new Map([
  ["causal-lm", "CAUSAL_LM"],
  ["sequence-classification", "SEQ_CLS"],
  ["regression", "SEQ_CLS"],
]);

function loraConfig(
  job: LoraJob,
  {
    rank,
    baseModel,
    modulesToSave,
    target,
  }: {
    rank: number;
    baseModel: string;
    modulesToSave: readonly string[];
    target: string | readonly string[];
  },
  { model, config, task }: TaskModel,
): LoraConfigFile {
  const taskType = taskTypes.get(task);
  const tensors = [...model.parameters(config, task).values()];
  return {
    rank,
    alpha: job.alpha,
    useRslora: job.rsLora,
    ...(job.dora && { useDora: true }),
    dropout: 0,
    target,
    modulesToSave,
    rankPattern: new Map(),
    alphaPattern: new Map(),
    ...(taskType === undefined ? {} : { taskType }),
    baseModel,
    fanInFanOut: tensors.some(({ transposed = false }) => transposed),
  };
}
