import { input } from "../../src/graph/value.ts";
import type { Optimizer } from "../../src/optim/optimizer.ts";
import type { Params } from "../../src/tensor/params.ts";
import { sizeOf, tensor } from "../../src/tensor/tensor.ts";
import { evaluate } from "../nn/evaluate.ts";

/** Steps of every test. */
export const STEPS = 6;

/** Float64 against float64: what the order of operations may change. */
export const ROUNDING = 1e-13;

/** Where a parameter starts: numbers of both signs, none of them 0. */
export function startOf(shape: readonly number[]): number[] {
  return Array.from({ length: sizeOf(shape) }, (_, i) => Math.cos(1 + 5 * i));
}

/** The gradients of the steps, which do not depend on the parameter. */
export function gradientsOf(shape: readonly number[]): number[][] {
  return Array.from({ length: STEPS }, (_, t) =>
    Array.from({ length: sizeOf(shape) }, (_, i) => 0.7 * Math.sin(2 + 3 * t + 7 * i)),
  );
}

/** The parameter after each step of an optimizer, traced in float64 and run by ONNX Runtime. */
export async function follow(optimizer: Optimizer, shape: readonly number[]): Promise<number[][]> {
  const float64 = (of: readonly number[], values: readonly number[]) =>
    tensor("float64", of, Float64Array.from(values));
  const specs = Object.entries(optimizer.state(shape));
  let parameter = startOf(shape);
  let state = new Map(
    specs.map(([kind, spec]) => [kind, new Array<number>(sizeOf(spec.shape)).fill(spec.fill)]),
  );
  const path: number[][] = [];
  for (const [t, gradient] of gradientsOf(shape).entries()) {
    const scalars = optimizer.scalars(t + 1);
    const next = optimizer.update({
      parameter: input("parameter", "float64", shape),
      gradient: input("gradient", "float64", shape),
      state: Object.fromEntries(specs.map(([kind, spec]) => [kind, input(kind, "float64", spec.shape)])),
      scalars: Object.fromEntries(
        Object.keys(scalars).map((name) => [name, input(`scalar/${name}`, "float64", [])]),
      ),
    });
    const feeds: Params = new Map([
      ["parameter", float64(shape, parameter)],
      ["gradient", float64(shape, gradient)],
      ...specs.map(([kind, spec]) => [kind, float64(spec.shape, state.get(kind) ?? [])] as const),
      ...Object.entries(scalars).map(([name, value]) => [`scalar/${name}`, float64([], [value])] as const),
    ]);
    const renamed = Object.entries(next.state).map(([kind, value]) => [`next/${kind}`, value]);
    const got = await evaluate({ after: next.parameter, ...Object.fromEntries(renamed) }, feeds);
    parameter = got.after ?? [];
    state = new Map(specs.map(([kind]) => [kind, got[`next/${kind}`] ?? []]));
    path.push(parameter);
  }
  return path;
}

/** The same by a rule for one number, which keeps what it needs in its own closure. */
export function byHand(
  shape: readonly number[],
  rule: () => (p: number, g: number, t: number) => number,
): number[][] {
  const gradients = gradientsOf(shape);
  const paths = startOf(shape).map((start, i) => {
    const step = rule();
    let p = start;
    return gradients.map((g, t) => {
      p = step(p, g[i] ?? Number.NaN, t + 1);
      return p;
    });
  });
  return gradients.map((_, t) => paths.map((path) => path[t] ?? Number.NaN));
}

/** The largest difference of two paths. */
export function apart(a: readonly (readonly number[])[], b: readonly (readonly number[])[]): number {
  return Math.max(
    ...a.flatMap((row, t) => row.map((value, i) => Math.abs(value - (b[t]?.[i] ?? Number.NaN)))),
  );
}
