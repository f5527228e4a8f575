import { describe, expect, test } from "vitest";
import { gradients, isDifferentiable } from "../../src/graph/gradients.ts";
import {
  add,
  cast,
  exp,
  gather,
  layerNormalization,
  matMul,
  max,
  min,
  mul,
  pow,
  reduceMax,
  reduceSum,
  relu,
  rotaryEmbedding,
  scalar,
  slice,
  sub,
} from "../../src/graph/ops.ts";
import { input, type OpType, topological, type Value } from "../../src/graph/value.ts";
import { caseFeeds, caseGraph } from "./case-graph.ts";
import { cases } from "./cases.ts";
import { type Array64, array64, erf, evaluate } from "./evaluator.ts";

const sizes = new Map([
  ["batch", 2],
  ["sequence", 3],
]);

/** Central differences of step 1e-5 in float64: h² f‴ and ε/h are both near 1e-10; ten times that, with room. */
const STEP = 1e-5;
const TOLERANCE = 5e-8;

/** Derivatives of a scalar by central differences, for every element of one feed. */
function differences(
  scalar: Value,
  inputs: readonly Value[],
  feeds: ReadonlyMap<string, Array64>,
  name: string,
): number[] {
  const point = feeds.get(name)?.data ?? [];
  return Array.from(point, (value, i) => {
    const at = (x: number): number => {
      const moved = Float64Array.from(point);
      moved[i] = x;
      const feed = { shape: feeds.get(name)?.shape ?? [], data: moved };
      return evaluate([scalar], inputs, new Map([...feeds, [name, feed]]))[0]?.data[0] ?? Number.NaN;
    };
    return (at(value + STEP) - at(value - STEP)) / (2 * STEP);
  });
}

const ops = Object.keys(cases) as OpType[];
const constants: ReadonlySet<OpType> = new Set(["Fill", "DimSize", "Range"]);

describe("the gradient of every op equals its finite differences", () => {
  for (const op of ops) {
    cases[op].forEach((opCase, i) => {
      if (!isDifferentiable(op) && !constants.has(op)) return;
      test(`${op} ${opCase.title}`, () => {
        const graph = caseGraph(opCase, "float64");
        expect(topological([graph.output]).map((node) => node.op)).toContain(op);
        const feeds = caseFeeds(opCase, graph, sizes, 7 + i);
        const got = evaluate(graph.grads, graph.inputs, feeds);
        graph.wrt.forEach((value, k) => {
          const expected = differences(graph.scalar, graph.inputs, feeds, value.name ?? "");
          expect(got[k]?.data.length).toBe(expected.length);
          expected.forEach((slope, j) => {
            const error = Math.abs((got[k]?.data[j] ?? Number.NaN) - slope);
            expect(error, `${value.name}[${j}]`).toBeLessThanOrEqual(
              TOLERANCE * Math.max(1, Math.abs(slope)),
            );
          });
        });
      });
    });
  }
});

describe("ops without a gradient", () => {
  for (const op of ops.filter((name) => !isDifferentiable(name) && !constants.has(name))) {
    test(`${op} passes zeros to its operands`, () => {
      for (const opCase of cases[op]) {
        const graph = caseGraph(opCase, "float64");
        const feeds = caseFeeds(opCase, graph, sizes, 3);
        for (const gradient of evaluate(graph.grads, graph.inputs, feeds))
          expect([...gradient.data].every((x) => x === 0)).toBe(true);
      }
    });
  }
});

const run = (outputs: readonly Value[], feeds: Readonly<Record<string, Array64>>): number[][] => {
  const map = new Map(Object.entries(feeds));
  const inputs = [...map].map(([name, { shape }]) => input(name, "float64", shape));
  return evaluate(outputs, inputs, map).map(({ data }) => [...data]);
};

