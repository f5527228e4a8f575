import { productInner, stackTerms } from "../tensor/linalg.ts";
import { type Matrix, matrix, matrixOf } from "../tensor/matrix.ts";
import type { Params } from "../tensor/params.ts";
import { floats, loraModules, loraPair } from "./low-rank.ts";
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
 * a sum without cancellation between large products; its norm comes from the Gram matrices of the stacked factors.
 */
function* lowRankDeviations(
  { who, updates, weights, after }: Aggregation,
  modules: readonly string[],
): Generator<Measured> {
  const scaling = commonScaling(who, updates);
  const p = normalized(weights);
  for (const module of modules) {
    const a = matrixOf(loraPair(after, module).loraA);
    const b = matrixOf(loraPair(after, module).loraB);
    const offsets = updates.map(({ params }) => ({
      left: minus(factor(params, `${module}.lora_B.weight`, b), b), // B_k - B
      right: minus(factor(params, `${module}.lora_A.weight`, a), a), // A_k - A
    }));
    const off = stackTerms([
      ...offsets.map((offset, k) => ({ coefficient: p[k] ?? 0, ...offset })),
      {
        coefficient: 1,
        left: b,
        right: meanOf(
          offsets.map(({ right }) => right),
          p,
        ),
      },
      {
        coefficient: 1,
        left: meanOf(
          offsets.map(({ left }) => left),
          p,
        ),
        right: a,
      },
    ]);
    const product = { left: b, right: a };
    const squared = Math.max(0, productInner(off, off));
    // The ideal mean is B A + off.
    const ideal = squared + 2 * productInner(off, product) + productInner(product, product);
    yield { module, deviation: scaling * Math.sqrt(squared), ideal: scaling * Math.sqrt(Math.max(0, ideal)) };
  }
}

function factor(params: Params, name: string, shared: Matrix): Matrix {
  const tensor = params.get(name);
  return tensor ? matrixOf(tensor) : shared;
}

function minus(x: Matrix, y: Matrix): Matrix {
  return { ...x, data: x.data.map((value, i) => value - y.data[i]!) };
}

function meanOf(list: readonly Matrix[], p: readonly number[]): Matrix {
  const sum = matrix(list[0]?.rows ?? 0, list[0]?.cols ?? 0);
  list.forEach(({ data }, k) => {
    const weight = p[k] ?? 0;
    for (let i = 0; i < data.length; i++) sum.data[i] = sum.data[i]! + weight * data[i]!;
  });
  return sum;
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
