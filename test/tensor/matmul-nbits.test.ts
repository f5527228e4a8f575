import { describe, expect, it } from "vitest";
import { convert, widen } from "../../src/tensor/convert.ts";
import { decodeBlocks, encodeBlocks } from "../../src/tensor/quant/blocks.ts";
import {
  dequantizedBlocks,
  fitsBlocks,
  quantizedBlocks,
  repackedBlocks,
} from "../../src/tensor/quant/matmul-nbits.ts";
import { stream } from "../../src/tensor/random.ts";
import { float32, type Tensor } from "../../src/tensor/tensor.ts";

const shape = [5, 96];

function normals(seed: number): Float32Array {
  const values = new Float32Array(5 * 96);
  stream({ seed, purpose: "values" }).fillNormal(values, 0.1, 0.3);
  return values;
}

describe("blocks", () => {
  it.each(["Q4_0", "Q4_1"] as const)("hold the numbers of %s as they are", (type) => {
    const values = normals(3);
    // Equal numbers, which have no step, and zeros.
    values.fill(0.25, 32, 64);
    values.fill(0, 96, 128);
    const bytes = encodeBlocks(type, values);
    const blocks = repackedBlocks(type, bytes, shape);
    expect([blocks.levels.shape, blocks.scales.shape, blocks.offsets?.shape]).toEqual([
      [5, 3, 16],
      [5, 3],
      [5, 3],
    ]);
    const unsigned = (numbers: Float32Array): number[] => Array.from(numbers, (value) => value + 0);
    expect(unsigned(dequantizedBlocks(blocks).data)).toEqual(unsigned(decodeBlocks(type, bytes)));
    expect(widen(blocks.scales).data.every((scale) => scale !== 0)).toBe(true);
  });

  it("are off by half a step of what float16 makes of scale and offset, and keep equal numbers", () => {
    const values = normals(4);
    values.fill(-0.75, 64, 96);
    const blocks = quantizedBlocks(float32(shape, values));
    const got = dequantizedBlocks(blocks).data;
    const scales = widen(blocks.scales).data;
    got.forEach((value, i) => {
      // The ends of a block move with its rounded scale and offset: by 2^-11 of numbers below 2 and of 15 steps.
      const step = i >= 64 && i < 96 ? 0 : Math.abs(scales[i >> 5] ?? Number.NaN);
      expect(Math.abs(value - (values[i] ?? Number.NaN))).toBeLessThanOrEqual(
        step * (0.5 + 15 / 2048) + 2 / 2048,
      );
    });
    expect([...got.subarray(64, 96)]).toEqual(new Array(32).fill(-0.75));
  });

  it("are the same from 16-bit floats as from these widened, over many rows", () => {
    const values = new Float32Array(20 * 65536);
    stream({ seed: 5, purpose: "values" }).fillNormal(values, 0, 0.02);
    const half = convert(float32([20, 65536], values), "bfloat16");
    const [got, expected] = [quantizedBlocks(half), quantizedBlocks(widen(half))];
    const bytes = (part: Tensor | undefined): Buffer => Buffer.from(part?.data.buffer ?? new ArrayBuffer(0));
    for (const part of ["levels", "scales", "offsets"] as const) {
      expect(bytes(expected[part]).length).toBeGreaterThan(0);
      expect(Buffer.compare(bytes(got[part]), bytes(expected[part]))).toBe(0);
    }
  });

  it("of eight bits hold the numbers of Q8_0 as they are", () => {
    const values = normals(6);
    values.fill(0, 96, 128);
    const bytes = encodeBlocks("Q8_0", values);
    const blocks = repackedBlocks("Q8_0", bytes, shape);
    expect([blocks.levels.shape, blocks.scales.shape, blocks.offsets]).toEqual([
      [5, 3, 32],
      [5, 3],
      undefined,
    ]);
    const unsigned = (numbers: Float32Array): number[] => Array.from(numbers, (value) => value + 0);
    expect(unsigned(dequantizedBlocks(blocks).data)).toEqual(unsigned(decodeBlocks("Q8_0", bytes)));
  });

  it("hold matrices alone whose rows are whole blocks", () => {
    expect([[4, 64], [4, 48], [64], [2, 3, 32]].map(fitsBlocks)).toEqual([true, false, false, false]);
    expect(() => quantizedBlocks(float32([2, 48], new Float32Array(96)))).toThrow("whole blocks of 32");
    expect(() => repackedBlocks("Q4_0", new Uint8Array(17), [1, 32])).toThrow("17 bytes of Q4_0");
  });
});