describe("gradients", () => {
  test("a value reached by several paths gets the sum of their gradients", () => {
    const x = input("x", "float64", [2]);
    const shared = mul(x, x);
    const y = reduceSum(add(mul(shared, x), exp(shared))); // x³ + exp(x²)
    const [gx] = run(gradients(y, [x]), { x: array64([2], [0.5, -1.5]) });
    expect(gx?.[0]).toBeCloseTo(3 * 0.25 + 2 * 0.5 * Math.exp(0.25), 12);
    expect(gx?.[1]).toBeCloseTo(3 * 2.25 - 3 * Math.exp(2.25), 12);
  });

  test("a value that the scalar does not depend on gets zeros of its shape", () => {
    const [x, z] = [input("x", "float64", [2]), input("z", "float64", [3, 1])];
    const [gz] = gradients(reduceSum(x), [z]);
    expect(gz?.shape).toEqual([3, 1]);
    expect(run([gz ?? z], { x: array64([2], [1, 2]) })).toEqual([[0, 0, 0]]);
  });

  test("the scalar itself has gradient 1", () => {
    const y = reduceSum(input("x", "float64", [2]));
    expect(run(gradients(y, [y]), { x: array64([2], [1, 2]) })).toEqual([[1]]);
  });

  test("an intermediate value and what it depends on both get total derivatives", () => {
    const x = input("x", "float64", []);
    const h = mul(x, 3);
    const y = mul(h, h); // dy/dh = 2h, dy/dx = 6h
    expect(run(gradients(y, [h, x]), { x: array64([], [2]) })).toEqual([[12], [36]]);
  });

  test("nothing is built below the lowest value asked for", () => {
    const x = input("x", "float32", ["batch", 4]);
    const frozen = input("frozen", "float32", [4, 4]);
    const w = input("w", "float32", [2, 4]);
    // Below h lies an op whose gradient rule would throw, and eight frozen layers.
    let h = slice(x, 0, 0, 2);
    for (let i = 0; i < 8; i++) h = relu(matMul(h, frozen));
    const y = reduceSum(matMul(h, w, { transB: true }));
    const forward = new Set(topological([y]));
    const added = topological(gradients(y, [w])).filter((node) => !forward.has(node));
    // Seed, Expand of the sum's gradient, and one product; sums over no axes add nothing.
    expect(added.map((node) => node.op)).toEqual(["Fill", "Reshape", "Expand", "MatMul"]);
    expect(() => gradients(y, [h])).not.toThrow();
  });

  test("integers have no gradient, also through casts of floats", () => {
    const table = input("table", "float64", [3, 2]);
    const ids = input("ids", "int64", [2]);
    const y = reduceSum(gather(table, ids));
    const [g] = gradients(y, [table]);
    const feeds = new Map([
      ["table", array64([3, 2], [0, 0, 0, 0, 0, 0])],
      ["ids", array64([2], [2, 2])],
    ]);
    expect([...(evaluate([g ?? y], [table, ids], feeds)[0]?.data ?? [])]).toEqual([0, 0, 0, 0, 2, 2]);
    const rounded = reduceSum(cast(cast(table, "int64"), "float64"));
    const [zero] = gradients(rounded, [table]);
    expect([...(evaluate([zero ?? y], [table], feeds)[0]?.data ?? [])]).toEqual([0, 0, 0, 0, 0, 0]);
  });

  test("a scalar is asked for", () => {
    const x = input("x", "float32", [2]);
    expect(() => gradients(x, [x])).toThrow("needs a scalar, got shape [2]");
  });

  test("a second output has no gradient and says so", () => {
    const [x, w] = [input("x", "float32", [2, 3]), input("w", "float32", [3])];
    const mean = layerNormalization(x, w, w, 1e-5).node?.outputs[1];
    expect(() => gradients(reduceSum(mean ?? x), [x])).toThrow(
      "LayerNormalization has a gradient through its first",
    );
  });

  test("the tables of a rotary embedding have no gradient and say so", () => {
    const x = input("x", "float32", [1, 1, 2, 4]);
    const [cosine, sine] = [input("c", "float32", [2, 2]), input("s", "float32", [2, 2])];
    const y = reduceSum(rotaryEmbedding(x, input("p", "int64", [1, 2]), cosine, sine));
    expect(() => gradients(y, [x, sine])).toThrow("no gradient of the cosines and sines");
  });
});

describe("ties", () => {
  const x = input("x", "float64", [3]);
  const z = input("z", "float64", [3]);
  const feeds = { x: array64([3], [1, 2, 3]), z: array64([3], [1, 3, 2]) };

  test("Max gives a tie to its first operand, once", () => {
    expect(run(gradients(reduceSum(max(x, z)), [x, z]), feeds)).toEqual([
      [1, 0, 1],
      [0, 1, 0],
    ]);
  });

  test("Min gives a tie to its first operand, once", () => {
    expect(run(gradients(reduceSum(min(x, z)), [x, z]), feeds)).toEqual([
      [1, 1, 0],
      [0, 0, 1],
    ]);
  });

  test("ReduceMax shares the gradient equally among the largest", () => {
    const m = input("m", "float64", [2, 3]);
    const y = reduceSum(reduceMax(m, { axes: [1] }));
    const feed = { m: array64([2, 3], [5, 5, 1, 0, 7, 2]) };
    expect(run(gradients(y, [m]), feed)).toEqual([[0.5, 0.5, 0, 0, 1, 0]]);
  });

  test("Relu has slope 0 at 0, and Abs too", () => {
    expect(run(gradients(reduceSum(relu(sub(x, 2))), [x]), feeds)).toEqual([[0, 0, 1]]);
  });

  test("a power of zero does not depend on its exponent", () => {
    const [a, b] = [scalar(0, "float64"), input("b", "float64", [])];
    expect(run(gradients(pow(a, b), [b]), { b: array64([], [2]) })).toEqual([[0]]);
  });
});

test("the evaluator's error function agrees with tabulated values", () => {
  // Abramowitz & Stegun, table 7.1.
  expect(erf(0.5)).toBeCloseTo(0.5204998778, 10);
  expect(erf(-1)).toBeCloseTo(-0.8427007929, 10);
  expect(erf(2)).toBeCloseTo(0.995322265, 9);
  expect(erf(5.9)).toBeCloseTo(1, 15);
});
