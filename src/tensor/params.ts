import { TributaryError } from "../errors.ts";
import { allocate } from "./dtype.ts";
import { ceilLog2, exactSum } from "./exact-sum.ts";
import { assertMatching } from "./matching.ts";
import type { Tensor } from "./tensor.ts";

/** A named set of tensors. A Map, so that no name from a file can reach a prototype. */
export type Params = ReadonlyMap<string, Tensor>;

/** The names in order of their UTF-16 code units: the same on every machine. */
export function sortedNames(params: ReadonlyMap<string, unknown>): string[] {
  return [...params.keys()].sort((a, b) => (a < b ? -1 : a > b ? 1 : 0));
}

/** A set with the same names, each tensor replaced by what `change` makes of it. */
export function mapParams(params: Params, change: (tensor: Tensor, name: string) => Tensor): Params {
  const changed = new Map<string, Tensor>();
  for (const [name, tensor] of params) changed.set(name, change(tensor, name));
  return changed;
}

/** The tensors for which `keep` is true, in their order. */
export function select(params: Params, keep: (name: string, tensor: Tensor) => boolean): Params {
  const kept = new Map<string, Tensor>();
  for (const [name, tensor] of params) if (keep(name, tensor)) kept.set(name, tensor);
  return kept;
}

/** Zeros with the names, shapes and dtypes of `params`. */
export function zerosLike(params: Params): Params {
  return mapParams(params, ({ dtype, shape, data }) => ({
    dtype,
    shape,
    data: allocate(dtype, data.length),
  }));
}

/** `a + b`, each entry computed in float64 and rounded once. */
export function add(a: Params, b: Params): Params {
  return combine("add", a, b, 1);
}

/** `a - b`, each entry computed in float64 and rounded once. */
export function sub(a: Params, b: Params): Params {
  return combine("sub", a, b, -1);
}

/** `a + factor * b`, each entry computed in float64 and rounded once. */
export function addScaled(a: Params, factor: number, b: Params): Params {
  return combine("addScaled", a, b, factor);
}

/** `factor * params`. */
export function scale(params: Params, factor: number): Params {
  return mapParams(params, (tensor, name) => {
    const values = floats("scale", name, tensor);
    const data =
      values instanceof Float32Array ? new Float32Array(values.length) : new Float64Array(values.length);
    for (let i = 0; i < data.length; i++) data[i] = factor * values[i]!;
    return like(tensor, data);
  });
}

/**
 * `sum_k w_k x_k / sum_k w_k`, with weights of any positive sum. Float32 tensors are summed in exact fixed point with
 * two limbs on a grid fixed by the largest magnitude, so that the result does not depend on the order of the list and
 * the mean of one set is that set; float64 tensors are summed in float64 in the order of the list.
 */
export function weightedMean(list: readonly Params[], weights: readonly number[]): Params {
  const [first] = list;
  if (first === undefined) throw new TributaryError("empty-sum", "weightedMean: no parameters to average");
  if (weights.length !== list.length) {
    throw new RangeError(`weightedMean: ${list.length} sets of parameters, but ${weights.length} weights`);
  }
  for (const params of list) assertMatching("weightedMean", first, params);
  const integers = integerWeights(weights);
  const sum = integers.reduce((a, b) => a + b, 0);
  const means = new Map<string, Tensor>();
  for (const [name, tensor] of first) {
    const members = list.map((params) => params.get(name) ?? tensor);
    if (tensor.dtype === "float32") means.set(name, exactMean(name, members, integers, sum));
    else means.set(name, float64Mean(name, members, weights));
  }
  return means;
}

/** The Euclidean norm over all entries of all tensors. */
export function norm(params: Params): number {
  let sum = 0;
  for (const name of sortedNames(params)) {
    const tensor = params.get(name);
    if (tensor === undefined) continue;
    const values = floats("norm", name, tensor);
    for (let i = 0; i < values.length; i++) sum += values[i]! * values[i]!;
  }
  return Math.sqrt(sum);
}

/** `||a - b||^2` over all entries of all tensors. */
export function squaredDistance(a: Params, b: Params): number {
  assertMatching("squaredDistance", a, b);
  let sum = 0;
  for (const name of sortedNames(a)) {
    const left = a.get(name);
    const right = b.get(name);
    if (left === undefined || right === undefined) continue;
    const x = floats("squaredDistance", name, left);
    const y = floats("squaredDistance", name, right);
    for (let i = 0; i < x.length; i++) sum += (x[i]! - y[i]!) ** 2;
  }
  return sum;
}

