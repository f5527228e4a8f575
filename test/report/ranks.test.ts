import { describe, expect, it } from "vitest";
import type { BaseChange } from "../../src/federation/strategy.ts";
import { type RankedState, rankHistory } from "../../src/report/ranks.ts";
import { svd } from "../../src/tensor/linalg.ts";
import { matmul, matrix } from "../../src/tensor/matrix.ts";
import type { Params } from "../../src/tensor/params.ts";
import { stream } from "../../src/tensor/random.ts";
import type { Tensor } from "../../src/tensor/tensor.ts";

const [out, width] = [11, 7];

function drawn(purpose: string, shape: readonly [number, number]): Tensor {
  const data = new Float64Array(shape[0] * shape[1]);
  stream({ seed: 5, purpose }).fillNormal(data, 0, 1);
  return { dtype: "float32", shape, data: Float32Array.from(data) };
}

const pair = (purpose: string, rank: number): Params =>
  new Map([
    ["m.lora_A.weight", drawn(`${purpose} a`, [rank, width])],
    ["m.lora_B.weight", drawn(`${purpose} b`, [out, rank])],
  ]);

const change = (purpose: string, rank: number, scale: number): BaseChange => ({
  kind: "factors",
  left: new Map([["m.weight", drawn(`${purpose} l`, [out, rank])]]),
  right: new Map([["m.weight", drawn(`${purpose} r`, [rank, width])]]),
  scale,
});

const state = (round: number, params: Params, ...changes: BaseChange[]): RankedState => ({
  round,
  params: async () => params,
  changes: async () => changes,
});

const asMatrix = ({ shape, data }: Tensor) =>
  matrix(shape[0] ?? 0, shape[1] ?? 0, Float64Array.from(data, Number));

/** The effective rank of a matrix by its definition, from a dense decomposition. */
function effective(dense: Float64Array): number {
  const { singularValues } = svd(matrix(out, width, dense));
  const total = singularValues.reduce((a, b) => a + b, 0);
  const entropy = singularValues.reduce(
    (sum, s) => (s > 1e-12 ? sum - (s / total) * Math.log(s / total) : sum),
    0,
  );
  return Math.exp(entropy);
}

function product(left: Tensor | undefined, right: Tensor | undefined, scale: number): Float64Array {
  if (left === undefined || right === undefined) throw new Error("no factors");
  return matmul(asMatrix(left), asMatrix(right)).data.map((x) => scale * x);
}

const sum = (...parts: readonly Float64Array[]): Float64Array =>
  parts.reduce((a, b) => a.map((x, i) => x + (b[i] ?? 0)));

describe("the rank of the accumulated update", () => {
  it("of an adapter alone is at most its rank, and that of its product", async () => {
    const last = pair("last", 2);
    const { measured } = await rankHistory([state(0, pair("first", 2)), state(1, last)], { scaling: 3 });
    expect(measured).toHaveLength(1);
    expect(measured[0]?.ranks).toEqual([
      {
        rank: 2,
        effective: expect.closeTo(
          effective(product(last.get("m.lora_B.weight"), last.get("m.lora_A.weight"), 1)),
          9,
        ),
      },
    ]);
  });

  it("grows by the rank of each change of the base, up to the smaller side", async () => {
    const last = pair("x", 2);
    const states = [
      state(0, last),
      state(1, last, change("one", 1, 0.5)),
      state(2, last, change("two", 2, -1)),
      state(3, last, change("three", 3, 2)),
    ];
    const { measured } = await rankHistory(states, { scaling: 4 });
    expect(measured.map(({ ranks }) => ranks[0]?.rank)).toEqual([3, 5, 7]);
    const dense = sum(
      product(last.get("m.lora_B.weight"), last.get("m.lora_A.weight"), 4),
      ...(["one", "two", "three"] as const).map((name, i) => {
        const made = change(name, i + 1, [0.5, -1, 2][i] ?? 0);
        return made.kind === "factors"
          ? product(made.left.get("m.weight"), made.right.get("m.weight"), made.scale)
          : new Float64Array();
      }),
    );
    expect(measured[2]?.ranks[0]?.effective).toBeCloseTo(effective(dense), 9);
  });

  it("takes out again what a change names as known", async () => {
    const made = change("one", 2, 1);
    const known = made.kind === "factors" ? { ...made, known: { left: made.left, right: made.right } } : made;
    const zero: Params = new Map(
      [...pair("x", 2)].map(([name, one]) => [
        name,
        { ...one, data: new Float32Array(one.data.length) } as Tensor,
      ]),
    );
    const { measured } = await rankHistory([state(0, zero), state(1, zero, known)], { scaling: 1 });
    expect(measured[0]?.ranks).toEqual([{ rank: 0, effective: 0 }]);
  });

  it("of trained weights is that of their difference, above the rounding of float32", async () => {
    const before = drawn("weight", [out, width]);
    const step = product(drawn("l", [out, 2]), drawn("r", [2, width]), 1e-2);
    const after: Tensor = {
      dtype: "float32",
      shape: before.shape,
      data: Float32Array.from(step, (x, i) => Number(before.data[i]) + x),
    };
    const { measured } = await rankHistory(
      [state(0, new Map([["m.weight", before]])), state(1, new Map([["m.weight", after]]))],
      { scaling: 1 },
    );
    expect(measured[0]?.ranks[0]?.rank).toBe(2);
    expect(measured[0]?.ranks[0]?.effective).toBeCloseTo(effective(step), 3);
  });

  it("is measured in evenly spread modules where all of them cost too much", async () => {
    const many: Params = new Map(
      Array.from({ length: 10 }, (_, i) =>
        [...pair("x", 2)].map(([name, one]) => [`${i}${name}`, one] as const),
      ).flat(),
    );
    const { modules, skipped, measured } = await rankHistory([state(0, many), state(1, many)], {
      scaling: 1,
      budget: 3 * (6 * (out + width) * 4 + 40 * 8),
    });
    expect([modules, skipped, measured[0]?.ranks.length]).toEqual([3, 7, 3]);
  });
});
