import { expect, it } from "vitest";
import { input } from "../../src/graph/value.ts";
import { firstState, lastState, meanState } from "../../src/nn/pooling.ts";
import { float32, type Tensor, tensor } from "../../src/tensor/tensor.ts";
import { evaluate } from "./evaluate.ts";

it("takes the first state, the last that is a token, or the mean over tokens, wherever padding stands", async () => {
  const states = input("states", "float32", ["batch", "sequence", 2]);
  const mask = input("mask", "int64", ["batch", "sequence"]);
  const outputs = {
    first: firstState(states),
    last: lastState(states, mask),
    lastOfAll: lastState(states),
    mean: meanState(states, mask),
    meanOfAll: meanState(states),
  };
  const feeds = new Map<string, Tensor>([
    ["states", float32([2, 3, 2], [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12])],
    ["mask", tensor("int64", [2, 3], BigInt64Array.of(1n, 1n, 0n, 0n, 1n, 1n))],
  ]);
  expect(await evaluate(outputs, feeds)).toEqual({
    first: [1, 2, 7, 8],
    last: [3, 4, 11, 12],
    lastOfAll: [5, 6, 11, 12],
    mean: [2, 3, 10, 11],
    meanOfAll: [3, 4, 9, 10],
  });
});
