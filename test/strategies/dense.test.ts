import { describe, expect, it } from "vitest";
import { clientHalf } from "../../src/federation/local-rule.ts";
import type { Update } from "../../src/federation/strategy.ts";
import { gradients } from "../../src/graph/gradients.ts";
import { input } from "../../src/graph/value.ts";
import { fedAvg } from "../../src/strategies/fedavg.ts";
import { fedProx } from "../../src/strategies/fedprox.ts";
import { localOnly } from "../../src/strategies/local-only.ts";
import type { Params } from "../../src/tensor/params.ts";
import { float32 } from "../../src/tensor/tensor.ts";
import { clipped } from "../../src/wrappers/clipped.ts";
import { array64, evaluate } from "../graph/evaluator.ts";

const context = { round: 1, seed: 1, numClients: 2 };
const client = (id: string) => ({ id, rank: 0, scaling: 1 });
const weights = (...values: number[]): Params =>
  new Map([["dense.weight", float32([1, values.length], values)]]);
const update = (id: string, numExamples: number, ...values: number[]): Update => ({
  client: client(id),
  numExamples,
  params: weights(...values),
});
const valuesOf = (params: Params) => [...(params.get("dense.weight")?.data ?? [])];

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

describe("Local only", () => {
  it("lets every client go on from its own parameters and never from another's", () => {
    const strategy = localOnly();
    const initial = weights(0, 0);
    const state = strategy.init(initial, []);
    const received = strategy.broadcast(state, client("a"), context);
    const first = clientHalf(strategy, {
      client: client("a"),
      received,
      memory: undefined,
      initial,
      context,
    });
    expect(valuesOf(first.start.params)).toEqual([0, 0]);
    const up = first.upload({ params: weights(1, 2), numExamples: 3, steps: 1, learningRate: 1 });
    expect(up.params.size).toBe(0);
    const next = clientHalf(strategy, { client: client("a"), received, memory: up.memory, initial, context });
    expect(valuesOf(next.start.params)).toEqual([1, 2]);
    const other = clientHalf(strategy, {
      client: client("b"),
      received,
      memory: undefined,
      initial,
      context,
    });
    expect(valuesOf(other.start.params)).toEqual([0, 0]);
  });
});

describe("clipped", () => {
  it("shortens a client's change to the norm and leaves smaller ones alone", () => {
    const strategy = clipped(fedAvg({ weighting: "uniform" }), { norm: 5 });
    const { state } = strategy.aggregate(
      weights(1, 1),
      [update("a", 1, 7, 9), update("b", 1, 4, 5)],
      context,
    );
    // From (1, 1): (6, 8) becomes (3, 4), (3, 4) stays.
    expect(valuesOf(state)).toEqual([4, 5]);
  });
  it("measures the change from what the client had received, where that is an older model", () => {
    const strategy = clipped(fedAvg(), { norm: 1 });
    const late = { ...update("a", 1, 10, 12), received: weights(10, 10) };
    expect(valuesOf(strategy.aggregate(weights(0, 0), [late], context).state)).toEqual([10, 11]);
  });
  it("no longer declares a weighted sum", () => {
    expect(clipped(fedAvg(), { norm: 1 }).declares.weightedSum).toBe(false);
  });
});
