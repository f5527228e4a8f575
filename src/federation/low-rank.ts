import { firstColumns, firstRows, type Matrix } from "../tensor/matrix.ts";
import type { Params } from "../tensor/params.ts";
import type { Tensor } from "../tensor/tensor.ts";

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

/** A float tensor of two dimensions as a float64 matrix. */
export function factorMatrix(tensor: Tensor): Matrix {
  const [rows = 0, cols = 0] = tensor.shape;
  return { rows, cols, data: new Float64Array(floats(tensor)) };
}

/** A matrix as a tensor of the dtype of `like`, each entry rounded once. */
export function likeTensor(like: Tensor, { rows, cols, data }: Matrix): Tensor {
  return floatTensor(like, [rows, cols], data);
}

/** Float64 values as a tensor of the dtype of `like`, each rounded once. */
export function floatTensor({ dtype }: Tensor, shape: readonly number[], data: Float64Array): Tensor {
  return dtype === "float64"
    ? { dtype: "float64", shape, data }
    : { dtype: "float32", shape, data: Float32Array.from(data) };
}

/** The values of a float tensor; throws TypeError for other dtypes. */
export function floats({ dtype, data, shape }: Tensor): Float32Array | Float64Array {
  if (data instanceof Float32Array || data instanceof Float64Array) return data;
  throw new TypeError(`a tensor [${shape}] is ${dtype}, expected float32 or float64; widen it first`);
}
