import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { applyChanges } from "../../src/federation/base-chain.ts";
import type { StateTree } from "../../src/federation/strategy.ts";
import { fedexLoraReinit } from "../../src/strategies/fedex-lora.ts";
import { flora } from "../../src/strategies/flora.ts";
import { combination, denseOf, frobenius, idealProduct } from "./algebra.ts";
import { membersOf, rehearsal, startPair } from "./rehearsal.ts";

const M = "up_proj";
/** Float64 algebra on matrices of at most 12 x 12 with entries of magnitude 1. */
const EXACT = 1e-10;

const setting = fc.record({
  out: fc.integer({ min: 1, max: 12 }),
  width: fc.integer({ min: 1, max: 12 }),
  ranks: fc.array(fc.integer({ min: 1, max: 12 }), { minLength: 1, maxLength: 5 }),
  seed: fc.integer({ min: 0, max: 1e6 }),
});

function federation({
  out,
  width,
  ranks,
  seed,
}: {
  out: number;
  width: number;
  ranks: number[];
  seed: number;
}) {
  const shape = { out, width };
  const members = membersOf(ranks);
  const initial = startPair(M, shape, Math.max(...ranks));
  return { members, run: rehearsal({ strategy: flora(), module: M, shape, members, initial, seed }) };
}

describe("FLoRA", () => {
  it("puts the mean of the clients' products into the base, whatever their ranks and scalings", () => {
    fc.assert(
      fc.property(setting, (s) => {
        const { members, run } = federation(s);
        let before = run.base();
        for (const round of [1, 2, 3]) {
          const { updates, ideal, result } = run.round(round);
          const sum = combination([1, 1], [before, idealProduct(updates, M)]);
          expect(frobenius(combination([1, -1], [run.base(), sum]))).toBeLessThan(EXACT);
          expect(frobenius(combination([1, -1], [run.base(), ideal]))).toBeLessThan(EXACT);
          expect(result.measurements?.[`deviation/${M}`]).toBe(0);
          before = run.base();
          // Merged and started anew: everybody's weight is the base.
          for (const member of members) expect(run.held(member, round + 1)).toEqual(before);
        }
      }),
      { numRuns: 40 },
    );
  });

  it("stacks as many components as the participants have together", () => {
    const { run } = federation({ out: 7, width: 9, ranks: [1, 4, 2, 7], seed: 1 });
    const ranks = [[0, 1, 2, 3], [1, 3], [2]].map((present, t) => {
      const [change] = run.round(t + 1, present).result.base ?? [];
      return change?.kind === "factors" ? change.left.get(`${M}.weight`)?.shape : [];
    });
    expect(ranks).toEqual([
      [7, 14],
      [7, 11],
      [7, 2],
    ]);
  });

  it("counts a client by its share of the examples, once", () => {
    const { run } = federation({ out: 5, width: 4, ranks: [1, 2], seed: 3 });
    const { updates } = run.round(1);
    const strategy = flora();
    const start = startPair(M, { out: 5, width: 4 }, 2);
    const context = { round: 1, seed: 9, numClients: 2 };
    const factors = [1, 8].map((factor) => {
      const scaled = updates.map((update) => ({ ...update, numExamples: factor * update.numExamples }));
      return strategy.aggregate(start, scaled, context).base;
    });
    expect(factors[0]).toEqual(factors[1]);
    const alone = updates.map((update, k) => ({ ...update, numExamples: k === 0 ? 5 : 0 }));
    const change = applyChanges(new Map(), strategy.aggregate(start, alone, context).base ?? []);
    const own = idealProduct(updates.slice(0, 1), M);
    expect(frobenius(combination([1, -1], [denseOf(change.get(`${M}.weight`)), own]))).toBeLessThan(EXACT);
  });

  it("merges what FedEx-LoRA merges when it starts anew, at equal ranks", () => {
    const shape = { out: 8, width: 5 };
    const members = membersOf([2, 2, 2]);
    const initial = startPair(M, shape, 2);
    const bases = [flora(), fedexLoraReinit()].map((strategy) => {
      const run = rehearsal<StateTree>({ strategy, module: M, shape, members, initial });
      run.round(1);
      return run.base();
    });
    expect(frobenius(combination([1, -1], bases))).toBeLessThan(EXACT);
  });

  it("starts each client from an A of its own, another in every round, and B = 0", () => {
    const { members, run } = federation({ out: 7, width: 5, ranks: [2, 2], seed: 4 });
    run.round(1);
    const [first, second] = members.map((member) => run.halfOf(member, 2).start.params);
    const later = members[0] ? run.halfOf(members[0], 3).start.params : new Map();
    const a = `${M}.lora_A.weight`;
    expect(first?.get(a)).not.toEqual(second?.get(a));
    expect(first?.get(a)).not.toEqual(later.get(a));
    expect(first?.get(`${M}.lora_B.weight`)?.data.every((x) => x === 0)).toBe(true);
  });
});
