import { TributaryError } from "../errors.ts";
import { assertMatching, type Layout } from "./matching.ts";
import { sizeOf, type Tensor } from "./tensor.ts";

/** Adding and subtracting 1.5 * 2^52 rounds a float64 of magnitude at most 2^51 to the nearest (even) integer. */
const ROUNDER = 1.5 * 2 ** 52;

/** Exponent of the low limb: what the high limb rounds away (at most 1/2) is kept in units of 2^-30. */
const LOW_EXPONENT = 30;

/** Terms that two limbs can hold: 2^23 rests of at most 2^29 units stay below 2^53. */
const MAX_TERMS = 2 ** 23;

/** What must be known before the first fold; it fixes the grid, so every partial sum of a round shares it. */
export interface ExactSumOptions {
  /** Shape of every tensor, by name. */
  readonly shapes: ReadonlyMap<string, readonly number[]>;
  /** Bound of |u|: one for all tensors, or one for each name. */
  readonly bound: number | ReadonlyMap<string, number>;
  /** Bound of the total weight. */
  readonly maxWeight: number;
  /** Limbs of an entry. Default: 1, or 2 for a tensor whose grid would be coarser than float32. */
  readonly limbs?: 1 | 2;
}

/** A sum on its way to another accumulator; plain numbers and float64 tensors, so that it can be stored and sent. */
export interface PartialSum {
  /** Integers in float64, by tensor name. */
  readonly high: ReadonlyMap<string, Tensor<"float64">>;
  /** The second limb of the tensors that have one. */
  readonly low: ReadonlyMap<string, Tensor<"float64">>;
  /** Binary exponent s of the grid, by tensor name: one unit is 2^-s. */
  readonly exponents: ReadonlyMap<string, number>;
  readonly weight: number;
  readonly terms: number;
}

/** A weighted sum of float32 tensors that does not depend on the order of its terms or on their split. */
export interface ExactSum {
  /** Adds `weight * params`; nothing is added if any value breaks the bound. */
  fold(params: ReadonlyMap<string, Tensor>, weight: number): void;
  /** Adds what another accumulator with the same options has folded. */
  merge(partial: PartialSum): void;
  /** A copy of the sum so far. */
  partial(): PartialSum;
  /** The weighted mean, rounded once to float32. */
  mean(): ReadonlyMap<string, Tensor<"float32">>;
}

interface Entry {
  readonly shape: readonly number[];
  readonly bound: number;
  readonly exponent: number;
  readonly high: Float64Array;
  readonly low: Float64Array | undefined;
}

/**
 * The exact fixed-point weighted sum: `S = sum_k rint(w_k u_k 2^s)` in float64 integers with
 * `s = 51 - ceil(log2(maxWeight * bound))`, so that every partial sum stays below 2^53 and addition is exact.
 * The mean is off by at most `K / (2 W 2^s)` (2^30 times less with two limbs) before its rounding to float32.
 * Weights are multiples of 2^-16 below 2^29.
 */
