import { describe, expect, test } from "vitest";
import { runtime } from "#ort";

import { mul, reduceSum, sub } from "../../src/graph/ops.ts";
import { input, type Value } from "../../src/graph/value.ts";
import { adafactor } from "../../src/optim/adafactor.ts";
import { adamw } from "../../src/optim/adam.ts";
import type { Optimizer } from "../../src/optim/optimizer.ts";
import { float32, type Tensor, zeros } from "../../src/tensor/tensor.ts";
import { packs } from "../../src/train/pack.ts";
import { initialState, traceStep } from "../../src/train/step.ts";

const shapes = { a: [3, 5], b: [7], c: [2, 2] };
const names = Object.keys(shapes) as (keyof typeof shapes)[];
const trainable = new Map<string, Value>(names.map((name) => [name, input(name, "float32", shapes[name])]));

/** `Σ (p − t)²`: every parameter has a gradient of its own. */
function loss(): { sum: Value; count: Value } {
  const sums = names.map((name) => {
    const gap = sub(input(name, "float32", shapes[name]), input(`t/${name}`, "float32", shapes[name]));
    return reduceSum(mul(gap, gap));
  });
  const [a, b, c] = sums;
  if (!a || !b || !c) throw new Error("three terms");
  return { sum: sub(sub(a, mul(b, -1)), mul(c, -1)), count: reduceSum(input("n", "float32", [1])) };
}

const ramp = (shape: readonly number[], seed: number): Tensor =>
  float32(
    shape,
    Float32Array.from({ length: shape.reduce((p, n) => p * n, 1) }, (_, i) => Math.sin(i * 1.3 + seed)),
  );

async function stepOf(optimizer: Optimizer): Promise<ReadonlyMap<string, Tensor>> {
  const session = await runtime.openSession(traceStep({ loss: loss(), trainable, optimizer }).step);
  const start = new Map(names.map((name, i) => [name, ramp(shapes[name], i)] as const));
  const feeds = new Map<string, Tensor>([
    ...start,
    ...initialState(optimizer, start),
    ...names.map((name) => [`t/${name}`, zeros("float32", shapes[name])] as const),
    ["n", float32([1], [1])],
    ...Object.entries(optimizer.scalars(1)).map(
      ([name, value]) => [`scalar/${name}`, float32([], [value])] as const,
    ),
  ]);
  const outputs = await session.run(feeds);
  await session.dispose();
  return outputs;
}

describe("parameters that are stepped as one vector", () => {
  test("take bit for bit the step that they take one by one", async () => {
    const together = await stepOf(adamw({ learningRate: 0.1 }));
    const apart = await stepOf({ ...adamw({ learningRate: 0.1 }), elementwise: false });
    for (const [name, value] of apart) {
      if (name === "norm") continue; // summed in another order
      expect([...(together.get(name)?.data ?? [])], name).toEqual([...value.data]);
      expect(together.get(name)?.shape, name).toEqual(value.shape);
    }
    expect(Number(together.get("norm")?.data[0])).toBeCloseTo(Number(apart.get("norm")?.data[0]), 5);
  });

  test("are the small ones of an elementwise optimizer", () => {
    const large = new Map([...trainable, ["d", input("d", "float32", [300, 300])] as const]);
    const groups = (optimizer: Optimizer): (readonly string[])[] =>
      packs(large, optimizer.elementwise).map((pack) => pack.names);
    expect(groups(adamw({ learningRate: 1 }))).toEqual([["a", "b", "c"], ["d"]]);
    expect(groups(adafactor())).toEqual([["a"], ["b"], ["c"], ["d"]]);
  });

  test("come apart in their order and shapes", () => {
    const graph = packs(trainable, true)[0];
    if (!graph) throw new Error("one pack");
    const joined = graph.join([...trainable.values()]);
    expect(joined.shape).toEqual([26]);
    expect(graph.split(joined).map(({ shape }) => shape)).toEqual(Object.values(shapes));
  });
});
