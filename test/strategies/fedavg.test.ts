import { describe, expect, it } from "vitest";
import { fedAvg } from "../../src/strategies/fedavg.ts";
import { context, update, valuesOf, weights } from "./dense.ts";

describe("FedAvg", () => {
  const updates = [update("a", 1, 0, 4), update("b", 3, 8, 0)];
  it("weights clients by their examples", () => {
    expect(valuesOf(fedAvg().aggregate(weights(0, 0), updates, context).state)).toEqual([6, 1]);
  });
  it("weights clients alike if told so, and says so", () => {
    const strategy = fedAvg({ weighting: "uniform" });
    expect(valuesOf(strategy.aggregate(weights(0, 0), updates, context).state)).toEqual([4, 2]);
    expect(strategy.declares.uniformWeights).toBe(true);
  });
  it("leaves out a client without examples", () => {
    expect(
      valuesOf(
        fedAvg().aggregate(weights(0, 0), [update("a", 0, 9, 9), update("b", 2, 1, 2)], context).state,
      ),
    ).toEqual([1, 2]);
  });
  it("refuses a round whose clients have no examples at all", () => {
    expect(() => fedAvg().aggregate(weights(0, 0), [update("a", 0, 1, 1)], context)).toThrow(/numExamples 0/);
  });
  it("is one step of gradient descent on the union if every client takes one step", () => {
    // F_k(w) = (w - c_k)^2 / 2 on n_k examples: w - lr (w - c_k); the union has the mean gradient.
    const [w, lr] = [2, 0.25];
    const centers: [number, number][] = [
      [1, -3],
      [4, 5],
    ]; // [n_k, c_k]
    const trained = centers.map(([n, c], k) => update(`c${k}`, n, w - lr * (w - c)));
    const mean = centers.reduce((sum, [n, c]) => sum + (n / 5) * (w - c), 0);
    expect(valuesOf(fedAvg().aggregate(weights(w), trained, context).state)[0]).toBeCloseTo(w - lr * mean, 6);
  });
});
