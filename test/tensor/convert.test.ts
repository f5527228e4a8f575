import { readFileSync } from "node:fs";
import { describe, expect, it } from "vitest";
import { convert, widen } from "../../src/tensor/convert.ts";
import type { DType, HostArray } from "../../src/tensor/dtype.ts";
import { tensor } from "../../src/tensor/tensor.ts";

// Conversions by PyTorch 2.13 (float64 to float16: NumPy).
interface Recorded {
  float32Bits: number[];
  float16: number[];
  bfloat16: number[];
  float8e4m3: number[];
  float8e5m2: number[];
  float8e4m3Values: (number | string)[];
  float8e5m2Values: (number | string)[];
  float64: number[];
  float64AsFloat16: number[];
}
const recorded: Recorded = JSON.parse(readFileSync(new URL("storage-floats.json", import.meta.url), "utf8"));
const values = new Float32Array(Uint32Array.from(recorded.float32Bits).buffer);
const source = tensor("float32", [values.length], values);

describe("storage floats", () => {
  it.each(["float16", "bfloat16", "float8e4m3", "float8e5m2"] as const)(
    "float32 to %s rounds as PyTorch does",
    (dtype) => {
      // PyTorch hides an infinity as 448 in float8e4m3; here it becomes NaN.
      const expected = recorded[dtype].map((pattern, i) =>
        dtype === "float8e4m3" && Math.abs(values[i] ?? 0) === Infinity ? pattern | 1 : pattern,
      );
      expect(Array.from(convert(source, dtype).data)).toEqual(expected);
    },
  );

  it("float64 to float16 rounds once", () => {
    const doubles = tensor("float64", [recorded.float64.length], Float64Array.from(recorded.float64));
    expect(Array.from(convert(doubles, "float16").data)).toEqual(recorded.float64AsFloat16);
  });

  it.each(["float8e4m3", "float8e5m2"] as const)("every pattern of %s widens as in PyTorch", (dtype) => {
    const all = tensor(
      dtype,
      [256],
      Uint8Array.from({ length: 256 }, (_, i) => i),
    );
    const expected = recorded[`${dtype}Values`].map((v) =>
      v === "nan" ? Number.NaN : v === "inf" ? Infinity : v === "-inf" ? -Infinity : Number(v),
    );
    expect(Array.from(widen(all).data)).toEqual(expected);
  });

  it.each(["float16", "bfloat16"] as const)(
    "every pattern of %s that is not NaN survives widening and narrowing",
    (dtype) => {
      const patterns = Uint16Array.from({ length: 65536 }, (_, i) => i);
      const wide = widen(tensor(dtype, [65536], patterns));
      const back = convert(wide, dtype).data;
      const infinity = dtype === "float16" ? 0x7c00 : 0x7f80;
      let nans = 0;
      for (let i = 0; i < 65536; i++) {
        if ((i & 0x7fff) > infinity) {
          nans++;
          if (!Number.isNaN(wide.data[i])) expect.fail(`pattern ${i} widened to ${wide.data[i]}`);
        } else if (back[i] !== i) expect.fail(`pattern ${i} came back as ${back[i]}`);
      }
      expect(nans).toBe(dtype === "float16" ? 2046 : 254);
    },
  );

  it("float16 patterns have the values of the IEEE formula", () => {
    const wide = widen(tensor("float16", [4], Uint16Array.of(0x0001, 0x03ff, 0x3555, 0xfbff))).data;
    expect(Array.from(wide)).toEqual([2 ** -24, 1023 * 2 ** -24, (1 + 0x155 / 1024) / 4, -65504]);
  });
});

describe("convert", () => {
  it("returns a tensor of the wanted type as it is", () => {
    expect(widen(source)).toBe(source);
  });

  it("carries integers exactly and refuses what an integer type cannot hold", () => {
    const cases: [DType, HostArray, DType][] = [
      ["float32", Float32Array.of(1.5), "int32"],
      ["float32", Float32Array.of(300), "uint8"],
      ["float32", Float32Array.of(Number.NaN), "int64"],
      ["int64", BigInt64Array.of(2n ** 40n), "int32"],
      ["int64", BigInt64Array.of(-1n), "uint64"],
      ["int32", Int32Array.of(2), "bool"],
    ];
    for (const [from, data, to] of cases) {
      expect(() => convert(tensor(from, [1], data as never), to)).toThrow(/convert: element 0 is/);
    }
    const big = tensor("int64", [2], BigInt64Array.of(-(2n ** 40n), 7n));
    expect(Array.from(convert(big, "float64").data)).toEqual([-(2 ** 40), 7]);
    expect(Array.from(convert(convert(big, "float64"), "int64").data)).toEqual([-(2n ** 40n), 7n]);
  });
});
