import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { gradients } from "../../../src/graph/gradients.ts";
import {
  add,
  div,
  exp,
  expand,
  fill,
  gather,
  gatherElements,
  layerNormalization,
  less,
  logSoftmax,
  matMul,
  max,
  mul,
  neg,
  pow,
  reduceMean,
  reduceSum,
  reshape,
  scatterElements,
  sub,
  tanh,
  where,
} from "../../../src/graph/ops.ts";
import { simplify } from "../../../src/graph/passes/simplify.ts";
import { printGraph } from "../../../src/graph/print.ts";
import { sameShape } from "../../../src/graph/shape.ts";
import { input, topological, type Value } from "../../../src/graph/value.ts";
import { type Array64, array64, evaluate } from "../evaluator.ts";

const print = (...outputs: readonly Value[]): string =>
  printGraph(new Map(simplify(outputs).map((value, i) => [`y${i}`, value])));

const equations = (text: string): string[] => text.split("\n").filter((line) => line.includes(" = "));

describe("the gradient of cross-entropy", () => {
  const z = input("z", "float32", ["rows", 50]);
  const labels = input("labels", "int64", ["rows", 1]);
  const weights = input("weights", "float32", ["rows", 1]);
  const chosen = gatherElements(logSoftmax(z), labels, 1);

  test("of a sum is Exp and one ScatterElements over the logits", () => {
    const [gz] = gradients(reduceSum(neg(chosen)), [z]);
    expect(print(gz ?? z)).toBe(
      [
        "input z: float32[rows, 50]",
        "input labels: int64[rows, 1]",
        "%0: float32[rows, 50] = LogSoftmax(z)",
        "%1: float32[rows, 50] = Exp(%0)",
        "%2: float32[rows, 1] = Fill(value=-1)",
        "y0: float32[rows, 50] = ScatterElements(%1, labels, %2, axis=1)",
      ].join("\n"),
    );
  });

  test("of a weighted sum is Exp, a product with a column, and one ScatterElements", () => {
    const [gz] = gradients(reduceSum(mul(neg(chosen), weights)), [z]);
    expect(print(gz ?? z)).toBe(
      [
        "input z: float32[rows, 50]",
        "input weights: float32[rows, 1]",
        "input labels: int64[rows, 1]",
        "%0: float32[rows, 50] = LogSoftmax(z)",
        "%1: float32[rows, 50] = Exp(%0)",
        "%2: float32[rows, 50] = Mul(%1, weights)",
        "%3: float32[rows, 1] = Neg(weights)",
        "y0: float32[rows, 50] = ScatterElements(%2, labels, %3, axis=1)",
      ].join("\n"),
    );
  });

  test("does not change in value", () => {
    const [gz] = gradients(reduceSum(mul(neg(chosen), weights)), [z]);
    const feeds = new Map([
      [
        "z",
        array64(
          [2, 50],
          Float64Array.from({ length: 100 }, (_, i) => Math.sin(i)),
        ),
      ],
      ["labels", array64([2, 1], [7, 49])],
      ["weights", array64([2, 1], [0.5, 2])],
    ]);
    const inputs = [z, labels, weights];
    const before = evaluate([gz ?? z], inputs, feeds)[0];
    const after = evaluate(simplify([gz ?? z]), inputs, feeds)[0];
    after?.data.forEach((x, i) => {
      expect(x).toBeCloseTo(before?.data[i] ?? Number.NaN, 14);
    });
  });
});

