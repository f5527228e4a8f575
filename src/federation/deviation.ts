import { gram, matrix, rowVectors, transpose } from "../tensor/matrix.ts";
import type { Params } from "../tensor/params.ts";
import { factorMatrix, floats, loraModules, loraPair } from "./low-rank.ts";
import type { Update } from "./strategy.ts";
import { commonScaling, normalized } from "./weights.ts";

/** An aggregation whose result is to be compared with the mean of the clients' effective weights. */
export interface Aggregation {
  readonly who: string;
  readonly updates: readonly Update[];
  readonly weights: readonly number[];
  /** What the server held before. */
  readonly before: Params;
  /** What the server holds after. */
  readonly after: Params;
}

/**
 * How far the aggregate is from the ideal mean, for every adapted module: `deviation/<module>`
 * `||W_after - sum p_k W_k||` and `relativeDeviation/<module>`, that divided by the norm of the ideal mean of products.
 * Where no adapter is trained, for every weight matrix, relative to the step of the ideal mean. Nothing is reported of
 * a streamed mean, which has forgotten its terms. Costs O((out + in) (K rank)^2) per module, no dense product.
 */
export function deviationOfMean(aggregation: Aggregation): Record<string, number> {
  const { updates, after } = aggregation;
  if (updates.some(({ folded = 1 }) => folded > 1)) return {};
  const modules = loraModules(after);
  const measured =
    modules.length > 0 ? lowRankDeviations(aggregation, modules) : denseDeviations(aggregation);
  return measurements(measured);
}

/** The record of some deviations and of the norms they relate to. A ratio to nothing is 0. */
export function measurements(
  measured: Iterable<{ readonly module: string; readonly deviation: number; readonly ideal: number }>,
): Record<string, number> {
  const record: [string, number][] = [];
  for (const { module, deviation, ideal } of measured) {
    record.push([`deviation/${module}`, deviation]);
    record.push([`relativeDeviation/${module}`, ideal > 0 ? deviation / ideal : 0]);
  }
  return Object.fromEntries(record);
}

interface Measured {
  readonly module: string;
  readonly deviation: number;
  readonly ideal: number;
}

/**
 * With (B, A) the pair after aggregation, whatever rule made it, and Bm, Am the means of the factors:
 * `sum p_k B_k A_k - B A = sum p_k (B_k - B)(A_k - A) + B (Am - A) + (Bm - B) A`,
 * a sum without cancellation between large products; its norm comes from the inner products of the stacked factors.
 */
function* lowRankDeviations(
  { who, updates, weights, after }: Aggregation,
  modules: readonly string[],
): Generator<Measured> {
  const scaling = commonScaling(who, updates);
  const p = normalized(weights);
  for (const module of modules) {
    const pair = loraPair(after, module);
    const a = factorMatrix(pair.loraA); // [rank, in]
    const b = transpose(factorMatrix(pair.loraB)); // [rank, out], as every left factor below
    const rank = a.rows;
    const terms = updates.length + 2; // the last holds B A itself
    const left = matrix(rank * (terms + 1), b.cols);
    const right = matrix(rank * (terms + 1), a.cols);
    const [meanLeft, meanRight] = [
      left.data.subarray(0, b.data.length),
      right.data.subarray(a.data.length, 2 * a.data.length),
    ];
    right.data.set(a.data); // (Bm - B) A
    left.data.set(b.data, b.data.length); // B (Am - A)
    updates.forEach(({ params }, k) => {
      const weight = p[k] ?? 0;
      const loraA = params.get(`${module}.lora_A.weight`) ?? pair.loraA;
      const loraB = params.get(`${module}.lora_B.weight`) ?? pair.loraB;
      // p_k (B_k - B)(A_k - A)
      subtract(
        left.data.subarray((k + 2) * b.data.length),
        transpose(factorMatrix(loraB)).data,
        b.data,
        weight,
        meanLeft,
      );
      subtract(right.data.subarray((k + 2) * a.data.length), floats(loraA), a.data, 1, meanRight, weight);
    });
    left.data.set(b.data, terms * b.data.length);
    right.data.set(a.data, terms * a.data.length);
    const outer = gram([rowVectors(left)]);
    const inner = gram([rowVectors(right)]);
    const count = rank * (terms + 1);
    let squared = 0; // of the deviation
    let ideal = 0; // of B A + deviation
    for (let i = 0; i < count; i++) {
      for (let j = 0; j < count; j++) {
        const product = (outer.data[i * count + j] ?? 0) * (inner.data[i * count + j] ?? 0);
        ideal += product;
        if (i < rank * terms && j < rank * terms) squared += product;
      }
    }
    yield {
      module,
      deviation: scaling * Math.sqrt(Math.max(0, squared)),
      ideal: scaling * Math.sqrt(Math.max(0, ideal)),
    };
  }
}

/** Writes `factor * (x - y)` and adds `share * (x - y)` to the sum; the share is the factor where none is given. */
function subtract(
  target: Float64Array,
  x: Float32Array | Float64Array,
  y: Float64Array,
  factor: number,
  sum: Float64Array,
  share: number = factor,
): void {
  for (let i = 0; i < y.length; i++) {
    const difference = x[i]! - y[i]!;
    target[i] = factor * difference;
    sum[i] = sum[i]! + share * difference;
  }
}

function* denseDeviations({ updates, weights, before, after }: Aggregation): Generator<Measured> {
  const p = normalized(weights);
  for (const [name, tensor] of after) {
    if (tensor.shape.length !== 2 || !name.endsWith(".weight")) continue;
    const mean = new Float64Array(tensor.data.length);
    updates.forEach(({ params }, k) => {
      const values = floats(params.get(name) ?? tensor);
      const weight = p[k] ?? 0;
      for (let i = 0; i < mean.length; i++) mean[i] = mean[i]! + weight * values[i]!;
    });
    yield {
      module: name.slice(0, -".weight".length),
      deviation: distance(mean, floats(tensor)),
      ideal: distance(mean, floats(before.get(name) ?? tensor)),
    };
  }
}

function distance(x: Float64Array, y: Float32Array | Float64Array): number {
  let sum = 0;
  for (let i = 0; i < x.length; i++) sum += (x[i]! - y[i]!) ** 2;
  return Math.sqrt(sum);
}
