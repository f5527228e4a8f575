import { describe, expect, it } from "vitest";
import { input } from "../../src/graph/value.ts";
import { linear } from "../../src/nn/linear.ts";
import { crossEntropy, squaredError } from "../../src/nn/losses.ts";
import { rootScope } from "../../src/nn/scope.ts";
import { float32, type Tensor, tensor } from "../../src/tensor/tensor.ts";
import { evaluate } from "./evaluate.ts";

describe("losses", () => {
  it("give sum and count apart, so that micro-batches add up", async () => {
    const logits = [2, -1, 0.5, 0, 0, 3];
    const { sum, count } = crossEntropy(
      input("logits", "float32", ["rows", 3]),
      input("classes", "int64", ["rows"]),
    );
    const got = await evaluate(
      { sum, count },
      new Map<string, Tensor>([
        ["logits", float32([2, 3], logits)],
        ["classes", tensor("int64", [2], BigInt64Array.of(2n, 1n))],
      ]),
    );
    const row = (values: number[], at: number): number =>
      Math.log(values.reduce((total, value) => total + Math.exp(value), 0)) - (values[at] ?? 0);
    expect(got.sum?.[0]).toBeCloseTo(row(logits.slice(0, 3), 2) + row(logits.slice(3), 1), 5);
    expect(got.count).toEqual([2]);
  });

  it("count every predicted number in the squared error", async () => {
    const { sum, count } = squaredError(
      input("y", "float32", ["rows", 2]),
      input("target", "float32", ["rows", 2]),
    );
    const feeds = new Map([
      ["y", float32([2, 2], [1, 2, 3, 4])],
      ["target", float32([2, 2], [0, 2, 5, 1])],
    ]);
    expect(await evaluate({ sum, count }, feeds)).toEqual({ sum: [14], count: [4] });
  });
});

describe("linear", () => {
  it("adds its bias and applies adapters in the order of attachment", async () => {
    const weights = new Map([
      ["layer.weight", { dtype: "float32", shape: [2, 3] }],
      ["layer.bias", { dtype: "float32", shape: [2] }],
    ] as const);
    const seen: string[] = [];
    const note =
      (label: string) =>
      (_w: unknown, _x: unknown, y: ReturnType<typeof input>): ReturnType<typeof input> => {
        seen.push(label);
        return y;
      };
    const w = rootScope({ weights, adapters: new Map([["layer", [note("first"), note("second")]]]) });
    const y = linear(w.at("layer"), input("x", "float32", ["batch", "sequence", 3]));
    const feeds = new Map([
      ["layer.weight", float32([2, 3], [1, 2, 3, 4, 5, 6])],
      ["layer.bias", float32([2], [10, 20])],
      ["x", float32([1, 2, 3], [1, 0, 0, 1, 1, 1])],
    ]);
    expect(await evaluate({ y }, feeds)).toEqual({ y: [11, 24, 16, 35] });
    expect(y.shape).toEqual(["batch", "sequence", 2]);
    expect(seen).toEqual(["first", "second"]);
    expect([...w.inputs.keys()]).toEqual(["layer.weight", "layer.bias"]);
  });

  it("names the tensor that a scope does not have", () => {
    expect(() => rootScope({ weights: new Map() }).at("a").at(0).get("weight")).toThrow('"a.0.weight"');
  });
});
