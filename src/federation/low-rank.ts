import { type Factor, firstColumns, firstRows, type Matrix, matrix } from "../tensor/matrix.ts";
import { mapParams, type Params, select, weightedMean } from "../tensor/params.ts";
import { type StreamKey, stream } from "../tensor/random.ts";
import type { Tensor } from "../tensor/tensor.ts";
import type { BaseChange, Update } from "./strategy.ts";

/** The two factors of one adapted module: its update of the base weight is `scaling * loraB @ loraA`. */
export interface LoraPair {
  /** [rank, in] */
  readonly loraA: Tensor;
  /** [out, rank] */
  readonly loraB: Tensor;
}

const A = ".lora_A.weight";
const B = ".lora_B.weight";

/** Whether a tensor name is that of a LoRA factor. */
export function isFactor(name: string): boolean {
  return isLoraA(name) || name.endsWith(B);
}

/** Whether a tensor name is that of the factor A, [rank, in]. */
export function isLoraA(name: string): boolean {
  return name.endsWith(A);
}

/** The modules that have a factor B, in the order of their names in `params`. */
export function loraModules(params: Params): string[] {
  return [...params.keys()].filter((name) => name.endsWith(B)).map((name) => name.slice(0, -B.length));
}

/** The factors of a module; throws RangeError where one is missing or their ranks differ. */
export function loraPair(params: Params, module: string): LoraPair {
  const loraA = params.get(module + A);
  const loraB = params.get(module + B);
  if (!loraA || !loraB)
    throw new RangeError(`low rank: ${module} has no ${loraA ? "lora_B" : "lora_A"}.weight`);
  if (loraA.shape[0] !== loraB.shape[1]) {
    throw new RangeError(
      `low rank: ${module} has lora_A [${loraA.shape}] and lora_B [${loraB.shape}], expected [rank, in] and [out, rank]`,
    );
  }
  return { loraA, loraB };
}

/** Both factors under their names. */
export function pairEntries(module: string, { loraA, loraB }: LoraPair): [string, Tensor][] {
  return [
    [module + A, loraA],
    [module + B, loraB],
  ];
}

/** The first `rank` components of every pair; other tensors as they are. */
export function prefix(params: Params, rank: number): Params {
  const cut = new Map(params);
  for (const module of loraModules(params)) {
    const { loraA, loraB } = loraPair(params, module);
    const held = loraA.shape[0] ?? 0;
    if (held === rank) continue;
    if (held < rank) {
      throw new RangeError(`low rank: rank ${rank} asked of ${module}, whose pair has rank ${held}`);
    }
    cut.set(module + A, likeTensor(loraA, firstRows(factorMatrix(loraA), rank)));
    cut.set(module + B, likeTensor(loraB, firstColumns(factorMatrix(loraB), rank)));
  }
  return cut;
}

/** Every pair with zeros after its own components, up to `rank` of them; other tensors as they are. */
export function padded(params: Params, rank: number): Params {
  const filled = new Map(params);
  for (const module of loraModules(params)) {
    const { loraA, loraB } = loraPair(params, module);
    const [held = 0, width = 0] = loraA.shape;
    const out = loraB.shape[0] ?? 0;
    if (held === rank) continue;
    if (held > rank) {
      throw new RangeError(`low rank: ${module} has rank ${held}, which does not fit into rank ${rank}`);
    }
    const a = matrix(rank, width);
    a.data.set(floats(loraA));
    const b = matrix(out, rank);
    const columns = floats(loraB);
    for (let i = 0; i < out; i++) b.data.set(columns.subarray(i * held, (i + 1) * held), i * rank);
    filled.set(module + A, likeTensor(loraA, a));
    filled.set(module + B, likeTensor(loraB, b));
  }
  return filled;
}

/** Every B times a factor. */
export function scaledB(params: Params, factor: number): Params {
  return mapParams(params, (tensor, name) => {
    if (!isFactor(name) || isLoraA(name)) return tensor;
    const scaled = new Float64Array(floats(tensor));
    for (let i = 0; i < scaled.length; i++) scaled[i] = factor * scaled[i]!;
    return floatTensor(tensor, tensor.shape, scaled);
  });
}

/** `params` with every tensor that `by` holds under the same name in its place. */
export function replaced(params: Params, by: Params): Params {
  return mapParams(params, (tensor, name) => by.get(name) ?? tensor);
}

/** Pairs that start anew: B = 0 and A uniform in ±1/√in as at the start of PEFT's LoRA; other tensors as they are. */
export function restarted(params: Params, { purpose, ...key }: StreamKey): Params {
  return mapParams(params, (tensor, name) => {
    if (!isFactor(name)) return tensor;
    if (!isLoraA(name)) return zerosOf(tensor);
    const [rank = 0, width = 0] = tensor.shape;
    const a = matrix(rank, width);
    const bound = 1 / Math.sqrt(width);
    stream({ ...key, purpose: `${purpose} ${name}` }).fillUniform(a.data, -bound, bound);
    return likeTensor(tensor, a);
  });
}

/** Pairs without effect: B = 0, A and other tensors as they are. */
export function withoutProducts(params: Params): Params {
  return mapParams(params, (tensor, name) => (isFactor(name) && !isLoraA(name) ? zerosOf(tensor) : tensor));
}

/** The product of every pair as a change of the base. */
export function productChange(pairs: Params, scale: number): Extract<BaseChange, { kind: "factors" }> {
  const modules = loraModules(pairs);
  return {
    kind: "factors",
    left: new Map(modules.map((module) => [`${module}.weight`, loraPair(pairs, module).loraB])),
    right: new Map(modules.map((module) => [`${module}.weight`, loraPair(pairs, module).loraA])),
    scale,
  };
}

/** The weighted mean of what clients train beside the factors. */
export function meanOfOthers(updates: readonly Update[], weights: readonly number[]): Params {
  return weightedMean(
    updates.map(({ params }) => select(params, (name) => !isFactor(name))),
    weights,
  );
}

/** A float tensor of two dimensions as a float64 matrix. */
export function factorMatrix(tensor: Tensor): Matrix {
  const [rows = 0, cols = 0] = tensor.shape;
  return { rows, cols, data: new Float64Array(floats(tensor)) };
}

/** A float tensor of two dimensions as a factor of a low-rank term, its values shared. */
export function factorOf(tensor: Tensor): Factor {
  const [rows = 0, cols = 0] = tensor.shape;
  return { rows, cols, data: floats(tensor) };
}

/** A matrix as a tensor of the dtype of `like`, each entry rounded once. */
export function likeTensor(like: Tensor, { rows, cols, data }: Matrix): Tensor {
  return floatTensor(like, [rows, cols], data);
}

/** Float64 values as a tensor of the dtype of `like`, each rounded once. */
export function floatTensor({ dtype }: Tensor, shape: readonly number[], data: Float64Array): Tensor {
  return dtype === "float64"
    ? { dtype: "float64", shape, data }
    : { dtype: "float32", shape, data: new Float32Array(data) };
}

/** The values of a float tensor; throws TypeError for other dtypes. */
export function floats({ dtype, data, shape }: Tensor): Float32Array | Float64Array {
  if (data instanceof Float32Array || data instanceof Float64Array) return data;
  throw new TypeError(`a tensor [${shape}] is ${dtype}, expected float32 or float64; widen it first`);
}

function zerosOf(tensor: Tensor): Tensor {
  return floatTensor(tensor, tensor.shape, new Float64Array(tensor.data.length));
}
