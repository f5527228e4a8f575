import { describe, expect, it } from "vitest";
import { runtime } from "#ort";
import { gradients } from "../../../src/graph/gradients.ts";
import { encodeOnnx } from "../../../src/graph/onnx.ts";
import { blocksOf, dequantizeBlocks, matMulNBits } from "../../../src/graph/ops/four-bit.ts";
import { add, cast, gather, gemm, matMul, mul, reduceSum, reshape, tanh } from "../../../src/graph/ops.ts";
import { widenLate } from "../../../src/graph/passes/held-weights.ts";
import { printGraph } from "../../../src/graph/print.ts";
import { constant, input, topological, type Value } from "../../../src/graph/value.ts";
import { convert, widen } from "../../../src/tensor/convert.ts";
import type { DType } from "../../../src/tensor/dtype.ts";
import type { Params } from "../../../src/tensor/params.ts";
import { dequantizedBlocks, quantizedBlocks } from "../../../src/tensor/quant/matmul-nbits.ts";
import { stream } from "../../../src/tensor/random.ts";
import { float32, type Tensor, tensor } from "../../../src/tensor/tensor.ts";

const [out, from] = [48, 64];

function normals(purpose: string, shape: readonly number[]): Tensor<"float32"> {
  const values = new Float32Array(shape.reduce((a, b) => a * b, 1));
  stream({ seed: 1, purpose }).fillNormal(values, 0, 0.5);
  return float32(shape, values);
}

/** A weight, as the graph reads it and as it is fed. */
interface Held {
  readonly value: Value;
  readonly feeds: Params;
  readonly wide: Tensor<"float32">;
}

function heldAs(kind: "float32" | "float16" | "bfloat16" | "blocks"): Held {
  const exact = normals("weight", [out, from]);
  if (kind === "blocks") {
    const blocks = quantizedBlocks(exact);
    const numbers = (name: string): Value => cast(input(name, "float16", [out, from / 32]), "float32");
    return {
      value: dequantizeBlocks(
        blocksOf([input("levels", "uint8", [out, from / 32, 16]), numbers("scales"), numbers("offsets")]),
      ),
      feeds: new Map<string, Tensor>(Object.entries(blocks)),
      wide: dequantizedBlocks(blocks),
    };
  }
  const stored: Tensor = convert(exact, kind);
  return {
    value: cast(input("weight", kind, [out, from]), "float32"),
    feeds: new Map([["weight", stored]]),
    wide: widen(stored),
  };
}

async function run(outputs: ReadonlyMap<string, Value>, feeds: Params): Promise<Params> {
  const late = widenLate([...outputs.values()]);
  const named = new Map([...outputs.keys()].map((name, i) => [name, late[i] ?? cast(late[0]!, "bool")]));
  const session = await runtime.openSession(encodeOnnx({ outputs: named }));
  const found = await session.run(feeds);
  await session.dispose();
  return found;
}

function farthest(a: Tensor | undefined, b: Tensor | undefined): number {
  const values = (tensor: Tensor | undefined): number[] =>
    Array.from(convert(tensor ?? float32([1], [Number.NaN]), "float64").data);
  const [x, y] = [values(a), values(b)];
  const most = y.reduce((largest, value) => Math.max(largest, Math.abs(value)), 0);
  return x.reduce((far, value, i) => Math.max(far, Math.abs(value - (y[i] ?? Number.NaN)) / most), 0);
}

/** A product, one with a bias, the weight itself, and the gradient of the input through all of them. */
function outputsOf(weight: Value): Map<string, Value> {
  const x = input("x", "float32", ["batch", "sequence", from]);
  const bias = input("bias", "float32", [out]);
  const flat = reshape(x, ["batch*sequence", from]);
  const y = matMul(x, weight, { transB: true, alpha: 0.5 });
  const biased = tanh(gemm(flat, weight, bias));
  const norm = reduceSum(mul(weight, weight), { axes: [1] });
  const scalar = add(reduceSum(mul(y, y)), reduceSum(mul(biased, norm)));
  const [slope = x] = gradients(scalar, [x]);
  return new Map([
    ["y", y],
    ["biased", biased],
    ["norm", norm],
    ["slope", slope],
  ]);
}

const others: Params = new Map([
  ["x", normals("x", [2, 5, from])],
  ["bias", normals("bias", [out])],
]);

