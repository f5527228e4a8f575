import { describe, expect, it } from "vitest";
import { constant, cosine, linear, type Schedule } from "../../src/optim/schedules.ts";

const rates = (schedule: Schedule, steps: number): number[] =>
  Array.from({ length: steps }, (_, i) => schedule(i + 1));

describe("schedules", () => {
  it("grow from 0 in even steps during the warm-up, all alike", () => {
    for (const make of [constant, linear, cosine]) {
      const schedule = make({ learningRate: 0.8, warmupSteps: 4, totalSteps: 10 });
      expect(rates(schedule, 5)).toEqual([0, 0.2, 0.4, expect.closeTo(0.6, 15), 0.8]);
    }
  });

  it("stay, fall on a line, or fall on half a cosine", () => {
    const options = { learningRate: 0.8, warmupSteps: 2, totalSteps: 6 };
    expect(rates(constant(options), 8).slice(2)).toEqual([0.8, 0.8, 0.8, 0.8, 0.8, 0.8]);
    expect(rates(linear(options), 8).slice(2)).toEqual([0.8, expect.closeTo(0.6, 15), 0.4, 0.2, 0, 0]);
    const half = Math.SQRT1_2;
    const expected = [0.8, 0.4 * (1 + half), 0.4, 0.4 * (1 - half), 0];
    expect(rates(cosine(options), 7).slice(2)).toEqual(expected.map((rate) => expect.closeTo(rate, 15)));
  });

  it("never turn upwards again after their end", () => {
    for (const make of [linear, cosine]) {
      const schedule = make({ learningRate: 1, totalSteps: 3 });
      expect(schedule(4)).toBeCloseTo(0, 15);
      expect(schedule(100)).toBeGreaterThanOrEqual(0);
    }
  });

  it("refuse a total that leaves no step after the warm-up", () => {
    expect(() => linear({ learningRate: 1, warmupSteps: 3, totalSteps: 3 })).toThrow(
      /exceed warmupSteps \(3\), got 3/,
    );
    expect(() => cosine({ learningRate: 1 })).toThrow(/got undefined/);
  });
});
