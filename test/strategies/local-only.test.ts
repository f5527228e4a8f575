import { describe, expect, it } from "vitest";
import { clientHalf } from "../../src/federation/local-rule.ts";
import { localOnly } from "../../src/strategies/local-only.ts";
import { client, context, valuesOf, weights } from "./dense.ts";

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
