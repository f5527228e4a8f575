import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { split } from "../../src/data/splits.ts";

describe("split", () => {
  it("puts each example in one part, with the shares asked for", () => {
    fc.assert(
      fc.property(fc.integer({ min: 3, max: 500 }), fc.nat(9), (count, seed) => {
        const { train, validation, test } = split(count, { validation: 0.1, test: 0.2, seed });
        expect([...train, ...validation, ...test].sort((a, b) => a - b)).toEqual(
          Array.from({ length: count }, (_, i) => i),
        );
        expect(test).toHaveLength(Math.max(1, Math.round(0.2 * count)));
        expect(validation).toHaveLength(Math.max(1, Math.round(0.1 * count)));
        expect(train).toEqual([...train].sort((a, b) => a - b));
      }),
    );
  });

  it("keeps an example for training however few there are", () => {
    expect(split(1, { validation: 0.4, test: 0.5, seed: 1 })).toEqual({
      train: [0],
      validation: [],
      test: [],
    });
    expect(split(2, { test: 0.5, seed: 1 }).train).toHaveLength(1);
    expect(split(0, { test: 0.5, seed: 1 })).toEqual({ train: [], validation: [], test: [] });
  });

  it("is the same for the same seed and client, and another for others", () => {
    const options = { test: 0.3, seed: 4, client: "a" };
    expect(split(50, options)).toEqual(split(50, options));
    expect(split(50, options)).not.toEqual(split(50, { ...options, client: "b" }));
    expect(split(50, options)).not.toEqual(split(50, { ...options, seed: 5 }));
  });

  it("refuses shares that leave nothing to train on", () => {
    expect(() => split(9, { test: 1, seed: 1 })).toThrow("split: test 1, expected a share from 0 to below 1");
    expect(() => split(9, { test: 0.5, validation: 0.5, seed: 1 })).toThrow(
      "are 1 of all, expected less than 1",
    );
  });
});
