import { TributaryError } from "../errors.ts";
import { type Folder, readAll } from "../formats/byte-source.ts";
import { openCheckpoint, type TensorFile } from "../formats/safetensors.ts";
import { widen } from "../tensor/convert.ts";
import type { Params } from "../tensor/params.ts";
import type { Tensor } from "../tensor/tensor.ts";
import { isObject, numLabels } from "./config.ts";
import { familyOf } from "./families.ts";
import type { Model, ModelParameter, Task } from "./model.ts";
import { freshTensor } from "./random-weights.ts";
import type { TaskModel } from "./task.ts";

type Json = Readonly<Record<string, unknown>>;

export interface ModelOptions {
  /** Default: what `architectures` in config.json names. */
  readonly task?: Task | undefined;
  /** Classes, or predicted numbers. Default: what config.json says. */
  readonly numLabels?: number | undefined;
}

export interface LoadOptions extends ModelOptions {
  /** Seed of heads that the checkpoint does not hold. Default: 0. */
  readonly seed?: number;
}

/** A model with its weights. */
export interface LoadedModel extends TaskModel {
  /** Base weights in float32, by their names for the task. */
  readonly weights: Params;
  /** config.json. */
  readonly json: Json;
  /** Tensors that the checkpoint does not hold and that started fresh. */
  readonly initialized: readonly string[];
  /** Tensors in the checkpoint that the task does not use. */
  readonly ignored: readonly string[];
}

/** Reads a folder in Hugging Face layout: config.json and safetensors, single or sharded. */
export async function loadModel(
  folder: Folder,
  { seed = 0, ...options }: LoadOptions = {},
): Promise<LoadedModel> {
  const json = await readConfig(folder);
  const chosen = describeModel(json, options);
  const read = await readWeights(await openCheckpoint(folder), chosen, seed);
  return { ...chosen, json, ...read };
}

/** The family, configuration and task of a config.json. */
export function describeModel(json: Json, { task, numLabels: labels }: ModelOptions = {}): TaskModel {
  const model = familyOf(json.model_type);
  const described = labels === undefined ? json : { ...json, num_labels: labels };
  const chosen = task ?? taskOf(model, described);
  if (!model.tasks.includes(chosen)) {
    throw new TributaryError(
      "unsupported-model",
      `${model.type}: got task "${chosen}", expected one of ${model.tasks.join(", ")}`,
    );
  }
  return { model, config: model.config(described), task: chosen };
}

function taskOf(model: Model, json: Json): Task {
  const named = Array.isArray(json.architectures) ? String(json.architectures[0]) : "";
  if (named.endsWith("ForCausalLM")) return "causal-lm";
  if (named.endsWith("ForSequenceClassification")) {
    const problem =
      json.problem_type ?? (numLabels(json) === 1 ? "regression" : "single_label_classification");
    if (problem === "regression") return "regression";
    if (problem === "single_label_classification") return "sequence-classification";
    throw new TributaryError(
      "unsupported-model",
      `${model.type}: problem_type ${JSON.stringify(problem)} is not supported; supported are "regression" and "single_label_classification"`,
    );
  }
  const [first] = model.tasks;
  if (first === undefined) throw new RangeError(`${model.type}: the family declares no task`);
  return first;
}

async function readConfig(folder: Folder): Promise<Json> {
  const source = folder.get("config.json");
  if (!source) {
    throw new TributaryError(
      "missing-file",
      `model: there is no config.json among ${[...folder.keys()].join(", ") || "no files"}; expected a folder in Hugging Face layout`,
    );
  }
  let json: unknown;
  try {
    json = JSON.parse(new TextDecoder().decode(await readAll(source)));
  } catch (cause) {
    throw new TributaryError("unsupported-model", "model: config.json is not JSON", { cause });
  }
  if (!isObject(json)) throw new TributaryError("unsupported-model", "model: config.json is not an object");
  return json;
}

interface ReadWeights {
  readonly weights: Params;
  readonly initialized: readonly string[];
  readonly ignored: readonly string[];
}

async function readWeights(
  file: TensorFile,
  { model, config, task }: TaskModel,
  seed: number,
): Promise<ReadWeights> {
  const stored = new Set(file.names);
  const weights = new Map<string, Tensor>();
  const used = new Set<string>();
  const initialized: string[] = [];
  const problems: string[] = [];
  const wanted = model.parameters(config, task);
  for (const [name, parameter] of wanted) {
    const key = spellings(name, model).find((spelling) => stored.has(spelling));
    if (key === undefined) {
      if (parameter.fresh) initialized.push(name);
      else problems.push(`${name}: missing`);
      continue;
    }
    used.add(key);
    const wrong = mismatch(file, key, parameter);
    if (wrong) problems.push(wrong);
  }
  if (problems.length > 0) throw checkpointError(model, problems, wanted.size);
  for (const [name, parameter] of wanted) {
    const key = spellings(name, model).find((spelling) => used.has(spelling));
    const value =
      key === undefined
        ? freshTensor(name, parameter, config.initializerRange, seed)
        : widen(await file.tensor(key));
    weights.set(name, value);
  }
  const tied = model.tied(config);
  const ignored = file.names.filter(
    (name) => !used.has(name) && !model.buffers.test(name) && !tied.has(name),
  );
  return { weights, initialized, ignored };
}

/** The names under which checkpoints of a family hold a tensor: with and without the trunk's prefix, old norm names. */
function spellings(name: string, { prefix }: Model): string[] {
  const bare = name.startsWith(`${prefix}.`) ? name.slice(prefix.length + 1) : name;
  const names = [name, bare, `${prefix}.${bare}`];
  const old = names.map((each) =>
    each.replace(/LayerNorm\.weight$/, "LayerNorm.gamma").replace(/LayerNorm\.bias$/, "LayerNorm.beta"),
  );
  return [...new Set([...names, ...old])];
}

function mismatch(file: TensorFile, key: string, { shape }: ModelParameter): string | undefined {
  const info = file.info(key);
  if (!/^(b?float)/.test(info.dtype)) return `${key}: got dtype ${info.dtype}, expected a float`;
  if (info.shape.join() !== shape.join()) return `${key}: got [${info.shape}], expected [${shape}]`;
  return undefined;
}

function checkpointError(model: Model, problems: readonly string[], wanted: number): TributaryError {
  const shown = problems.slice(0, 20).map((line) => `  ${line}`);
  if (problems.length > shown.length) shown.push(`  and ${problems.length - shown.length} more`);
  return new TributaryError(
    "checkpoint",
    `${model.type}: ${problems.length} of ${wanted} tensors do not fit config.json:\n${shown.join("\n")}`,
  );
}
