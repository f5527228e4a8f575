import { describe, expect, it } from "vitest";
import { runtime } from "#ort";
import { gradients } from "../../../src/graph/gradients.ts";
import { encodeOnnx, encodeWithConstants } from "../../../src/graph/onnx.ts";
import { blocksOf, dequantizeBlocks } from "../../../src/graph/ops/blocks.ts";
import { add, cast, gather, gemm, matMul, mul, reduceSum, reshape, tanh } from "../../../src/graph/ops.ts";
import { packedBlocks } from "../../../src/graph/packed-blocks.ts";
import { widenLate } from "../../../src/graph/passes/held-weights.ts";
import { printGraph } from "../../../src/graph/print.ts";
import { input, topological, type Value } from "../../../src/graph/value.ts";
import { convert, widen } from "../../../src/tensor/convert.ts";
import type { DType } from "../../../src/tensor/dtype.ts";
import type { Params } from "../../../src/tensor/params.ts";
import { encodeBlocks } from "../../../src/tensor/quant/blocks.ts";
import {
  type BlockMatrix,
  dequantizedBlocks,
  quantizedBlocks,
  repackedBlocks,
} from "../../../src/tensor/quant/matmul-nbits.ts";
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

/** Blocks as graph inputs and as they are fed. */
function heldBlocks(blocks: BlockMatrix): Held {
  const parts = [blocks.levels, blocks.scales, ...(blocks.offsets ? [blocks.offsets] : [])];
  const names = ["levels", "scales", "offsets"];
  const inputs = parts.map(({ dtype, shape }, i) => input(names[i] ?? "", dtype, shape));
  return {
    value: dequantizeBlocks(
      blocksOf(inputs.map((part) => (part.dtype === "float16" ? cast(part, "float32") : part))),
    ),
    feeds: new Map(parts.map((part, i) => [names[i] ?? "", part])),
    wide: dequantizedBlocks(blocks),
  };
}

