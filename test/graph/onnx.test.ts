import { describe, expect, test } from "vitest";
import { runtime } from "#ort";
import { gradients } from "../../src/graph/gradients.ts";
import { encodeOnnx } from "../../src/graph/onnx.ts";
import {
  add,
  cast,
  concat,
  expand,
  fill,
  gatherElements,
  logSoftmax,
  matMul,
  mul,
  neg,
  reduceSum,
  reshape,
  slice,
  vector,
} from "../../src/graph/ops.ts";
import { simplify } from "../../src/graph/passes/simplify.ts";
import { input, type Value } from "../../src/graph/value.ts";
import type { Params } from "../../src/tensor/params.ts";
import { float32, type Tensor, tensor } from "../../src/tensor/tensor.ts";

const x = input("x", "float32", ["batch", 3]);
const numbers = float32([2, 3], [1, 2, 3, 4, 5, 6]);

async function run(outputs: Readonly<Record<string, Value>>, feeds: Params): Promise<Params> {
  const session = await runtime.openSession(encodeOnnx({ outputs: new Map(Object.entries(outputs)) }));
  const results = await session.run(feeds);
  await session.dispose();
  return results;
}

const feeds: Params = new Map([["x", numbers]]);

describe("encodeOnnx", () => {
  test("gives outputs their names, also inputs, constants and values that are asked for twice", async () => {
    const y = mul(x, 2);
    const results = await run({ y, again: y, x2: x, three: vector([3]) }, feeds);
    expect([...results.keys()].sort()).toEqual(["again", "three", "x2", "y"]);
    expect(results.get("again")?.data).toEqual(results.get("y")?.data);
    expect([...(results.get("x2")?.data ?? [])]).toEqual([1, 2, 3, 4, 5, 6]);
    expect([...(results.get("three")?.data ?? [])]).toEqual([3]);
  });

  test("keeps its own names apart from those of inputs and outputs", async () => {
    const v0 = input("v0", "float32", [3]);
    const results = await run(
      { v1: add(mul(v0, 2), 1), v2: mul(v0, v0) },
      new Map([["v0", float32([3], [1, 2, 3])]]),
    );
    expect([...(results.get("v1")?.data ?? [])]).toEqual([3, 5, 7]);
    expect([...(results.get("v2")?.data ?? [])]).toEqual([1, 4, 9]);
  });

  test("refuses a name that is both input and output", () => {
    expect(() => encodeOnnx({ outputs: new Map([["x", mul(x, 2)]]) })).toThrow(
      '"x" names an input and an output',
    );
  });

  test("takes two inputs of one name and type as one, and refuses them where the types differ", async () => {
    const twin = input("x", "float32", ["batch", 3]);
    const y = reduceSum(mul(x, twin));
    const [g] = gradients(y, [x]);
    const results = await run({ y, g: g ?? y }, feeds);
    expect([...(results.get("y")?.data ?? [])]).toEqual([91]);
    expect([...(results.get("g")?.data ?? [])]).toEqual([2, 4, 6, 8, 10, 12]);
    const outputs = new Map([["y", add(x, cast(input("x", "float64", ["batch", 3]), "float32"))]]);
    expect(() => encodeOnnx({ outputs })).toThrow('two inputs are named "x"');
  });

  test("refuses a symbol that no input has", () => {
    expect(() => encodeOnnx({ outputs: new Map([["y", fill(["batch"], 1)]]) })).toThrow(
      'no graph input has the dimension "batch"',
    );
  });

  test("stores a large constant once however often it is used", () => {
    const table = vector(new Float32Array(3000), [1000, 3]);
    const once = encodeOnnx({ outputs: new Map([["y", matMul(x, table, { transB: true })]]) });
    const product = matMul(matMul(x, table, { transB: true }), table);
    const twice = encodeOnnx({ outputs: new Map([["y", matMul(product, table, { transB: true })]]) });
    expect(once.length).toBeGreaterThan(12_000);
    expect(twice.length).toBeLessThan(once.length + 500);
  });

  test("gives the same bytes each time", () => {
    const make = (): Uint8Array => encodeOnnx({ outputs: new Map([["y", reduceSum(mul(x, 3))]]) });
    expect(make()).toEqual(make());
  });

  test("fills with integers and booleans too", async () => {
    const results = await run(
      {
        i: add(fill(["batch"], -7, "int64"), fill(["batch"], 2, "int64")),
        b: fill(["batch"], 1, "bool"),
        z: neg(x),
      },
      feeds,
    );
    expect(results.get("i")?.data).toEqual(BigInt64Array.of(-5n, -5n));
    expect(results.get("b")?.data).toEqual(Uint8Array.of(1, 1));
  });

  test("serves a batch without labelled positions: the loss is 0 and gradients are zeros", async () => {
    const z = input("z", "float32", ["rows", 5]);
    const labels = input("labels", "int64", ["rows"]);
    const w = input("w", "float32", [5, 3]);
    const inputs = input("h", "float32", ["rows", 3]);
    const logits = add(z, matMul(inputs, w, { transB: true }));
    const loss = neg(reduceSum(gatherElements(logSoftmax(logits), reshape(labels, ["rows", 1]), 1)));
    const [l, g] = simplify([loss, ...gradients(loss, [w])]);
    const results = await run(
      { l: l ?? loss, g: g ?? loss },
      new Map<string, Tensor>([
        ["z", float32([0, 5], [])],
        ["h", float32([0, 3], [])],
        ["labels", tensor("int64", [0], new BigInt64Array(0))],
        ["w", float32([5, 3], new Float32Array(15).fill(1))],
      ]),
    );
    expect([...(results.get("l")?.data ?? [])].map(Math.abs as (x: number | bigint) => number)).toEqual([0]);
    expect([...(results.get("g")?.data ?? [])].every((v) => v === 0)).toBe(true);
    expect(results.get("g")?.shape).toEqual([5, 3]);
  });
});

describe("builders", () => {
  const y = input("y", "float32", ["batch", 4]);

  test("name the shapes that do not fit", () => {
    expect(() => add(x, y)).toThrow("Add: shapes [batch,3] and [batch,4] do not broadcast (3 against 4)");
    expect(() => matMul(x, y)).toThrow("inner dimensions differ: [batch,3] x [batch,4]");
    expect(() => slice(x, 1, 2, 5)).toThrow("2..5 is outside axis 1 of [batch,3]");
    expect(() => expand(x, ["batch", 4])).toThrow("do not broadcast");
    expect(() => expand(x, [1, 3])).toThrow("[batch,3] is not broadcast to [1,3]");
    expect(() => concat([x, y], 0, "joined")).toThrow("does not join float32 [batch,3] along axis 0");
    expect(() => reshape(x, ["batch", 4])).toThrow("has 3*batch elements, [batch,4] has 4*batch");
    expect(() => add(x, input("d", "float64", []))).toThrow("dtypes differ, got float32 and float64");
  });
});
