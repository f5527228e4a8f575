import { describe, expect, it } from "vitest";
import { constant, type Value } from "../../src/graph/value.ts";
import { clipByGlobalNorm, globalNorm } from "../../src/optim/clip.ts";
import { tensor } from "../../src/tensor/tensor.ts";
import { evaluate } from "../nn/evaluate.ts";

const float64 = (shape: readonly number[], ...values: number[]): Value =>
  constant(tensor("float64", shape, Float64Array.from(values)));

// Squares 9 + 16 + 144: the norm is 13.
const gradients = [float64([1, 2], 3, 0), float64([3], 4, 0, 0), float64([2, 1], 0, -12)];
const flat = [3, 0, 4, 0, 0, 0, -12];

async function clipped(maxNorm: number): Promise<number[]> {
  const [a, b, c] = clipByGlobalNorm(gradients, globalNorm(gradients), maxNorm);
  if (!a || !b || !c) throw new Error("three gradients");
  const got = await evaluate({ a, b, c });
  return [...(got.a ?? []), ...(got.b ?? []), ...(got.c ?? [])];
}

describe("clipping by global norm", () => {
  it("takes one norm over all tensors", async () => {
    expect((await evaluate({ norm: globalNorm(gradients) })).norm).toEqual([13]);
    expect(() => globalNorm([])).toThrow(/no tensors/);
  });

  it("scales all of them by one factor, with PyTorch's constant in the denominator", async () => {
    const factor = 2 / (13 + 1e-6);
    expect(await clipped(2)).toEqual(flat.map((value) => expect.closeTo(factor * value, 14)));
  });

  it("leaves gradients below the limit as they are, bit for bit", async () => {
    expect(await clipped(13.1)).toEqual(flat);
    expect(await clipped(Number.POSITIVE_INFINITY)).toEqual(flat);
  });
});