describe("simplify", () => {
  const x = input("x", "float32", ["batch", 3]);

  test("removes products with one, sums with zero and powers of one", () => {
    expect(print(add(mul(x, 1), 0), div(sub(pow(x, 1), 0), 1))).toBe(
      "input x: float32[batch, 3]\ny0 = x\ny1 = x",
    );
  });

  test("computes equal values once, also of commonly spelled constants", () => {
    expect(equations(print(mul(exp(x), 2), mul(exp(x), 2)))).toEqual([
      "%0: float32[batch, 3] = Exp(x)",
      "y0: float32[batch, 3] = Mul(%0, 2)",
      "y1 = y0",
    ]);
  });

  test("takes inputs of one name as one", () => {
    const twin = input("x", "float32", ["batch", 3]);
    expect(equations(print(add(exp(x), exp(twin))))).toEqual([
      "%0: float32[batch, 3] = Exp(x)",
      "y0: float32[batch, 3] = Add(%0, %0)",
    ]);
  });

  test("keeps numbers apart that print alike", () => {
    const infinities = [fill([2], Number.POSITIVE_INFINITY), fill([2], Number.NEGATIVE_INFINITY)];
    const signs = [fill([2], 0), fill([2], -0)];
    expect(new Set(simplify([...infinities, ...signs])).size).toBe(4);
    expect(new Set(simplify([add(x, 0.25), add(x, 0.5)])).size).toBe(2);
  });

  test("leaves expansions to the op that broadcasts", () => {
    const g = expand(reshape(reduceSum(x, { axes: [1] }), ["batch", 1]), ["batch", 3]);
    expect(equations(print(mul(g, x), where(less(x, 0), fill(["batch", 3], 0.5), x)))).toEqual([
      "%0: float32[batch] = ReduceSum(x, axes=[1])",
      "%1: float32[batch, 1] = Reshape(%0)",
      "y0: float32[batch, 3] = Mul(%1, x)",
      "%2: bool[batch, 3] = Less(x, 0)",
      "y1: float32[batch, 3] = Where(%2, 0.5, x)",
    ]);
    expect(equations(print(mul(expand(g, [2, "batch", 3]), expand(g, [2, "batch", 3]))))).toHaveLength(4);
  });

  test("adds the rows of a look-up's gradient to a dense gradient in place", () => {
    const table = input("table", "float32", [9, 3]);
    const ids = input("ids", "int64", ["n"]);
    const tied = reduceSum(matMul(gather(table, ids), tanh(table), { transB: true }));
    const text = print(...gradients(tied, [table]));
    expect(text.match(/Scatter/g)).toHaveLength(1);
    expect(text).not.toContain("float32[9, 3] = Fill");
    expect(text).not.toContain("float32[9, 3] = Add");
  });

  test("moves a sign to the smaller factor and ends where both are equal", () => {
    const column = input("column", "float32", ["batch", 1]);
    expect(equations(print(neg(mul(x, column))))).toEqual([
      "%0: float32[batch, 1] = Neg(column)",
      "y0: float32[batch, 3] = Mul(x, %0)",
    ]);
    expect(equations(print(neg(mul(x, x))))).toHaveLength(2);
    expect(print(neg(neg(x)))).toContain("y0 = x");
  });

  test("keeps all outputs of a node with several", () => {
    const w = input("w", "float32", [3]);
    const node = layerNormalization(mul(x, 1), w, w, 1e-5).node;
    const [y, mean] = simplify([node?.outputs[0] ?? x, node?.outputs[1] ?? x]);
    expect(y?.node).toBe(mean?.node);
    expect(y?.node?.inputs[0]).toBe(x);
  });
});

/** One step of a random graph: an op and which earlier values it takes. */
const step = fc.record({ op: fc.nat(13), a: fc.nat(50), b: fc.nat(50) });

const rows = 2;
const inputs = [
  input("x", "float64", ["rows", 3]),
  input("z", "float64", ["rows", 3]),
  input("column", "float64", ["rows", 1]),
  input("row", "float64", [3]),
  input("labels", "int64", ["rows", 1]),
];
const labels = inputs[4];

function randomGraph(steps: readonly { op: number; a: number; b: number }[]): Value {
  const full = ["rows", 3];
  const zeros = fill(full, 0, "float64");
  const pool: Value[] = [...inputs.slice(0, 4), zeros, fill(full, 1, "float64"), fill([], -1, "float64")];
  const pick = (i: number): Value => pool[i % pool.length] ?? zeros;
  for (const { op, a, b } of steps) {
    const [left, right] = [pick(a), pick(b)];
    const whole = expand(left, full);
    const column = (value: Value): Value => reduceSum(value, { axes: [1], keepDims: true });
    const made = [
      () => add(left, right),
      () => sub(left, right),
      () => mul(left, right),
      () => max(left, right),
      () => div(left, 1),
      () => mul(left, [0, 1, -1, 0.5][b % 4] ?? 0),
      () => add(left, b % 2),
      () => neg(left),
      () => tanh(left),
      () => whole,
      () => column(whole),
      () => reduceMean(whole, { axes: [1], keepDims: true }),
      () => scatterElements(b % 2 ? zeros : whole, labels ?? zeros, column(expand(right, full)), 1),
      () => expand(reshape(reshape(column(whole), ["rows"]), ["rows", 1]), full),
    ][op];
    if (made) pool.push(made());
  }
  return reduceSum(expand(pool.at(-1) ?? zeros, full));
}

const feeds: ReadonlyMap<string, Array64> = new Map([
  ["x", array64([rows, 3], [0.5, -1, 0.25, 1.5, -0.75, 2])],
  ["z", array64([rows, 3], [-0.5, 0.3, 1.25, -1.5, 0.6, 0.1])],
  ["column", array64([rows, 1], [0.7, -0.2])],
  ["row", array64([3], [1.1, -0.4, 0.9])],
  ["labels", array64([rows, 1], [2, 0])],
]);

test("random graphs and their gradients keep their values and do not grow", () => {
  fc.assert(
    fc.property(fc.array(step, { minLength: 1, maxLength: 12 }), (steps) => {
      const y = randomGraph(steps);
      const outputs = [y, ...gradients(y, inputs.slice(0, 4))];
      const lean = simplify(outputs);
      expect(topological(lean).length).toBeLessThanOrEqual(topological(outputs).length);
      expect(lean.every((value, i) => sameShape(value.shape, outputs[i]?.shape ?? []))).toBe(true);
      const before = evaluate(outputs, inputs, feeds);
      const after = evaluate(lean, inputs, feeds);
      before.forEach(({ data }, i) => {
        data.forEach((value, j) => {
          const got = after[i]?.data[j] ?? Number.NaN;
          expect(Math.abs(got - value)).toBeLessThanOrEqual(1e-11 * Math.max(1, Math.abs(value)));
        });
      });
    }),
    { numRuns: 400, seed: 11 },
  );
});
