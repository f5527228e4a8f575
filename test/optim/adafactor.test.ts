import { describe, expect, it } from "vitest";
import { adafactor } from "../../src/optim/adafactor.ts";
import { apart, follow, gradientsOf, ROUNDING, startOf } from "./follow.ts";

const mean = (values: readonly number[]): number => values.reduce((a, b) => a + b, 0) / values.length;
const rms = (values: readonly number[]): number => Math.sqrt(mean(values.map((x) => x * x)));

interface Rule {
  readonly rate: (t: number) => number;
  readonly scaled: boolean;
  readonly threshold: number;
  readonly beta1: number;
  readonly decay: number;
}

/** Algorithms 4 and 5 of the paper for a matrix [rows, columns], the second moment written out as its rank-1 estimate. */
function matrix([rows, columns]: readonly [number, number], rule: Rule): number[][] {
  const shape = [rows, columns];
  let p = startOf(shape);
  let [row, column] = [new Array<number>(rows).fill(0), new Array<number>(columns).fill(0)];
  let momentum = p.map(() => 0);
  return gradientsOf(shape).map((g, step) => {
    const t = step + 1;
    const beta2 = 1 - t ** -0.8;
    const square = g.map((x) => x * x + 1e-30);
    const at = (i: number, j: number): number => square[i * columns + j] ?? Number.NaN;
    row = row.map((old, i) => beta2 * old + (1 - beta2) * mean(column.map((_, j) => at(i, j))));
    column = column.map((old, j) => beta2 * old + (1 - beta2) * mean(row.map((_, i) => at(i, j))));
    const direction = g.map((x, k) => {
      const second =
        ((row[Math.floor(k / columns)] ?? Number.NaN) * (column[k % columns] ?? Number.NaN)) / mean(row);
      return x / Math.sqrt(second);
    });
    const clip = Math.max(1, rms(direction) / rule.threshold);
    const size = rule.rate(t) * (rule.scaled ? Math.max(1e-3, rms(p)) : 1);
    momentum = direction.map(
      (d, k) => rule.beta1 * (momentum[k] ?? 0) + ((1 - rule.beta1) * size * d) / clip,
    );
    p = p.map((x, k) => x * (1 - rule.decay * size) - (momentum[k] ?? Number.NaN));
    return p;
  });
}

describe("adafactor", () => {
  it("keeps row and column means of a matrix only", () => {
    const { state } = adafactor();
    expect(Object.values(state([3, 4])).map(({ shape }) => shape)).toEqual([[3], [4]]);
    expect(Object.values(state([5])).map(({ shape }) => shape)).toEqual([[5]]);
  });

  it("steps by its rate, its clipped direction and the size of the parameter", async () => {
    const rule = { rate: () => 0.05, scaled: true, threshold: 1, beta1: 0, decay: 0 };
    const got = await follow(adafactor({ learningRate: 0.05 }), [3, 4]);
    expect(apart(got, matrix([3, 4], rule))).toBeLessThan(ROUNDING);
  });

  it("adds a first moment, a smaller threshold and decay", async () => {
    const rule = { rate: () => 0.05, scaled: false, threshold: 0.5, beta1: 0.9, decay: 0.01 };
    const optimizer = adafactor({
      learningRate: 0.05,
      scaleParameter: false,
      clipThreshold: 0.5,
      beta1: 0.9,
      weightDecay: 0.01,
    });
    expect(apart(await follow(optimizer, [2, 5]), matrix([2, 5], rule))).toBeLessThan(ROUNDING);
  });

  it("takes its rate from the step with relativeStep, with and without a warm-up", async () => {
    const rule = { scaled: true, threshold: 1, beta1: 0, decay: 0 };
    for (const warmupInit of [false, true]) {
      const rate = (t: number): number => Math.min(warmupInit ? 1e-6 * t : 1e-2, 1 / Math.sqrt(t));
      const got = await follow(adafactor({ relativeStep: true, warmupInit }), [3, 2]);
      expect(apart(got, matrix([3, 2], { ...rule, rate }))).toBeLessThan(ROUNDING);
    }
  });

  it("keeps the whole second moment of a vector", async () => {
    let p = startOf([5]);
    let v = p.map(() => 0);
    const expected = gradientsOf([5]).map((g, step) => {
      const beta2 = 1 - (step + 1) ** -0.8;
      v = v.map((old, i) => beta2 * old + (1 - beta2) * ((g[i] ?? Number.NaN) ** 2 + 1e-30));
      const direction = g.map((x, i) => x / Math.sqrt(v[i] ?? Number.NaN));
      const size = (0.05 * Math.max(1e-3, rms(p))) / Math.max(1, rms(direction));
      p = p.map((x, i) => x - size * (direction[i] ?? Number.NaN));
      return p;
    });
    expect(apart(await follow(adafactor({ learningRate: 0.05 }), [5]), expected)).toBeLessThan(ROUNDING);
  });
});
