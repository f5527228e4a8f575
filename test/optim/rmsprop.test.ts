import { expect, it } from "vitest";
import { rmsprop } from "../../src/optim/rmsprop.ts";
import { apart, byHand, follow, ROUNDING } from "./follow.ts";

it("rmsprop divides by a running root mean square", async () => {
  const expected = byHand([2, 3], () => {
    let square = 0;
    return (p, g) => {
      square = 0.9 * square + 0.1 * g * g;
      return p - (0.02 * g) / (Math.sqrt(square) + 1e-8);
    };
  });
  expect(apart(await follow(rmsprop({ learningRate: 0.02, alpha: 0.9 }), [2, 3]), expected)).toBeLessThan(
    ROUNDING,
  );
});

it("rmsprop subtracts the squared mean when centered, adds up with momentum, and decays weights", async () => {
  const expected = byHand([4], () => {
    let [square, mean, buffer] = [0, 0, 0];
    return (p, g) => {
      const decayed = g + 0.05 * p;
      square = 0.9 * square + 0.1 * decayed * decayed;
      mean = 0.9 * mean + 0.1 * decayed;
      buffer = 0.8 * buffer + decayed / (Math.sqrt(square - mean * mean) + 1e-3);
      return p - 0.02 * buffer;
    };
  });
  const optimizer = rmsprop({
    learningRate: 0.02,
    alpha: 0.9,
    epsilon: 1e-3,
    momentum: 0.8,
    centered: true,
    weightDecay: 0.05,
  });
  expect(apart(await follow(optimizer, [4]), expected)).toBeLessThan(ROUNDING);
});