function heldAs(kind: "float32" | "float16" | "bfloat16" | "blocks" | "Q8_0"): Held {
  const exact = normals("weight", [out, from]);
  if (kind === "blocks") return heldBlocks(quantizedBlocks(exact));
  if (kind === "Q8_0") return heldBlocks(repackedBlocks(kind, encodeBlocks(kind, exact.data), [out, from]));
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
  it.each(["float16", "bfloat16", "blocks", "Q8_0"] as const)(
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

  it.each(["Q4_0", "Q4_1", "Q8_0", "rounded"] as const)(
    "products with packed blocks of %s are those in float64, up to eight bits of a row where these are asked for",
    async (kind) => {
      const [rows, width] = [37, 96];
      const exact = normals("packed", [rows, width]);
      const blocks =
        kind === "rounded"
          ? quantizedBlocks(exact)
          : repackedBlocks(kind, encodeBlocks(kind, exact.data), [rows, width]);
      const { value, feeds, wide } = heldBlocks(blocks);
      const x = normals("rows", [2, 5, width]);
      const bias = normals("bias", [rows]);
      const given = input("x", "float32", ["batch", "sequence", width]);
      const flat = reshape(given, ["batch*sequence", width]);
      const outputs = new Map([
        ["y", matMul(given, value, { transB: true, alpha: 0.5 })],
        ["biased", gemm(flat, value, input("bias", "float32", [rows]))],
      ]);
      // What is left of a number beside the level that the kernel has as zero.
      const middle = (row: number, k: number): number => {
        const block = (row * width + k) >> 5;
        const [scale, offset] = [blocks.scales, blocks.offsets].map((part) =>
          part ? (widen(part).data[block] ?? Number.NaN) : 0,
        );
        return blocks.offsets ? 8 * (scale ?? 0) - (offset ?? 0) : 0;
      };
      for (const activations of ["float32", "int8"] as const) {
        const late = widenLate([...outputs.values()], { blocks: feeds, activations });
        const named = new Map([...outputs.keys()].map((name, i) => [name, late[i] ?? given]));
        const { graph, constants } = encodeWithConstants({ outputs: named });
        const session = await runtime.openSession(graph, { constants });
        const packed = kind !== "Q8_0" || activations === "int8";
        expect(session.inputNames.includes("levels")).toBe(!packed);
        const got = await session.run(new Map([...feeds, ["x", x] as const, ["bias", bias] as const]));
        await session.dispose();
        for (let r = 0; r < 10; r++) {
          const row = x.data.subarray(r * width, (r + 1) * width);
          for (let c = 0; c < rows; c++) {
            const [w, m] = [(k: number) => Number(wide.data[c * width + k]), (k: number) => middle(c, k)];
            let product = 0;
            let bound = 0;
            for (let k = 0; k < width; k++) {
              const block = row.subarray(k & ~31, (k | 31) + 1);
              // Half a step of 127 from 0 to the largest number of the block.
              const step = block.reduce((most, v) => Math.max(most, Math.abs(v)), 0) / 127;
              product += Number(row[k]) * w(k);
              bound += 0.5001 * step * Math.abs(w(k) - m(k));
            }
            const far = 1e-5 + (activations === "int8" ? bound : 0);
            const i = r * rows + c;
            expect(Math.abs(Number(got.get("y")?.data[i]) - 0.5 * product)).toBeLessThan(far);
            const biased = product + Number(bias.data[c]);
            expect(Math.abs(Number(got.get("biased")?.data[i]) - biased)).toBeLessThan(far);
          }
        }
      }
    },
  );

  it("blocks whose zero is the middle level are packed without a rest", () => {
    const rest = (type: "Q4_0" | "Q4_1"): Tensor | undefined => {
      const bytes = encodeBlocks(type, normals("weight", [out, from]).data);
      const { levels, scales, offsets } = repackedBlocks(type, bytes, [out, from]);
      return packedBlocks(levels, scales, offsets).rest;
    };
    expect(rest("Q4_0")).toBeUndefined();
    expect(rest("Q4_1")?.shape).toEqual([from / 32, out]);
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

  it("blocks of eight bits are looked up row by row before they are widened", async () => {
    const { value, feeds, wide } = heldAs("Q8_0");
    const ids = input("ids", "int64", ["batch", "sequence"]);
    const outputs = new Map([["rows", gather(value, ids)]]);
    const chosen = [3, 0, 47, 3, 12, 1];
    const indices = tensor("int64", [2, 3], BigInt64Array.from(chosen, BigInt));
    const [rows = ids] = widenLate([...outputs.values()]);
    expect(topological([rows]).map(({ op }) => op)).not.toContain("After");
    const got = (await run(outputs, new Map([...feeds, ["ids", indices] as const]))).get("rows");
    expect(got?.shape).toEqual([2, 3, from]);
    expect(Array.from(got?.data ?? [], Number)).toEqual(
      chosen.flatMap((row) => Array.from(wide.data.subarray(row * from, (row + 1) * from))),
    );
  });

  it("a large matrix in blocks of eight bits is wide in parts too", () => {
    const [rows, width] = [40_000, 512];
    const levels = input("levels", "uint8", [rows, width / 32, 32]);
    const scales = cast(input("scales", "float16", [rows, width / 32]), "float32");
    const x = input("x", "float32", ["batch", width]);
    const y = matMul(x, dequantizeBlocks({ levels, scales }), { transB: true });
    const [slope = x] = gradients(reduceSum(mul(y, y)), [x]);
    const widths = topological(widenLate([y, slope]))
      .filter(({ op }) => op === "DequantizeBlocks")
      .map(({ outputs: [value] }) => Number(value?.shape[0]));
    expect(widths.length).toBeGreaterThan(4);
    expect(Math.max(...widths)).toBeLessThan(rows / 2);
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
