import { expect } from "vitest";
import { gradients } from "../../src/graph/gradients.ts";
import { modelInputs, taskLoss, taskOutput } from "../../src/models/task.ts";
import type { Scope } from "../../src/nn/scope.ts";
import { mapParams, type Params } from "../../src/tensor/params.ts";
import { stream } from "../../src/tensor/random.ts";
import { float32, type Tensor, tensor } from "../../src/tensor/tensor.ts";
import type { tinyModel } from "../models/tiny.ts";
import { evaluate } from "../nn/evaluate.ts";

type Tiny = ReturnType<typeof tinyModel>;

const int64 = (shape: readonly number[], values: readonly number[]): Tensor =>
  tensor("int64", shape, BigInt64Array.from(values, BigInt));
const tokens = new Map([
  ["input_ids", int64([2, 4], [3, 9, 27, 1, 8, 8, 2, 0])],
  ["attention_mask", int64([2, 4], [1, 1, 1, 1, 1, 1, 1, 0])],
]);

/** Parameters that differ from any start. */
export function disturbed(params: Params): Params {
  return mapParams(params, ({ shape, data }, name) => {
    const values = new Float32Array(data.length);
    stream({ seed: 11, purpose: name }).fillNormal(values, 0, 0.3);
    return float32(shape, values);
  });
}

/** Outputs of a tiny model on two short texts. */
export async function outputOf(tiny: Tiny, scope: Scope, weights: Params): Promise<readonly number[]> {
  const { output } = taskOutput(tiny.taskModel, scope, modelInputs(tiny.taskModel.model));
  const got = await evaluate({ output }, new Map([...weights, ...tokens]));
  return got.output ?? [];
}

/** Central differences of the loss along the gradient of each parameter: the slope is the gradient's squared norm. */
export async function gradientsMatchDifferences(tiny: Tiny, scope: Scope, params: Params): Promise<void> {
  const { sum } = taskLoss(tiny.taskModel, scope, modelInputs(tiny.taskModel.model));
  const names = [...params.keys()];
  const found = gradients(
    sum,
    names.map((name) => scope.get(name)),
  );
  const feeds = new Map([
    ...tiny.weights,
    ...params,
    ...tokens,
    ["label_positions", int64([4], [0, 1, 2, 4])] as const,
    ["labels", int64([4], [9, 27, 1, 8])] as const,
  ]);
  const outputs = Object.fromEntries(names.map((name, i) => [`grad.${name}`, found[i] ?? sum]));
  const got = await evaluate({ ...outputs, sum }, feeds);
  for (const name of names) {
    const gradient = got[`grad.${name}`] ?? [];
    const squared = gradient.reduce((total, x) => total + x * x, 0);
    const start = params.get(name);
    const lossAt = async (move: (i: number) => number): Promise<number> => {
      const values = gradient.map((_, i) => Number(start?.data[i]) + move(i));
      const moved = new Map([...feeds, [name, float32(start?.shape ?? [], values)] as const]);
      return (await evaluate({ sum }, moved)).sum?.[0] ?? Number.NaN;
    };
    if (squared === 0) {
      // Such as an expert that no token chooses.
      expect(await lossAt(() => 0.01), name).toBe(got.sum?.[0]);
      continue;
    }
    const step = 5e-3 / Math.sqrt(squared);
    const [ahead, behind] = [step, -step].map((size) => lossAt((i) => size * (gradient[i] ?? 0)));
    const slope = (((await ahead) ?? 0) - ((await behind) ?? 0)) / (2 * step);
    expect(slope / squared, name).toBeCloseTo(1, 1);
  }
}
