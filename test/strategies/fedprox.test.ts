import { describe, expect, it } from "vitest";
import { gradients } from "../../src/graph/gradients.ts";
import { input } from "../../src/graph/value.ts";
import { fedProx } from "../../src/strategies/fedprox.ts";
import { array64, evaluate } from "../graph/evaluator.ts";

describe("FedProx", () => {
  it("adds mu (w - w_t) to the gradient", () => {
    const w = input("w", "float64", [2, 3]);
    const start = input("start", "float64", [2, 3]);
    const penalty = fedProx({ mu: 0.3 }).local?.penalty?.(new Map([["x", w]]), new Map([["x", start]]));
    if (!penalty) throw new Error("no penalty");
    const at = [1, -2, 3, 0.5, 0, 4];
    const anchor = [0, 1, 3, -1, 2, 2];
    const feeds = new Map([
      ["w", array64([2, 3], at)],
      ["start", array64([2, 3], anchor)],
    ]);
    const [value, pull] = evaluate([penalty, ...gradients(penalty, [w])], [w, start], feeds);
    const squares = at.reduce((sum, x, i) => sum + (x - (anchor[i] ?? 0)) ** 2, 0);
    expect(value?.data[0]).toBeCloseTo(0.15 * squares, 12);
    at.forEach((x, i) => {
      expect(pull?.data[i]).toBeCloseTo(0.3 * (x - (anchor[i] ?? 0)), 12);
    });
  });
  it("is FedAvg at mu = 0: it adds nothing to the graph", () => {
    expect(fedProx({ mu: 0 }).local).toEqual({});
  });
  it("refuses a negative mu", () => {
    expect(() => fedProx({ mu: -1 })).toThrow(/mu is -1/);
  });
});
