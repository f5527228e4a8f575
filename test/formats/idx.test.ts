import { describe, expect, it } from "vitest";
import { TributaryError } from "../../src/errors.ts";
import { parseIdx } from "../../src/formats/idx.ts";
import { mutations } from "./mutate.ts";

describe("parseIdx", () => {
  it("reads images as the MNIST family has them", () => {
    const bytes = Uint8Array.of(0, 0, 8, 3, 0, 0, 0, 2, 0, 0, 0, 1, 0, 0, 0, 3, 1, 2, 3, 4, 5, 6);
    expect(parseIdx(bytes)).toEqual({
      dtype: "uint8",
      shape: [2, 1, 3],
      data: Uint8Array.of(1, 2, 3, 4, 5, 6),
    });
  });

  it("turns big-endian numbers around", () => {
    const bytes = Uint8Array.of(0, 0, 0x0d, 1, 0, 0, 0, 2, 0x3f, 0x80, 0, 0, 0xc0, 0, 0, 0);
    expect(parseIdx(bytes).data).toEqual(Float32Array.of(1, -2));
    const whole = Uint8Array.of(0, 0, 0x0c, 1, 0, 0, 0, 1, 0, 0, 1, 2);
    expect(parseIdx(whole).data).toEqual(Int32Array.of(258));
  });

  it("reads or refuses by name what is damaged", () => {
    const sound = Uint8Array.of(0, 0, 8, 3, 0, 0, 0, 2, 0, 0, 0, 1, 0, 0, 0, 3, 1, 2, 3, 4, 5, 6);
    for (const bytes of mutations(sound, { seed: 7, times: 2000 })) {
      try {
        parseIdx(bytes);
      } catch (error) {
        if (!(error instanceof TributaryError && error.code === "idx-invalid")) throw error;
      }
    }
    expect(() => parseIdx(Uint8Array.of(1, 2), "labels")).toThrow(/^labels: got other first bytes/);
  });
});
