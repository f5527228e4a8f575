import { TributaryError } from "../errors.ts";
import { type Folder, readAll } from "../formats/byte-source.ts";
import { type GgufCheckpoint, ggufCheckpoint } from "../formats/gguf/checkpoint.ts";
import { openGgufOf } from "../formats/gguf/folder.ts";
import { openCheckpoint, type TensorFile } from "../formats/safetensors.ts";
import type { WeightSpec } from "../nn/scope.ts";
import type { Params } from "../tensor/params.ts";
import { isRepacked, quantizedBlocks, repackedBits, repackedBlocks } from "../tensor/quant/matmul-nbits.ts";
import { type Tensor, tensor } from "../tensor/tensor.ts";
import { fromCheckpoint, storedShape } from "./checkpoint.ts";
import { isObject, numLabels } from "./config.ts";
import { familyOf } from "./families.ts";
import type { Model, ModelParameter, Task } from "./model.ts";
import { type BasePrecision, blockParams, heldSpec, type StoredType } from "./precision.ts";
import { freshTensor } from "./random-weights.ts";
import type { StartingWeights } from "./starting-weights.ts";
import type { TaskModel } from "./task.ts";

type Json = Readonly<Record<string, unknown>>;

export interface ModelOptions {
  /** Default: what `architectures` in config.json names. */
  readonly task?: Task | undefined;
  /** Classes, or predicted numbers. Default: what config.json says. */
  readonly numLabels?: number | undefined;
}

export interface LoadOptions extends ModelOptions {
  /** Seed of what the model does not take from the checkpoint. Default: 0. */
  readonly seed?: number;
  /** What it takes from the checkpoint. Default: "pretrained". */
  readonly weights?: StartingWeights;
  /** How the base weights are held. Default: "float32". */
  readonly precision?: BasePrecision;
}

/** A model whose checkpoint is known to fit it. */
export interface FoundModel extends TaskModel {
  /** config.json. */
  readonly json: Json;
  /** Tensors that the checkpoint does not hold and that start fresh. */
  readonly initialized: readonly string[];
  /** Tensors in the checkpoint that the task does not use. */
  readonly ignored: readonly string[];
}

/** A model with its weights. */
export interface LoadedModel extends FoundModel {
  /** Base weights as they are held, by their names for the task: see `held` and `blockNames`. */
  readonly weights: Params;
}

/** Reads a folder in Hugging Face layout, config.json and safetensors, single or sharded; or the one GGUF file in it. */
export async function loadModel(folder: Folder, options: LoadOptions = {}): Promise<LoadedModel> {
  const { model, read } = await findModel(folder, options);
  return { ...model, weights: await read() };
}

/**
 * Holds the headers of a folder's checkpoint against its configuration; the weights are read when they are asked for.
 * Random weights need the configuration alone.
 */
export async function findModel(
  folder: Folder,
  { seed = 0, precision = "float32", weights: start = "pretrained", ...options }: LoadOptions = {},
): Promise<{ readonly model: FoundModel; readonly read: () => Promise<Params> }> {
  const isRandom = start === "random" && folder.has("config.json");
  const { json, file } = isRandom
    ? { json: await readConfig(folder), file: noTensors }
    : await openModel(folder);
  const chosen = describeModel(json, options);
  const { places, initialized, ignored } = placesOf(file, chosen, start);
  const { model, config, task } = chosen;
  const parameters = model.parameters(config, task);
  const specs = new Map(
    [...places].map(([name, key]): [string, WeightSpec] => {
      const parameter = parameters.get(name);
      if (!parameter) throw new RangeError(`${model.type}: no parameter "${name}"`);
      const stored = key === undefined ? "other" : storedType(file, key);
      return [name, heldSpec(parameter, stored, precision)];
    }),
  );
  const held = new Map([...specs].filter(([, { dtype, blockBits }]) => dtype !== "float32" || blockBits));
  return {
    model: { ...chosen, ...(held.size > 0 && { held }), json, initialized, ignored },
    async read() {
      const weights = new Map<string, Tensor>();
      for (const [name, parameter] of parameters) {
        const key = places.get(name);
        const spec = specs.get(name) ?? { dtype: "float32", shape: parameter.shape };
        const found =
          key === undefined
            ? heldFresh(name, freshTensor(name, parameter, config.initializerRange, seed), spec)
            : await heldTensors(file, key, { name, parameter, spec });
        for (const [part, value] of found) weights.set(part, value);
      }
      return weights;
    },
  };
}

/** A checkpoint without tensors. */
const noTensors: TensorFile = {
  names: [],
  metadata: new Map(),
  info: (name) => {
    throw new RangeError(`model: there is no tensor ${name}`);
  },
  tensor: async (name) => {
    throw new RangeError(`model: there is no tensor ${name}`);
  },
};