/** The first name, in order of names, of a tensor that holds NaN or an infinity; undefined if all are finite. */
export function firstNonFinite(params: Params): string | undefined {
  return sortedNames(params).find((name) => {
    const data = params.get(name)?.data;
    if (!(data instanceof Float32Array || data instanceof Float64Array)) return false;
    for (let i = 0; i < data.length; i++) {
      // x - x is 0 exactly for finite x, NaN otherwise.
      if (data[i]! - data[i]! !== 0) return true;
    }
    return false;
  });
}

function combine(who: string, a: Params, b: Params, factor: number): Params {
  assertMatching(who, a, b);
  return mapParams(a, (tensor, name) => {
    const other = b.get(name) ?? tensor;
    const x = floats(who, name, tensor);
    const y = floats(who, name, other);
    const data = x instanceof Float32Array ? new Float32Array(x.length) : new Float64Array(x.length);
    for (let i = 0; i < data.length; i++) data[i] = x[i]! + factor * y[i]!;
    return like(tensor, data);
  });
}

function like(tensor: Tensor, data: Float32Array | Float64Array): Tensor {
  return data instanceof Float32Array
    ? { dtype: "float32", shape: tensor.shape, data }
    : { dtype: "float64", shape: tensor.shape, data };
}

function floats(who: string, name: string, { dtype, data }: Tensor): Float32Array | Float64Array {
  if (data instanceof Float32Array || data instanceof Float64Array) return data;
  throw new TypeError(`${who}: ${name} is ${dtype}, expected float32 or float64; widen it first`);
}

/** Weights as integers below 2^29: as they are, or times the power of two that brings the largest to 2^28 or more. */
function integerWeights(weights: readonly number[]): number[] {
  const bad = weights.findIndex((weight) => !(weight >= 0 && weight < Number.POSITIVE_INFINITY));
  if (bad >= 0)
    throw new RangeError(`weightedMean: weight ${bad} is ${weights[bad]}, expected a finite number >= 0`);
  const largest = weights.reduce((a, b) => Math.max(a, b), 0);
  if (largest === 0) throw new TributaryError("empty-sum", "weightedMean: all weights are 0");
  if (largest < 2 ** 29 && weights.every(Number.isInteger)) return [...weights];
  const factor = 2 ** (28 - ceilLog2(largest));
  return weights.map((weight) => Math.round(weight * factor));
}

function exactMean(
  name: string,
  members: readonly Tensor[],
  weights: readonly number[],
  sum: number,
): Tensor {
  let bound = 0;
  for (const member of members) bound = Math.max(bound, largestMagnitude(name, member));
  const shape = members[0]?.shape ?? [];
  const total = exactSum({ shapes: new Map([[name, shape]]), bound, maxWeight: sum, limbs: 2 });
  members.forEach((member, k) => {
    total.fold(new Map([[name, member]]), weights[k] ?? 0);
  });
  return total.mean().get(name) ?? { dtype: "float32", shape, data: new Float32Array(0) };
}

function largestMagnitude(name: string, tensor: Tensor): number {
  const values = floats("weightedMean", name, tensor);
  let largest = 0;
  for (let i = 0; i < values.length; i++) {
    const magnitude = Math.abs(values[i]!);
    if (magnitude <= largest) continue;
    // NaN and infinities come here too.
    if (!(magnitude < Number.POSITIVE_INFINITY)) {
      throw new TributaryError(
        "not-finite",
        `weightedMean: ${name} holds ${values[i]}; reject that update before averaging`,
      );
    }
    largest = magnitude;
  }
  return largest;
}

function float64Mean(name: string, members: readonly Tensor[], weights: readonly number[]): Tensor {
  const [first] = members;
  if (first?.dtype !== "float64") {
    throw new TypeError(
      `weightedMean: ${name} is ${first?.dtype}, expected float32 or float64; widen it first`,
    );
  }
  const total = weights.reduce((a, b) => a + b, 0);
  const data = new Float64Array(first.data.length);
  members.forEach((member, k) => {
    const values = floats("weightedMean", name, member);
    const weight = weights[k] ?? 0;
    for (let i = 0; i < data.length; i++) data[i] = data[i]! + weight * values[i]!;
  });
  for (let i = 0; i < data.length; i++) data[i] = data[i]! / total;
  return { dtype: "float64", shape: first.shape, data };
}