export function exactSum({ shapes, bound, maxWeight, limbs }: ExactSumOptions): ExactSum {
  if (!(maxWeight > 0 && maxWeight < 2 ** 53)) {
    throw new RangeError(`exactSum: maxWeight is ${maxWeight}, expected a positive number below 2^53`);
  }
  const entries = new Map<string, Entry>();
  const layout = new Map<string, Layout>();
  for (const [name, shape] of shapes) {
    const limit = typeof bound === "number" ? bound : bound.get(name);
    if (limit === undefined || !(limit >= 0 && limit < 2 ** 128)) {
      throw new RangeError(`exactSum: the bound of ${name} is ${limit}, expected a finite float32 magnitude`);
    }
    const exponent = limit === 0 ? 0 : 51 - ceilLog2(maxWeight * limit);
    const coarse = limit !== 0 && exponent < 24 - ceilLog2(limit);
    const size = sizeOf(shape);
    const low = (limbs ?? (coarse ? 2 : 1)) === 2 ? new Float64Array(size) : undefined;
    entries.set(name, { shape, bound: limit, exponent, high: new Float64Array(size), low });
    layout.set(name, { shape, dtype: "float32" });
  }
  let total = 0;
  let terms = 0;

  function assertRoom(weight: number, count: number): void {
    if (total + weight > maxWeight) {
      throw new TributaryError(
        "weight-bound",
        `exactSum: the total weight would be ${total + weight}, the declared bound is ${maxWeight}`,
      );
    }
    if (terms + count > MAX_TERMS) {
      throw new TributaryError("weight-bound", `exactSum: more than ${MAX_TERMS} terms`);
    }
  }

  return {
    fold(params, weight) {
      if (!(weight >= 0 && weight < 2 ** 29 && Number.isInteger(weight * 2 ** 16))) {
        throw new TributaryError(
          "weight-bound",
          `exactSum: weight ${weight}, expected a multiple of 2^-16 from 0 to below 2^29`,
        );
      }
      assertMatching("exactSum", layout, params);
      assertRoom(weight, 1);
      const folded: { readonly entry: Entry; readonly data: Float32Array }[] = [];
      for (const [name, { data }] of params) {
        const entry = entries.get(name);
        if (entry === undefined || !(data instanceof Float32Array)) continue;
        const at = foldWithin(entry, data, weight);
        folded.push({ entry, data: data.subarray(0, at) });
        if (at === data.length) continue;
        // Integers: adding the negative terms leaves no trace.
        for (const part of folded) foldWithin(part.entry, part.data, -weight);
        throw new TributaryError(
          "value-bound",
          `exactSum: ${name}[${at}] is ${data[at]}, the bound is ${entry.bound}; clip the update or raise the bound`,
        );
      }
      total += weight;
      terms++;
    },
    merge(partial) {
      for (const [name, entry] of entries) {
        const high = partial.high.get(name);
        const low = partial.low.get(name);
        if (
          partial.exponents.get(name) !== entry.exponent ||
          high?.data.length !== entry.high.length ||
          low?.data.length !== entry.low?.length
        ) {
          throw new TributaryError(
            "params-mismatch",
            `exactSum: the partial sum of ${name} was made on another grid`,
          );
        }
      }
      if (partial.high.size !== entries.size) {
        throw new TributaryError(
          "params-mismatch",
          "exactSum: the partial sum has tensors that this sum has not",
        );
      }
      assertRoom(partial.weight, partial.terms);
      for (const [name, entry] of entries) {
        const high = partial.high.get(name);
        const low = partial.low.get(name);
        if (high !== undefined) addInto(entry.high, high.data);
        if (low !== undefined && entry.low !== undefined) addInto(entry.low, low.data);
      }
      total += partial.weight;
      terms += partial.terms;
    },
    partial() {
      const high = new Map<string, Tensor<"float64">>();
      const low = new Map<string, Tensor<"float64">>();
      const exponents = new Map<string, number>();
      for (const [name, entry] of entries) {
        high.set(name, { dtype: "float64", shape: entry.shape, data: entry.high.slice() });
        if (entry.low !== undefined)
          low.set(name, { dtype: "float64", shape: entry.shape, data: entry.low.slice() });
        exponents.set(name, entry.exponent);
      }
      return { high, low, exponents, weight: total, terms };
    },
    mean() {
      if (total === 0) {
        throw new TributaryError(
          "empty-sum",
          "exactSum: the mean of no weight; fold an update with positive weight",
        );
      }
      const means = new Map<string, Tensor<"float32">>();
      for (const [name, { shape, exponent, high, low }] of entries) {
        const data = new Float32Array(high.length);
        const divisor = total * 2 ** exponent; // W 2^s, exact
        if (low === undefined) {
          for (let i = 0; i < data.length; i++) data[i] = high[i]! / divisor;
        } else {
          const unit = 2 ** -LOW_EXPONENT;
          for (let i = 0; i < data.length; i++) data[i] = (high[i]! + low[i]! * unit) / divisor;
        }
        means.set(name, { dtype: "float32", shape, data });
      }
      return means;
    },
  };
}

/** The smallest integer n with x <= 2^n, for finite x > 0; by exact steps, since Math.log2 may round either way. */
export function ceilLog2(x: number): number {
  let exponent = 0;
  let value = x;
  while (value > 1) {
    value /= 2;
    exponent++;
  }
  while (value <= 0.5) {
    value *= 2;
    exponent--;
  }
  return exponent;
}

/** Adds `weight * data` up to the first value that is NaN or beyond the bound; gives how many values were added. */
function foldWithin({ high, low, bound, exponent }: Entry, data: Float32Array, weight: number): number {
  const factor = weight * 2 ** exponent;
  return low === undefined
    ? foldOneLimb({ high, data, factor, bound })
    : foldTwoLimbs({ high, low, data, factor, bound });
}

interface Terms {
  readonly high: Float64Array;
  readonly data: Float32Array;
  readonly factor: number;
  readonly bound: number;
}

/** Four values at a time; where one of four breaks the bound, one at a time finds which. */
function foldOneLimb(terms: Terms): number {
  const { high, data, factor, bound } = terms;
  for (let i = 0; i + 3 < data.length; i += 4) {
    const a = data[i]!;
    const b = data[i + 1]!;
    const c = data[i + 2]!;
    const d = data[i + 3]!;
    if (!(Math.abs(a) <= bound && Math.abs(b) <= bound && Math.abs(c) <= bound && Math.abs(d) <= bound))
      return foldSingly(terms, i);
    high[i] = high[i]! + (a * factor + ROUNDER - ROUNDER);
    high[i + 1] = high[i + 1]! + (b * factor + ROUNDER - ROUNDER);
    high[i + 2] = high[i + 2]! + (c * factor + ROUNDER - ROUNDER);
    high[i + 3] = high[i + 3]! + (d * factor + ROUNDER - ROUNDER);
  }
  return foldSingly(terms, data.length - (data.length % 4));
}

function foldSingly({ high, data, factor, bound }: Terms, from: number): number {
  for (let i = from; i < data.length; i++) {
    const value = data[i]!;
    if (!(Math.abs(value) <= bound)) return i;
    high[i] = high[i]! + (value * factor + ROUNDER - ROUNDER);
  }
  return data.length;
}

function foldTwoLimbs({ high, low, data, factor, bound }: Terms & { readonly low: Float64Array }): number {
  const units = 2 ** LOW_EXPONENT;
  for (let i = 0; i < data.length; i++) {
    const value = data[i]!;
    if (!(Math.abs(value) <= bound)) return i;
    const term = value * factor;
    const whole = term + ROUNDER - ROUNDER;
    high[i] = high[i]! + whole;
    low[i] = low[i]! + ((term - whole) * units + ROUNDER - ROUNDER);
  }
  return data.length;
}

function addInto(sum: Float64Array, values: Float64Array): void {
  for (let i = 0; i < sum.length; i++) sum[i] = sum[i]! + values[i]!;
}