/** The tensors that hold a fresh one, by the names under which they are fed. */
function heldFresh(
  name: string,
  fresh: Tensor,
  { blockBits }: WeightSpec,
): readonly (readonly [string, Tensor])[] {
  return blockBits ? blockParams(name, quantizedBlocks(fresh)) : [[name, fresh]];
}

/** The tensors that hold one of a checkpoint, by the names under which they are fed. */
async function heldTensors(
  file: TensorFile | GgufCheckpoint,
  key: string,
  {
    name,
    parameter,
    spec: { dtype, blockBits },
  }: { readonly name: string; readonly parameter: ModelParameter; readonly spec: WeightSpec },
): Promise<readonly (readonly [string, Tensor])[]> {
  if (blockBits) {
    const stored = "blocks" in file ? await file.blocks(key) : undefined;
    if (stored && isRepacked(stored.type) && repackedBits(stored.type) === blockBits)
      return blockParams(name, repackedBlocks(stored.type, stored.bytes, stored.shape));
    const read = await file.tensor(key);
    return blockParams(name, quantizedBlocks(parameter.transposed ? fromCheckpoint(read, parameter) : read));
  }
  if (dtype !== "float16" && dtype !== "bfloat16")
    return [[name, fromCheckpoint(await file.tensor(key), parameter)]];
  if (!("blocks" in file)) return [[name, await file.tensor(key)]];
  const stored = await file.blocks(key);
  if (!stored) throw new RangeError(`${key}: no ${dtype} numbers in the file`);
  const bits = new Uint16Array(stored.bytes.length / 2);
  new Uint8Array(bits.buffer).set(stored.bytes);
  return [[name, tensor(dtype, stored.shape, bits)]];
}

function storedType(file: TensorFile | GgufCheckpoint, key: string): StoredType {
  if ("blocks" in file) return file.blockType(key) ?? "other";
  const { dtype } = file.info(key);
  return dtype === "float16" || dtype === "bfloat16" ? dtype : "other";
}

/** The configuration and the tensors of a model folder; a GGUF file brings its own configuration where there is none. */
export async function openModel(
  folder: Folder,
): Promise<{ readonly json: Json; readonly file: TensorFile | GgufCheckpoint }> {
  const gguf = await openGgufOf(folder);
  if (gguf === undefined) return { json: await readConfig(folder), file: await openCheckpoint(folder) };
  const file = await ggufCheckpoint(gguf);
  return { json: folder.has("config.json") ? await readConfig(folder) : file.config, file };
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
  if (named.endsWith("ForCausalLM") || named.endsWith("LMHeadModel")) return "causal-lm";
  if (named.endsWith("ForImageClassification")) return "image-classification";
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

interface Places {
  /** The name of each parameter in the checkpoint; undefined where it starts fresh. */
  readonly places: ReadonlyMap<string, string | undefined>;
  readonly initialized: readonly string[];
  readonly ignored: readonly string[];
}

function placesOf(file: TensorFile, { model, config, task }: TaskModel, start: StartingWeights): Places {
  const stored = new Set(file.names);
  const places = new Map<string, string | undefined>();
  const used = new Set<string>();
  const initialized: string[] = [];
  const problems: string[] = [];
  const wanted = model.parameters(config, task);
  for (const [name, parameter] of wanted) {
    const { fresh = false, head = false } = parameter;
    const isNew = start === "random" || (start === "trunk" && head && fresh);
    const key = isNew ? undefined : spellings(name, model).find((spelling) => stored.has(spelling));
    places.set(name, key);
    if (key === undefined) {
      if (isNew || fresh) initialized.push(name);
      else problems.push(`${name}: missing`);
      continue;
    }
    used.add(key);
    const wrong = mismatch(file, key, parameter);
    if (wrong) problems.push(head && fresh ? `${wrong}; weights: trunk begins with a new one` : wrong);
  }
  if (problems.length > 0) throw checkpointError(model, problems, wanted.size);
  const tied = model.tied(config);
  const ignored = file.names.filter(
    (name) => !used.has(name) && !model.buffers.test(name) && !tied.has(name),
  );
  return { places, initialized, ignored };
}

/**
 * The names under which checkpoints of a family hold a tensor: with and without the trunk's prefix, in the names that
 * Transformers 5 loads them under, old norm names.
 */
function spellings(name: string, model: Model): string[] {
  const { prefix } = model;
  const bare = name.startsWith(`${prefix}.`) ? name.slice(prefix.length + 1) : name;
  const names = [name, bare, `${prefix}.${bare}`];
  if (model.loadedName) names.push(model.loadedName(name));
  const old = names.map((each) =>
    each.replace(/LayerNorm\.weight$/, "LayerNorm.gamma").replace(/LayerNorm\.bias$/, "LayerNorm.beta"),
  );
  return [...new Set([...names, ...old])];
}

function mismatch(file: TensorFile, key: string, parameter: ModelParameter): string | undefined {
  const info = file.info(key);
  const shape = storedShape(parameter);
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
