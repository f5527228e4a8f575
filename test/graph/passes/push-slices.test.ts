import { describe, expect, test } from "vitest";
import { gradients } from "../../../src/graph/gradients.ts";
import {
  add,
  gelu,
  gemm,
  layerNormalization,
  matMul,
  mul,
  reduceMean,
  reduceSum,
  reshape,
  simplifiedLayerNormalization,
  slice,
  softmax,
  transpose,
} from "../../../src/graph/ops.ts";
import { pushSlices } from "../../../src/graph/passes/push-slices.ts";
import { input, inputsOf, isOp, topological, type Value } from "../../../src/graph/value.ts";
import { type Array64, array64, evaluate } from "../evaluator.ts";

const real = (name: string, ...shape: (string | number)[]): Value => input(name, "float64", shape);

/** Reproducible numbers in (-1, 1). */
function numbers(shape: readonly number[], seed: number): Array64 {
  const count = shape.reduce((product, n) => product * n, 1);
  return array64(
    shape,
    Float64Array.from({ length: count }, (_, i) => Math.sin((i + 1) * (seed + 1.7))),
  );
}

/** Shapes of a product's rows in a graph. */
const products = (outputs: readonly Value[]): string[] =>
  topological(outputs)
    .filter((node) => isOp(node, "MatMul") || isOp(node, "Gemm"))
    .map((node) => `[${node.outputs[0]?.shape}]`);

// One encoder block on [B, T, 6] with two heads of 3, read at the first token.
const x = real("x", "B", "T", 6);
const w = (name: string, out = 6, from = 6): Value => real(name, out, from);
const b = (name: string, n = 6): Value => real(name, n);
const linear = (y: Value, name: string, out = 6): Value => {
  const from = Number(y.shape.at(-1));
  const [batch = "B", length = "T"] = y.shape;
  return reshape(
    gemm(reshape(y, [`${batch}*${length}`, from]), w(`${name}.w`, out, from), b(`${name}.b`, out)),
    [batch, length, out],
  );
};
const heads = (y: Value): Value => transpose(reshape(y, ["B", "T", 2, 3]), [0, 2, 1, 3]);

function block(): Value {
  const [q, k, v] = ["q", "k", "v"].map((name) => heads(linear(x, name)));
  if (!q || !k || !v) throw new Error("three projections");
  const mixed = matMul(
    softmax(add(matMul(q, k, { transB: true, alpha: 0.6 }), real("mask", "B", 1, 1, "T"))),
    v,
  );
  const joined = reshape(transpose(mixed, [0, 2, 1, 3]), ["B", "T", 6]);
  const h = layerNormalization(add(linear(joined, "o"), x), b("n.w"), b("n.b"), 1e-5);
  const inner = gelu(linear(h, "up", 10));
  return simplifiedLayerNormalization(add(linear(inner, "down"), h), b("r.w"), 1e-5);
}

const bound = (B: number, T: number): ReadonlyMap<string, Array64> => {
  const feeds = new Map<string, Array64>();
  const put = (name: string, ...shape: number[]): void => void feeds.set(name, numbers(shape, feeds.size));
  put("x", B, T, 6);
  put("mask", B, 1, 1, T);
  for (const name of ["q", "k", "v", "o"]) {
    put(`${name}.w`, 6, 6);
    put(`${name}.b`, 6);
  }
  put("up.w", 10, 6);
  put("up.b", 10);
  put("down.w", 6, 10);
  put("down.b", 6);
  for (const name of ["n.w", "n.b", "r.w"]) put(name, 6);
  return feeds;
};

describe("a block that is read at one token", () => {
  const [T, kept] = [5, { axis: 1, start: 0, end: 1 }];
  const read = slice(block(), kept.axis, kept.start, kept.end);
  const [lean] = pushSlices([read]);

  test("computes queries, output and feed-forward layer for that token alone", () => {
    if (!lean) throw new Error("one output");
    const whole = products([read]).filter((shape) => shape.includes("B*T") || shape.includes("T"));
    const left = products([lean]).filter((shape) => shape.includes("B*T"));
    expect(whole.length).toBeGreaterThan(5);
    expect(left).toEqual(["[B*T,6]", "[B*T,6]"]); // keys and values
  });

  test("has the same value and the same gradients", () => {
    if (!lean) throw new Error("one output");
    const feeds = bound(2, T);
    const wrt = ["x", "q.w", "k.w", "o.b", "up.w", "n.w"].map((name) => {
      const shape = name === "x" ? ["B", "T", 6] : [...(feeds.get(name)?.shape ?? [])];
      return real(name, ...shape);
    });
    const loss = (y: Value): Value => reduceSum(mul(y, y));
    const values = (y: Value): Array64[] => {
      const outputs = [y, ...gradients(loss(y), wrt)];
      return evaluate(outputs, [...inputsOf(outputs).values()], feeds);
    };
    const [one, other] = [values(read), values(lean)];
    one.forEach((array, i) => {
      expect([...(other[i]?.shape ?? [])]).toEqual([...array.shape]);
      array.data.forEach((value, j) => {
        expect(other[i]?.data[j]).toBeCloseTo(value, 12);
      });
    });
  });
});

test("a value that is read whole elsewhere is not computed twice", () => {
  const y = mul(x, x);
  const outputs = [slice(y, 1, 2, 3), reduceMean(y)];
  const pushed = pushSlices(outputs);
  expect(topological(pushed).filter((node) => node.op === "Mul")).toHaveLength(1);
});

test("an axis that an op mixes stops the slice", () => {
  const [pushed] = pushSlices([slice(softmax(x), 2, 0, 3)]);
  expect(pushed?.node?.op).toBe("Slice");
});
