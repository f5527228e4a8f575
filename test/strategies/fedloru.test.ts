import fc from "fast-check";
import { describe, expect, it } from "vitest";
import type { StateTree } from "../../src/federation/strategy.ts";
import { fedIt } from "../../src/strategies/fedit.ts";
import { type FedLoruOptions, fedLoru } from "../../src/strategies/fedloru.ts";
import { svd } from "../../src/tensor/linalg.ts";
import { matrix } from "../../src/tensor/matrix.ts";
import { combination, type Dense, frobenius, pairProduct } from "./algebra.ts";
import { membersOf, rehearsal, startPair } from "./rehearsal.ts";

const M = "q_proj";
const shape = { out: 9, width: 13 };
const members = membersOf([2, 2, 2, 2]);
const scaling = members[0]?.scaling ?? 1;
const initial = startPair(M, shape, 2);
/** Float64 algebra on a 9 x 13 matrix over a few rounds. */
const EXACT = 1e-10;

const federation = (options: FedLoruOptions) =>
  rehearsal({ strategy: fedLoru(options), module: M, shape, members, initial });

const distance = (x: Dense, y: Dense): number => frobenius(combination([1, -1], [x, y]));

function rank(x: Dense): number {
  const { singularValues } = svd(matrix(x.length, x[0]?.length ?? 0, x.flat()));
  return singularValues.filter((sigma) => sigma > 1e-9 * Math.max(1, singularValues[0] ?? 0)).length;
}

describe("FedLoRU", () => {
  it("keeps every client's weight at a merge, absent clients too", () => {
    const run = federation({ mergeEvery: 2 });
    [
      [0, 1, 2, 3],
      [1, 2],
      [0, 3],
      [0, 1, 2, 3],
    ].forEach((present, t) => {
      run.round(t + 1, present);
      const merged = (t + 1) % 2 === 0;
      const held = members.map((member) => run.held(member, t + 2));
      for (const weight of held) expect(distance(weight, held[0] ?? [])).toBe(0);
      if (merged) expect(distance(held[0] ?? [], run.base())).toBe(0);
    });
  });

  it("ends at the pretrained weight and the sum of the merged products, whose rank grows with every merge", () => {
    const run = federation({ mergeEvery: 2 });
    let sum: Dense = run.base();
    const ranks: number[] = [];
    for (let round = 1; round <= 8; round++) {
      const { result } = run.round(round, round % 3 === 0 ? [0, 2] : [0, 1, 2, 3]);
      for (const change of result.base ?? []) {
        if (change.kind !== "factors") continue;
        const pair = new Map([
          [`${M}.lora_B.weight`, change.left.get(`${M}.weight`)],
          [`${M}.lora_A.weight`, change.right.get(`${M}.weight`)],
        ]);
        const product = pairProduct(new Map([...pair].flatMap(([n, x]) => (x ? [[n, x]] : []))), M);
        sum = combination([1, change.scale], [sum, product]);
      }
      if (round % 2 === 0) ranks.push(rank(run.base()));
    }
    expect(distance(run.base(), sum)).toBeLessThan(EXACT);
    expect(ranks).toEqual([2, 4, 6, 8]);
  });

  it("without a reset counts a merged product twice, and says how far off that is", () => {
    const run = federation({ mergeEvery: 2, reset: false });
    run.round(1);
    const before = run.base();
    const { ideal, result } = run.round(2);
    const [member] = members;
    if (!member) throw new Error("no member");
    const after = run.held(member, 3);
    const product = pairProduct(run.state().params, M);
    expect(distance(after, combination([1, 2 * scaling], [before, product]))).toBeLessThan(EXACT);
    expect(result.measurements?.[`deviation/${M}`]).toBeCloseTo(distance(after, ideal), 9);
  });

  it("is FedIT until it merges", () => {
    fc.assert(
      fc.property(fc.integer({ min: 1, max: 4 }), (rounds) => {
        const [merging, plain] = [fedLoru({ mergeEvery: rounds + 1 }), fedIt()].map((strategy) => {
          const run = rehearsal<StateTree>({ strategy, module: M, shape, members, initial });
          for (let round = 1; round <= rounds; round++) run.round(round);
          return members.map((member) => run.held(member, rounds + 1));
        });
        expect(merging).toEqual(plain);
      }),
      { numRuns: 8 },
    );
  });

  it("restarts all clients from B = 0 and one A, drawn anew after each merge and not sent", () => {
    const run = federation({ mergeEvery: 1 });
    run.round(1);
    const a = (round: number) =>
      members.map((member) => run.halfOf(member, round).start.params.get(`${M}.lora_A.weight`));
    const [first, ...others] = a(2);
    for (const other of others) expect(other).toEqual(first);
    expect(a(3)[0]).not.toEqual(first);
    const names = members.map((member) => [...run.halfOf(member, 2).local.received.params.keys()]);
    expect(new Set(names.flat())).toEqual(new Set(["head.bias"]));
  });

  it("refuses to merge every half round", () => {
    expect(() => fedLoru({ mergeEvery: 0.5 })).toThrow(/mergeEvery is 0.5, expected/);
  });
});
