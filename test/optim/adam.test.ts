import { describe, expect, it } from "vitest";
import { adam, adamw } from "../../src/optim/adam.ts";
import { apart, byHand, follow, ROUNDING } from "./follow.ts";

const shape = [2, 5];
const [beta1, beta2, epsilon, rate] = [0.8, 0.95, 1e-3, 0.05];
const options = { learningRate: rate, betas: [beta1, beta2], epsilon } as const;

/** Algorithm 1 of Kingma and Ba with its corrected moments spelled out; `bound` makes the second moment that divides. */
function moments(bound: () => (v: number) => number): () => (g: number, t: number) => number {
  return () => {
    const divisor = bound();
    let [m, v] = [0, 0];
    return (g, t) => {
      m = beta1 * m + (1 - beta1) * g;
      v = beta2 * v + (1 - beta2) * g * g;
      return m / (1 - beta1 ** t) / (Math.sqrt(divisor(v) / (1 - beta2 ** t)) + epsilon);
    };
  };
}
const plain = moments(() => (v) => v);

describe("adam", () => {
  it("is Algorithm 1: corrected moments, epsilon outside the root", async () => {
    const expected = byHand(shape, () => {
      const direction = plain();
      return (p, g, t) => p - rate * direction(g, t);
    });
    expect(apart(await follow(adam(options), shape), expected)).toBeLessThan(ROUNDING);
  });

  it("decays weights through the gradient", async () => {
    const expected = byHand(shape, () => {
      const direction = plain();
      return (p, g, t) => p - rate * direction(g + 0.1 * p, t);
    });
    expect(apart(await follow(adam({ ...options, weightDecay: 0.1 }), shape), expected)).toBeLessThan(
      ROUNDING,
    );
  });

  it("divides by the largest second moment so far with amsgrad", async () => {
    const expected = byHand(shape, () => {
      const direction = moments(() => {
        let largest = 0;
        return (v) => {
          largest = Math.max(largest, v);
          return largest;
        };
      })();
      return (p, g, t) => p - rate * direction(g, t);
    });
    expect(apart(await follow(adam({ ...options, amsgrad: true }), shape), expected)).toBeLessThan(ROUNDING);
  });
});

describe("adamw", () => {
  it("shrinks the weight by rate times decay, before and apart from the Adam step", async () => {
    const expected = byHand(shape, () => {
      const direction = plain();
      return (p, g, t) => p * (1 - rate * 0.2) - rate * direction(g, t);
    });
    expect(apart(await follow(adamw({ ...options, weightDecay: 0.2 }), shape), expected)).toBeLessThan(
      ROUNDING,
    );
  });

  it("decays by 0.01 where nothing is said", async () => {
    const [silent, said] = await Promise.all([
      follow(adamw(options), shape),
      follow(adamw({ ...options, weightDecay: 0.01 }), shape),
    ]);
    expect(silent).toEqual(said);
  });

  it("makes no step at rate 0, also with decay, and goes on from the moments that it gathered", async () => {
    const waiting = adamw({ ...options, weightDecay: 0.2, learningRate: (step) => (step < 3 ? 0 : rate) });
    const expected = byHand(shape, () => {
      const direction = plain();
      return (p, g, t) => {
        const d = direction(g, t);
        return t < 3 ? p : p * (1 - rate * 0.2) - rate * d;
      };
    });
    expect(apart(await follow(waiting, shape), expected)).toBeLessThan(ROUNDING);
  });
});
