import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { clientHalf } from "../../src/federation/local-rule.ts";
import type { Update } from "../../src/federation/strategy.ts";
import { input } from "../../src/graph/value.ts";
import { type ScaffoldOptions, scaffold } from "../../src/strategies/scaffold.ts";
import type { Params } from "../../src/tensor/params.ts";
import { stream } from "../../src/tensor/random.ts";
import { float32 } from "../../src/tensor/tensor.ts";
import { array64, evaluate } from "../graph/evaluator.ts";
import { client, valuesOf, weights } from "./dense.ts";

interface Quadratic {
  /** F_i(w) = curvature (w − center)² / 2 */
  readonly curvature: number;
  readonly center: number;
}

const LEARNING_RATE = 0.1;
const STEPS = 5;

/** A federation of one-dimensional quadratics, its gradients corrected by the strategy's own graph. */
function federation(objectives: readonly Quadratic[], options: ScaffoldOptions = {}) {
  const strategy = scaffold(options);
  const initial = weights(0);
  const clients = objectives.map((_, i) => client(`c${i}`));
  const memories = new Map<string, Params>();
  let state = strategy.init(initial, clients);
  const value = (kind: string) => new Map([["dense.weight", input(kind, "float64", [1, 1])]]);
  const [g, c, own] = [value("g"), value("c"), value("own")];
  const corrected = strategy.local?.correct?.(g, c, own).get("dense.weight") ?? input("none", "float64", []);
  const inputs = [g, c, own].flatMap((set) => [...set.values()]);
  return {
    memories,
    state: () => state,
    round(round: number, present: readonly number[]) {
      const context = { round, seed: 1, numClients: clients.length };
      const updates = present.map((i): Update => {
        const one = clients[i] ?? client("none");
        const received = strategy.broadcast(state, one, context);
        const half = clientHalf(strategy, {
          client: one,
          received,
          memory: memories.get(one.id),
          initial,
          context,
        });
        const { curvature, center } = objectives[i] ?? { curvature: 0, center: 0 };
        let [y = 0] = valuesOf(half.start.params);
        for (let step = 0; step < STEPS; step++) {
          const feeds = new Map([
            ["g", array64([1, 1], [curvature * (y - center)])],
            ["c", array64([1, 1], valuesOf(half.start.extra))],
            ["own", array64([1, 1], valuesOf(half.local.memory))],
          ]);
          y -= LEARNING_RATE * (evaluate([corrected], inputs, feeds)[0]?.data[0] ?? Number.NaN);
        }
        const { memory, ...up } = half.upload({
          params: weights(y),
          numExamples: i + 1,
          steps: STEPS,
          learningRate: LEARNING_RATE,
        });
        memories.set(one.id, memory);
        return { client: one, numExamples: i + 1, ...up };
      });
      state = strategy.aggregate(state, updates, context).state;
    },
  };
}

describe("SCAFFOLD", () => {
  const objectives = [
    { curvature: 4, center: -3 },
    { curvature: 0.5, center: 10 },
    { curvature: 1, center: 2 },
  ];
  const optimum = (4 * -3 + 0.5 * 10 + 1 * 2) / 5.5; // of the mean objective

  it("reaches the optimum of the mean objective although each client takes several steps towards its own", () => {
    const run = federation(objectives);
    for (let round = 1; round <= 150; round++) run.round(round, [0, 1, 2]);
    expect(valuesOf(run.state().params)[0]).toBeCloseTo(optimum, 4);
    // At the optimum c_i is the gradient of F_i and c is 0.
    objectives.forEach(({ curvature, center }, i) => {
      const [own] = valuesOf(run.memories.get(`c${i}`) ?? new Map());
      expect(own).toBeCloseTo(curvature * (optimum - center), 3);
    });
    expect(valuesOf(run.state().control)[0]).toBeCloseTo(0, 3);
  });

  it("keeps c the mean of the c_i of all clients, whoever takes part", () => {
    const cohorts = fc.array(fc.subarray([0, 1, 2, 3], { minLength: 1 }), { minLength: 1, maxLength: 6 });
    fc.assert(
      fc.property(cohorts, fc.double({ min: 0.1, max: 1, noNaN: true }), (rounds, serverLearningRate) => {
        const run = federation([...objectives, { curvature: 2, center: -1 }], { serverLearningRate });
        rounds.forEach((present, t) => {
          run.round(t + 1, present);
        });
        const sum = [...run.memories.values()].reduce((total, own) => total + (valuesOf(own)[0] ?? 0), 0);
        expect(valuesOf(run.state().control)[0]).toBeCloseTo(sum / 4, 4);
      }),
      { numRuns: 30 },
    );
  });

  it("does not correct a single client, whose c_i is c", () => {
    const [only = { curvature: 1, center: 0 }] = objectives;
    const run = federation([only]);
    let w = 0;
    for (let round = 1; round <= 3; round++) {
      run.round(round, [0]);
      for (let step = 0; step < STEPS; step++) w -= LEARNING_RATE * only.curvature * (w - only.center);
      expect(valuesOf(run.state().params)[0]).toBeCloseTo(w, 5);
    }
  });

  it("weights clients alike, and walks the server's share of the way", () => {
    const strategy = scaffold({ serverLearningRate: 0.5 });
    const random = stream({ seed: 3, purpose: "clients" });
    const trained = [4, 8, 0].map((w, i) => ({
      client: client(`c${i}`),
      numExamples: 1 + random.integer(9),
      params: weights(w),
      extra: new Map([["dense.weight", float32([1, 1], [3 * i])]]),
    }));
    const state = strategy.init(weights(2), []);
    const next = strategy.aggregate(state, trained, { round: 1, seed: 1, numClients: 9 }).state;
    expect(valuesOf(next.params)).toEqual([3]); // 2 + (4 − 2) / 2
    expect(valuesOf(next.control)).toEqual([1]); // 3/9 of the mean change 3
  });
});
