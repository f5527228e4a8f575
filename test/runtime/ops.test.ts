import { describe, expect, test } from "vitest";
import { runtime } from "#ort";
import { encodeOnnx } from "../../src/graph/onnx.ts";
import { erf, fill, gelu, layerNormalization, scatterElements, scatterND } from "../../src/graph/ops.ts";
import { simplify } from "../../src/graph/passes/simplify.ts";
import { input, type OpType, type Value } from "../../src/graph/value.ts";
import { convert } from "../../src/tensor/convert.ts";
import type { Params } from "../../src/tensor/params.ts";
import { float32, type Tensor, tensor } from "../../src/tensor/tensor.ts";
import { caseFeeds, caseGraph } from "../graph/case-graph.ts";
import { cases } from "../graph/cases.ts";
import { type Array64, evaluate, erf as exactErf } from "../graph/evaluator.ts";

/** Rounding of a few float32 operations on numbers of the size of the largest. */
const TOLERANCE = { float32: 4e-6, float64: 1e-13 } as const;

const twoSizes = [
  new Map([
    ["batch", 2],
    ["sequence", 3],
  ]),
  new Map([
    ["batch", 5],
    ["sequence", 4],
  ]),
];

/** What an optimizer with float64 state is made of. */
const doubles: ReadonlySet<OpType> = new Set([
  ...([
    "Add",
    "Sub",
    "Mul",
    "Div",
    "Pow",
    "Min",
    "Max",
    "Neg",
    "Sqrt",
    "Reciprocal",
    "Abs",
    "Sign",
    "Identity",
  ] as const),
  ...(["Where", "Less", "LessOrEqual", "Cast", "ReduceSum", "ReduceMean", "ReduceMax", "MatMul"] as const),
  ...([
    "Expand",
    "Fill",
    "Reshape",
    "Exp",
    "DimSize",
    "Range",
    "Transpose",
    "Slice",
    "Concat",
    "Gather",
  ] as const),
]);

function tensors(feeds: ReadonlyMap<string, Array64>, inputs: readonly Value[]): Params {
  return new Map(
    inputs.map(({ name = "", dtype }): [string, Tensor] => {
      const { shape, data } = feeds.get(name) ?? { shape: [], data: Float64Array.of(Number.NaN) };
      return [name, convert(tensor("float64", shape, data), dtype)];
    }),
  );
}

/** The largest error, relative to the largest number where that exceeds 1. */
function distance(got: Tensor | undefined, expected: Array64): number {
  if (!got || String(got.shape) !== String(expected.shape)) return Number.POSITIVE_INFINITY;
  const values = convert(got, "float64").data;
  const scale = expected.data.reduce((a, b) => Math.max(a, Math.abs(b)), 1);
  return expected.data.reduce((worst, x, i) => {
    const error = Math.abs((values[i] ?? Number.NaN) - x) / scale;
    return Math.max(worst, error);
  }, 0);
}

describe("every op and its gradient in ONNX Runtime equal the float64 evaluator, at two sizes in one session", () => {
  for (const op of Object.keys(cases) as OpType[]) {
    for (const float of ["float32", "float64"] as const) {
      if (float === "float64" && !doubles.has(op)) continue;
      test(`${op} in ${float}`, async () => {
        for (const opCase of cases[op]) {
          const graph = caseGraph(opCase, float);
          const all = [...(graph.output.node?.outputs ?? [graph.output]), graph.scalar, ...graph.grads];
          const names = all.map((_, i) => `y${i}`);
          const lean = simplify(all);
          const bytes = encodeOnnx({ outputs: new Map(lean.map((value, i) => [`y${i}`, value])) });
          const session = await runtime.openSession(bytes);
          for (const [i, sizes] of twoSizes.entries()) {
            const feeds = caseFeeds(opCase, graph, sizes, 100 + i);
            const expected = evaluate(all, graph.inputs, feeds);
            const results = await session.run(tensors(feeds, graph.inputs));
            names.forEach((name, k) => {
              const error = distance(
                results.get(name),
                expected[k] ?? { shape: [], data: new Float64Array() },
              );
              expect(error, `${opCase.title}, output ${k}, sizes ${i}`).toBeLessThanOrEqual(TOLERANCE[float]);
            });
          }
          await session.dispose();
        }
      });
    }
  }
});

