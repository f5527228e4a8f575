import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { mFedLoru } from "../../src/strategies/mfedloru.ts";
import type { Params } from "../../src/tensor/params.ts";
import { combination, denseOf, frobenius, product } from "./algebra.ts";
import { membersOf, rehearsal, scalars, startPair } from "./rehearsal.ts";

const M = "q_proj";
const shape = { out: 9, width: 6 };
const rank = 4;

function federation(innerRanks: readonly number[], mergeEvery = 2) {
  const members = membersOf(innerRanks.map(() => rank));
  const strategy = mFedLoru({ innerRanks, mergeEvery, alphaA: 0.5, alphaB: 2 });
  const initial = startPair(M, shape, rank, "normal");
  return { members, strategy, run: rehearsal({ strategy, module: M, shape, members, initial }) };
}

const inner = (params: Params, part: string) => denseOf(params.get(`${M}.lora_${part}.weight`));

describe("mFedLoRU", () => {
  it("starts every client at the pair that it received: one factor of each inner product is 0", () => {
    const { members, run } = federation([1, 3, 2]);
    members.forEach((member, k) => {
      const { params } = run.halfOf(member, 1).start;
      for (const part of ["B", "A"]) {
        const change = product(inner(params, `${part}d`), inner(params, `${part}u`));
        expect(frobenius(change)).toBe(0);
        expect(inner(params, `${part}u`).length).toBe([1, 3, 2][k]);
        expect(frobenius(inner(params, `${part}u`))).toBeGreaterThan(0);
      }
    });
  });

  it("rebuilds B + α_B B_d B_u and A + α_A A_d A_u of every client and averages them", () => {
    const ranks = fc.array(fc.integer({ min: 1, max: rank }), { minLength: 1, maxLength: 4 });
    fc.assert(
      fc.property(ranks, (innerRanks) => {
        const { run } = federation(innerRanks, 9);
        const before = run.state().params;
        const { updates } = run.round(1);
        const total = updates.reduce((sum, { numExamples }) => sum + numExamples, 0);
        for (const [part, alpha] of [
          ["A", 0.5],
          ["B", 2],
        ] as const) {
          const mean = combination(
            updates.map(({ numExamples }) => numExamples / total),
            updates.map(({ params }) =>
              combination(
                [1, alpha],
                [
                  denseOf(before.get(`${M}.lora_${part}.weight`)),
                  product(inner(params, `${part}d`), inner(params, `${part}u`)),
                ],
              ),
            ),
          );
          const got = denseOf(run.state().params.get(`${M}.lora_${part}.weight`));
          expect(frobenius(combination([1, -1], [got, mean]))).toBeLessThan(1e-10);
        }
      }),
      { numRuns: 20 },
    );
  });

  it("sends r_k (out + in) + 2 r r_k up for every module", () => {
    const innerRanks = [1, 3, 2];
    const { run } = federation(innerRanks);
    const { updates } = run.round(1);
    updates.forEach(({ params }, k) => {
      const q = innerRanks[k] ?? 0;
      expect(scalars(params)).toBe(q * (shape.out + shape.width) + 2 * rank * q + 3);
    });
  });

  it("merges into the base as FedLoRU does, and goes on from the pair that all clients draw", () => {
    const { members, run } = federation([2, 2], 1);
    const { ideal, result } = run.round(1);
    expect(result.measurements?.[`deviation/${M}`]).toBeGreaterThan(0);
    expect(frobenius(ideal)).toBeGreaterThan(0);
    const [a, b] = members.map((member) => run.halfOf(member, 2).start.params.get(`${M}.lora_A.weight`));
    expect(a).toEqual(b);
    // The server rebuilds from the same A: an update without a change leaves it.
    const updates = members.map((client) => {
      const { start, upload } = run.halfOf(client, 2);
      const { params } = upload({ params: start.params, numExamples: 1, steps: 1, learningRate: 1 });
      return { client, numExamples: 1, params };
    });
    const strategy = mFedLoru({ innerRanks: [2, 2], mergeEvery: 9 });
    const next = strategy.aggregate(run.state(), updates, { round: 2, seed: 9, numClients: 2 }).state;
    const got = next.params.get(`${M}.lora_A.weight`);
    expect(frobenius(combination([1, -1], [denseOf(got), denseOf(a)]))).toBeLessThan(1e-12);
  });
});
