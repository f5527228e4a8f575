import { expect, test } from "vitest";
import {
  add,
  cast,
  equal,
  expand,
  gelu,
  layerNormalization,
  matMul,
  mul,
  reduceSum,
  slice,
  sub,
  transpose,
  vector,
} from "../../src/graph/ops.ts";
import { printGraph } from "../../src/graph/print.ts";
import { input } from "../../src/graph/value.ts";

const x = input("inputs", "float32", ["batch", "sequence", 4]);

test("a graph prints its inputs and one typed equation per line, under the names of weights and outputs", () => {
  const w = input("model.layers.0.mlp.weight", "float32", [2, 4]);
  const h = mul(matMul(x, w, { transB: true, alpha: 0.5 }), 2);
  const outputs = new Map([
    ["loss", reduceSum(h)],
    ["hidden", h],
  ]);
  expect(printGraph(outputs)).toBe(
    [
      "input inputs: float32[batch, sequence, 4]",
      "input model.layers.0.mlp.weight: float32[2, 4]",
      "%0: float32[batch, sequence, 2] = MatMul(inputs, model.layers.0.mlp.weight, transB, alpha=0.5)",
      "hidden: float32[batch, sequence, 2] = Mul(%0, 2)",
      "loss: float32[] = ReduceSum(hidden, axes=[0, 1, 2])",
    ].join("\n"),
  );
});

test("large constants are listed and scalars are written where they stand, with a type unless float32", () => {
  const ids = input("ids", "int64", ["batch"]);
  const y = add(add(x, vector([1, 2, 3, 4])), -0);
  const outputs = new Map([
    ["y", y],
    ["mask", equal(ids, 7)],
    ["part", slice(transpose(x, [1, 0, 2]), 2, 1, 3)],
    ["wide", expand(cast(gelu(x, "tanh"), "float64"), [2, "batch", "sequence", 4])],
  ]);
  expect(printGraph(outputs)).toBe(
    [
      "input inputs: float32[batch, sequence, 4]",
      "input ids: int64[batch]",
      "constant #0: float32[4]",
      "%0: float32[batch, sequence, 4] = Add(inputs, #0)",
      "y: float32[batch, sequence, 4] = Add(%0, -0)",
      "mask: bool[batch] = Equal(ids, 7:int64)",
      "%1: float32[sequence, batch, 4] = Transpose(inputs, perm=[1, 0, 2])",
      "part: float32[sequence, batch, 2] = Slice(%1, axis=2, start=1, end=3)",
      "%2: float32[batch, sequence, 4] = Gelu(inputs, approximate=tanh)",
      "%3: float64[batch, sequence, 4] = Cast(%2)",
      "wide: float64[2, batch, sequence, 4] = Expand(%3)",
    ].join("\n"),
  );
});

test("unused results print as _ or not at all, and outputs without an equation of their own come last", () => {
  const w = input("w", "float32", [4]);
  const [y, , inverse] = layerNormalization(x, w, w, 1e-5).node?.outputs ?? [];
  const centered = sub(x, inverse ?? x);
  expect(
    printGraph(
      new Map([
        ["centered", centered],
        ["again", centered],
        ["same", x],
      ]),
    ),
  ).toBe(
    [
      "input inputs: float32[batch, sequence, 4]",
      "input w: float32[4]",
      "_, _, %0: float32[batch, sequence, 1] = LayerNormalization(inputs, w, w, epsilon=0.00001)",
      "centered: float32[batch, sequence, 4] = Sub(inputs, %0)",
      "again = centered",
      "same = inputs",
    ].join("\n"),
  );
  expect(printGraph(new Map([["y", y ?? x]]))).toContain(
    "y: float32[batch, sequence, 4] = LayerNormalization(",
  );
});