describe("sums at repeated indices with two threads", () => {
  const [rows, columns, tableRows] = [8192, 128, 8];
  const target = fill([tableRows, columns], 0);
  const updates = input("updates", "float32", ["n", columns]);
  const graphs = {
    ScatterND: scatterND(target, input("rows", "int64", ["n", 1]), updates),
    ScatterElements: scatterElements(target, input("places", "int64", ["n", columns]), updates, 0),
  };
  const row = (i: number): bigint => BigInt((i * 5) % tableRows);
  const feeds: Params = new Map<string, Tensor>([
    [
      "rows",
      tensor(
        "int64",
        [rows, 1],
        BigInt64Array.from({ length: rows }, (_, i) => row(i)),
      ),
    ],
    [
      "places",
      tensor(
        "int64",
        [rows, columns],
        BigInt64Array.from({ length: rows * columns }, (_, i) => row(Math.floor(i / columns))),
      ),
    ],
    ["updates", float32([rows, columns], new Float32Array(rows * columns).fill(1))],
  ]);
  for (const [name, value] of Object.entries(graphs)) {
    test(`${name} loses none, in 50 runs`, async () => {
      const session = await runtime.openSession(encodeOnnx({ outputs: new Map([["y", value]]) }), {
        threads: 2,
      });
      for (let run = 0; run < 50; run++) {
        const sums = (await session.run(feeds)).get("y");
        expect(sums?.data.every((x: number | bigint) => x === rows / tableRows)).toBe(true);
      }
      await session.dispose();
    });
  }
});

describe("accuracy", () => {
  const points = Float32Array.from({ length: 4001 }, (_, i) => (i - 2000) / 250);
  const x = input("x", "float32", ["n"]);
  const worst = async (y: Value, exact: (x: number) => number): Promise<number> => {
    const session = await runtime.openSession(encodeOnnx({ outputs: new Map([["y", y]]) }));
    const got = (await session.run(new Map([["x", float32([points.length], points)]]))).get("y");
    await session.dispose();
    return distance(got, { shape: [points.length], data: Float64Array.from(points, exact) });
  };

  test("Erf keeps float32 accuracy on [-8, 8]", async () => {
    expect(await worst(erf(x), exactErf)).toBeLessThan(3e-7);
  });

  test("Gelu keeps float32 accuracy on [-8, 8], relative to 8", async () => {
    expect(await worst(gelu(x), (v) => (v / 2) * (1 + exactErf(v / Math.SQRT2)))).toBeLessThan(2e-7);
    const byTanh = (v: number): number =>
      (v / 2) * (1 + Math.tanh(Math.sqrt(2 / Math.PI) * (v + 0.044715 * v ** 3)));
    expect(await worst(gelu(x, "tanh"), byTanh)).toBeLessThan(2e-7);
  });

  test("LayerNormalization of rows far from zero keeps its digits", async () => {
    const [rows, width] = [4, 768];
    const v = input("v", "float32", [rows, width]);
    const [w, b] = [input("w", "float32", [width]), input("b", "float32", [width])];
    const outputs = layerNormalization(v, w, b, 1e-12).node?.outputs ?? [];
    const bytes = encodeOnnx({ outputs: new Map(outputs.map((value, i) => [`y${i}`, value])) });
    const session = await runtime.openSession(bytes);
    const feeds = new Map([
      [
        "v",
        float32(
          [rows, width],
          Float32Array.from({ length: rows * width }, (_, i) => 30 + Math.sin(i)),
        ),
      ],
      ["w", float32([width], new Float32Array(width).fill(1))],
      ["b", float32([width], new Float32Array(width))],
    ]);
    const exact = new Map(
      [...feeds].map(([name, t]) => [name, { shape: t.shape, data: Float64Array.from(t.data) }]),
    );
    const expected = evaluate(outputs, [v, w, b], exact);
    const results = await session.run(feeds);
    await session.dispose();
    expected.forEach((values, i) => {
      expect(distance(results.get(`y${i}`), values)).toBeLessThan(1e-5);
    });
  });
});
