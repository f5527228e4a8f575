import { describe, expect, it } from "vitest";
import { fedAvg } from "../../src/strategies/fedavg.ts";
import { clipped } from "../../src/wrappers/clipped.ts";
import { context, update, valuesOf, weights } from "../strategies/dense.ts";

describe("clipped", () => {
  it("shortens a client's change to the norm and leaves smaller ones alone", () => {
    const strategy = clipped(fedAvg({ weighting: "uniform" }), { norm: 5 });
    const { state } = strategy.aggregate(
      weights(1, 1),
      [update("a", 1, 7, 9), update("b", 1, 4, 5)],
      context,
    );
    // From (1, 1): (6, 8) becomes (3, 4), (3, 4) stays.
    expect(valuesOf(state)).toEqual([4, 5]);
  });
  it("measures the change from what the client had received, where that is an older model", () => {
    const strategy = clipped(fedAvg(), { norm: 1 });
    const late = { ...update("a", 1, 10, 12), received: weights(10, 10) };
    expect(valuesOf(strategy.aggregate(weights(0, 0), [late], context).state)).toEqual([10, 11]);
  });
  it("no longer declares a weighted sum", () => {
    expect(clipped(fedAvg(), { norm: 1 }).declares.weightedSum).toBe(false);
  });
});
