import { describe, expect, it } from "vitest";
import { sgd } from "../../src/optim/sgd.ts";
import { apart, byHand, follow, ROUNDING } from "./follow.ts";

const shape = [3, 2];

describe("sgd", () => {
  it("steps against the gradient, and keeps no state without momentum", async () => {
    expect(Object.keys(sgd({ learningRate: 0.1 }).state(shape))).toEqual([]);
    const got = await follow(sgd({ learningRate: 0.1 }), shape);
    expect(
      apart(
        got,
        byHand(shape, () => (p, g) => p - 0.1 * g),
      ),
    ).toBeLessThan(ROUNDING);
  });

  it("adds up directions with momentum; dampening begins with the second step", async () => {
    const got = await follow(sgd({ learningRate: 0.05, momentum: 0.9, dampening: 0.3 }), shape);
    const expected = byHand(shape, () => {
      let b = 0;
      return (p, g, t) => {
        b = t === 1 ? g : 0.9 * b + 0.7 * g;
        return p - 0.05 * b;
      };
    });
    expect(apart(got, expected)).toBeLessThan(ROUNDING);
  });

  it("looks ahead with Nesterov, and decays weights through the gradient", async () => {
    const got = await follow(
      sgd({ learningRate: 0.05, momentum: 0.8, nesterov: true, weightDecay: 0.02 }),
      shape,
    );
    const expected = byHand(shape, () => {
      let b = 0;
      return (p, g) => {
        const decayed = g + 0.02 * p;
        b = 0.8 * b + decayed;
        return p - 0.05 * (decayed + 0.8 * b);
      };
    });
    expect(apart(got, expected)).toBeLessThan(ROUNDING);
  });

  it("takes its rate from a function of the step, from 1", async () => {
    const got = await follow(sgd({ learningRate: (step) => 1 / step }), shape);
    expect(
      apart(
        got,
        byHand(shape, () => (p, g, t) => p - g / t),
      ),
    ).toBeLessThan(ROUNDING);
  });
});
