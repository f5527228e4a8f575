import { readFileSync } from "node:fs";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { openFolder } from "../../src/formats/files.node.ts";
import { openSafetensors, readTensors } from "../../src/formats/safetensors.ts";
import { type BlockType, blockFormats, decodeBlocks, encodeBlocks } from "../../src/tensor/quant/blocks.ts";
import { stream } from "../../src/tensor/random.ts";
import { shared } from "../shared.ts";

// Written by the reference library for Python: blocks with random bytes, and what they decode to.
const recorded: { readonly values: Readonly<Record<string, string>> } = JSON.parse(
  readFileSync(new URL("../formats/gguf-all-types.json", import.meta.url), "utf8"),
);

const encoded: readonly BlockType[] = ["Q4_0", "Q4_1", "Q8_0"];

function normals(seed: number, length: number, deviation: number): Float32Array {
  const values = new Float32Array(length);
  stream({ seed, purpose: "values" }).fillNormal(values, 0, deviation);
  return values;
}

describe("encoding", () => {
  it.each([
    ["Q4_0", 16], // sixteen levels over twice the largest magnitude, of which one side lacks a level
    ["Q4_1", 15],
    ["Q8_0", 254],
  ] as const)(
    "%s: a value is off by half a level, or a whole one at the end that has none",
    (type, levels) => {
      fc.assert(
        fc.property(fc.nat(), fc.double({ min: 0.1, max: 1e3, noNaN: true }), (seed, deviation) => {
          const values = normals(seed, 96, deviation);
          const decoded = decodeBlocks(type, encodeBlocks(type, values));
          for (let block = 0; block < 96; block += 32) {
            const part = values.subarray(block, block + 32);
            const most = Math.max(...part.map(Math.abs));
            const spread = type === "Q4_1" ? Math.max(...part) - Math.min(...part) : 2 * most;
            const step = spread / levels;
            // Scale and minimum are rounded to float16: by 2^-11 of themselves, as long as they are normal numbers.
            const allowed = (type === "Q4_0" ? step : step / 2) * 1.01 + most * 2 ** -9;
            part.forEach((value, i) => {
              expect(Math.abs(value - (decoded[block + i] ?? Number.NaN))).toBeLessThanOrEqual(allowed);
            });
          }
        }),
        { numRuns: 50 },
      );
    },
  );

  it.each(encoded)("%s: zeros and equal values come back", (type) => {
    const zeros = decodeBlocks(type, encodeBlocks(type, new Float32Array(64)));
    expect(zeros.map((value) => value + 0)).toEqual(new Float32Array(64)); // some are -0
    // Its scale is a power of two: 127 levels of 2^-9.
    const constant = new Float32Array(32).fill(type === "Q8_0" ? -127 / 512 : -0.25);
    expect(decodeBlocks(type, encodeBlocks(type, constant))).toEqual(constant);
  });

  it("plain floats round to nearest even, as elsewhere", () => {
    const values = Float32Array.of(1 + 2 ** -11, 1 + 3 * 2 ** -11, 65520, 2 ** -25);
    expect(decodeBlocks("F16", encodeBlocks("F16", values))).toEqual(
      Float32Array.of(1, 1 + 2 ** -9, Number.POSITIVE_INFINITY, 0),
    );
    expect(decodeBlocks("F32", encodeBlocks("F32", values))).toEqual(values);
  });

  it("refuses values that fill no whole block, and formats that are only read", () => {
    expect(() => encodeBlocks("Q8_0", new Float32Array(33))).toThrow(/33 values are no whole blocks of 32/);
    expect(() => encodeBlocks("Q4_K", new Float32Array(256))).toThrow(/Q4_K is read, not written/);
    expect(() => decodeBlocks("Q8_0", new Uint8Array(35), new Float32Array(32))).toThrow(/35 bytes of Q8_0/);
    expect(() => decodeBlocks("Q8_0", new Uint8Array(17), new Float32Array(16))).toThrow(RangeError);
  });
});

it("every format that is read has recorded values, but for sums of activations", () => {
  const names = Object.keys(recorded.values).map((name) => name.replace(/^\w+\./, ""));
  expect(Object.keys(blockFormats).filter((name) => !names.includes(name))).toEqual(["Q8_K"]);
});

it("Q8_K: a float32 scale times signed bytes", () => {
  const block = new Uint8Array(292);
  new DataView(block.buffer).setFloat32(0, 0.1, true);
  block.set([1, 255, 128], 4);
  block.fill(77, 260);
  const values = decodeBlocks("Q8_K", block);
  expect(values.slice(0, 4)).toEqual(Float32Array.of(0.1, -0.1, Math.fround(0.1) * -128, 0));
});

describe.skipIf(shared === undefined)("recorded matrices (skipped without the reference data)", () => {
  it.each([...encoded, "Q4_K", "Q6_K"] as const)(
    "%s: bytes and values are equal bit for bit",
    async (type) => {
      const folder = await openFolder(`${shared}/goldens/quant`);
      const source = folder.get("blocks.safetensors");
      if (source === undefined) throw new Error("no blocks.safetensors");
      const params = await readTensors(await openSafetensors(source));
      const floats = (name: string) => Float32Array.from(params.get(name)?.data ?? [], Number);
      const bytes = Uint8Array.from(params.get(`${type}.blocks`)?.data ?? [], Number);
      expect(decodeBlocks(type, bytes)).toEqual(floats(`${type}.values`));
      if (encoded.some((each) => each === type)) expect(encodeBlocks(type, floats("matrix"))).toEqual(bytes);
    },
  );
});
