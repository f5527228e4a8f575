import { expect, it } from "vitest";
import { adagrad } from "../../src/optim/adagrad.ts";
import { apart, byHand, follow, ROUNDING } from "./follow.ts";

it("adagrad divides by the root of all squared gradients so far", async () => {
  const expected = byHand([7], () => {
    let sum = 0;
    return (p, g) => {
      sum += g * g;
      return p - (0.2 * g) / (Math.sqrt(sum) + 1e-10);
    };
  });
  expect(apart(await follow(adagrad({ learningRate: 0.2 }), [7]), expected)).toBeLessThan(ROUNDING);
});

it("adagrad lowers its rate by step, starts its sum where it is told, and decays weights", async () => {
  const expected = byHand([2, 3], () => {
    let sum = 0.1;
    return (p, g, t) => {
      const decayed = g + 0.05 * p;
      sum += decayed * decayed;
      return p - ((0.2 / (1 + (t - 1) * 0.1)) * decayed) / (Math.sqrt(sum) + 1e-6);
    };
  });
  const optimizer = adagrad({
    learningRate: 0.2,
    learningRateDecay: 0.1,
    weightDecay: 0.05,
    initialAccumulator: 0.1,
    epsilon: 1e-6,
  });
  expect(apart(await follow(optimizer, [2, 3]), expected)).toBeLessThan(ROUNDING);
});
