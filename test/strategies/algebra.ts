import type { ClientRef, Update } from "../../src/federation/strategy.ts";
import type { Params } from "../../src/tensor/params.ts";
import { stream } from "../../src/tensor/random.ts";
import type { Tensor } from "../../src/tensor/tensor.ts";

/** Dense algebra the slow way: nothing here is shared with the code under test. */
export type Dense = readonly (readonly number[])[];

export const product = (x: Dense, y: Dense): Dense =>
  x.map((row) =>
    (y[0] ?? []).map((_, j) => row.reduce((sum, value, k) => sum + value * (y[k]?.[j] ?? Number.NaN), 0)),
  );

export const combination = (coefficients: readonly number[], list: readonly Dense[]): Dense =>
  (list[0] ?? []).map((row, i) =>
    row.map((_, j) =>
      list.reduce((sum, x, k) => sum + (coefficients[k] ?? 0) * (x[i]?.[j] ?? Number.NaN), 0),
    ),
  );

export const frobenius = (x: Dense): number =>
  Math.sqrt(x.flat().reduce((sum, value) => sum + value * value, 0));

export function denseOf(tensor: Tensor | undefined): Dense {
  const [rows = 0, cols = 0] = tensor?.shape ?? [];
  const values = [...(tensor?.data ?? [])].map(Number);
  return Array.from({ length: rows }, (_, i) => values.slice(i * cols, (i + 1) * cols));
}

export const float64 = (shape: readonly number[], data: Float64Array): Tensor => ({
  dtype: "float64",
  shape,
  data,
});

/** B A of one module. */
export const pairProduct = (params: Params, module: string): Dense =>
  product(denseOf(params.get(`${module}.lora_B.weight`)), denseOf(params.get(`${module}.lora_A.weight`)));

export interface Shape {
  readonly out: number;
  readonly width: number;
}

/** A float64 pair with normal entries, and a head. */
export function drawPair(module: string, { out, width }: Shape, rank: number, purpose: string): Params {
  const draw = (shape: readonly number[], what: string): Tensor => {
    const data = new Float64Array(shape.reduce((a, b) => a * b, 1));
    stream({ seed: 5, purpose: `${purpose}/${what}` }).fillNormal(data, 0, 1);
    return { dtype: "float64", shape, data };
  };
  return new Map([
    [`${module}.lora_A.weight`, draw([rank, width], "A")],
    [`${module}.lora_B.weight`, draw([out, rank], "B")],
    ["head.bias", draw([3], "head")],
  ]);
}

/** Clients with unequal weights; ranks as given, scaling alpha / rank. */
export function drawUpdates(
  module: string,
  shape: Shape,
  ranks: readonly number[],
  purpose: string,
  alpha = 4,
): Update[] {
  return ranks.map((rank, k): Update => {
    const client: ClientRef = { id: `c${k}`, rank, scaling: alpha / rank };
    return {
      client,
      numExamples: 10 * (k + 1) + 7 * (k % 2),
      params: drawPair(module, shape, rank, `${purpose}/${k}`),
    };
  });
}

export function shares(updates: readonly Update[]): number[] {
  const total = updates.reduce((sum, { numExamples }) => sum + numExamples, 0);
  return updates.map(({ numExamples }) => numExamples / total);
}

/** T = Σ p_k s_k B_k A_k, scaled. */
export function idealProduct(updates: readonly Update[], module: string): Dense {
  return combination(
    shares(updates).map((p, k) => p * (updates[k]?.client.scaling ?? 1)),
    updates.map(({ params }) => pairProduct(params, module)),
  );
}
