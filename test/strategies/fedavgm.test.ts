import { describe, expect, it } from "vitest";
import { fedAvg } from "../../src/strategies/fedavg.ts";
import { fedAvgM } from "../../src/strategies/fedavgm.ts";
import { context, update, valuesOf, weights } from "./dense.ts";

describe("FedAvgM", () => {
  it("keeps the decaying sum of the rounds' moves and walks along it", () => {
    const strategy = fedAvgM({ beta: 0.9, serverLearningRate: 0.5 });
    let state = strategy.init(weights(0), []);
    const seen: number[][] = [];
    for (let round = 1; round <= 3; round++) {
      const [x = 0] = valuesOf(state.params);
      const updates = [update("a", 1, x + 4), update("b", 3, x)]; // the mean moves by 1
      state = strategy.aggregate(state, updates, { ...context, round }).state;
      seen.push([...valuesOf(state.momentum), ...valuesOf(state.params)]);
    }
    // m: 1, 0.9 + 1, 0.81 + 0.9 + 1; x: half of their sums.
    const expected = [
      [1, 0.5],
      [1.9, 1.45],
      [2.71, 2.805],
    ];
    expected.forEach((row, t) => {
      row.forEach((value, i) => {
        expect(seen[t]?.[i]).toBeCloseTo(value, 6);
      });
    });
  });
  it("is FedAvg without momentum, to rounding", () => {
    const strategy = fedAvgM({ beta: 0 });
    const updates = [update("a", 1, 0.25, 4), update("b", 3, 8, 1)];
    const x = weights(0.5, 3);
    const { params } = strategy.aggregate(strategy.init(x, []), updates, context).state;
    expect(valuesOf(params)).toEqual(valuesOf(fedAvg().aggregate(x, updates, context).state));
  });
  it("refuses a momentum that never decays", () => {
    expect(() => fedAvgM({ beta: 1 })).toThrow(/beta is 1, expected/);
  });
});