describe("weights that are held in fewer bits", () => {
  it.each(["float16", "bfloat16", "blocks"] as const)(
    "%s: products and their gradients are those of the widened weight",
    async (kind) => {
      const held = heldAs(kind);
      const got = await run(outputsOf(held.value), new Map([...others, ...held.feeds]));
      const plain = heldAs("float32");
      const expected = await run(outputsOf(plain.value), new Map([...others, ["weight", held.wide]]));
      for (const name of expected.keys())
        expect(farthest(got.get(name), expected.get(name)), name).toBeLessThan(1e-5);
    },
  );

  it("give the slopes of finite differences through a four-bit product", async () => {
    const { value, feeds } = heldAs("blocks");
    const graph = new Map([...outputsOf(value)].filter(([name]) => name === "y" || name === "slope"));
    const x = others.get("x");
    const values = x?.data instanceof Float32Array ? x.data : new Float32Array();
    const at = async (shift: number, i: number): Promise<number> => {
      const moved = values.slice();
      moved[i] = (moved[i] ?? 0) + shift;
      const moving = new Map([...others, ["x", float32([2, 5, from], moved)] as const, ...feeds]);
      const { y, biased, norm } = Object.fromEntries(await run(outputsOf(value), moving));
      const numbers = (one: Tensor | undefined): number[] => Array.from(one?.data ?? [], Number);
      const squares = numbers(y).reduce((sum, v) => sum + v * v, 0);
      const norms = numbers(norm);
      return numbers(biased).reduce((sum, v, k) => sum + v * (norms[k % out] ?? 0), squares);
    };
    const slope = (await run(graph, new Map([...others, ...feeds]))).get("slope");
    const step = 1e-2;
    for (const i of [0, 37, 200, 639]) {
      const difference = ((await at(step, i)) - (await at(-step, i))) / (2 * step);
      // float32 sums of a few hundred terms, and a curvature of about 10.
      expect(Number(slope?.data[i])).toBeCloseTo(difference, 1);
    }
  });

  it("a product with constant blocks, which ONNX Runtime packs, is the same", async () => {
    const blocks = quantizedBlocks(normals("weight", [out, from]));
    const parts = [blocks.levels, widen(blocks.scales), widen(blocks.offsets)].map(constant);
    const x = input("x", "float32", ["batch", "sequence", from]);
    const got = await run(new Map([["y", matMulNBits(x, blocksOf(parts))]]), others);
    const weight = input("weight", "float32", [out, from]);
    const feeds = new Map([...others, ["weight", dequantizedBlocks(blocks)] as const]);
    const expected = await run(new Map([["y", matMul(x, weight, { transB: true })]]), feeds);
    expect(farthest(got.get("y"), expected.get("y"))).toBeLessThan(1e-5);
  });

  it("are widened at each use, forward and backward, after what they are multiplied with", () => {
    const graph = outputsOf(heldAs("float16").value);
    const count = (outputs: readonly Value[]): number =>
      topological(outputs).filter(({ op }) => op === "Cast").length;
    expect(count([...graph.values()])).toBe(1);
    const late = widenLate([...graph.values()]);
    expect(count(late)).toBeGreaterThanOrEqual(4);
    const text = printGraph(new Map([["y", late[0] ?? input("x", "float32", [])]]));
    expect(text).toContain("After(weight, x)");
  });

  it("are looked up row by row before they are widened", () => {
    const table = cast(input("table", "bfloat16", [100, 8]), "float32");
    const [rows] = widenLate([gather(table, input("ids", "int64", ["batch"]))]);
    expect(rows && topological([rows]).map(({ op }) => op)).toEqual(["Gather", "Cast"]);
  });

  it("large matrices are wide in parts, with the same products", async () => {
    const [rows, width] = [40_000, 512];
    const weight = input("weight", "float16", [rows, width]);
    const x = input("x", "float32", ["batch", width]);
    const y = matMul(x, cast(weight, "float32"), { transB: true });
    const [slope = x] = gradients(reduceSum(mul(y, y)), [x]);
    const outputs = new Map([
      ["y", y],
      ["slope", slope],
    ]);
    const widths = topological(widenLate([...outputs.values()]))
      .filter(({ op }) => op === "Cast")
      .map(({ outputs: [value] }) => Number(value?.shape[0]));
    expect(Math.max(...widths)).toBeLessThan(rows / 2);
    const bits = new Uint16Array(rows * width);
    for (let i = 0; i < bits.length; i++) bits[i] = 0x2c00 + ((i * 7919) & 0x83ff);
    const feeds: Params = new Map<string, Tensor>([
      ["weight", tensor("float16", [rows, width], bits)],
      ["x", normals("large", [3, width])],
    ]);
    const got = await run(outputs, feeds);
    const session = await runtime.openSession(encodeOnnx({ outputs }));
    const whole = await session.run(feeds);
    await session.dispose();
    for (const name of outputs.keys())
      expect(farthest(got.get(name), whole.get(name)), name).toBeLessThan(1e-5);
  });

  it("bfloat16 keeps every number that float32 can spell in it, and other ops refuse it", async () => {
    const dtype: DType = "bfloat16";
    const held = input("held", dtype, [4]);
    const numbers = tensor(dtype, [4], Uint16Array.of(0x0001, 0x7f7f, 0x3f81, 0xc2ff));
    const got = await run(new Map([["wide", cast(held, "float32")]]), new Map([["held", numbers]]));
    expect(got.get("wide")?.data).toEqual(widen(numbers).data);
    expect(() => encodeOnnx({ outputs: new Map([["sum", add(held, held)]]) })).toThrow("Add of bfloat16");
  });
});
