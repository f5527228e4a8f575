import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { principalPair } from "../../src/adapters/lora.ts";
import { frLora } from "../../src/strategies/frlora.ts";
import { stream } from "../../src/tensor/random.ts";
import { float32 } from "../../src/tensor/tensor.ts";
import { combination, type Dense, denseOf, frobenius, pairProduct, product } from "./algebra.ts";
import { membersOf, rehearsal, startPair } from "./rehearsal.ts";

const M = "k_proj";
const shape = { out: 11, width: 6 };
const members = membersOf([2, 2, 2]);
const scaling = members[0]?.scaling ?? 1;
const initial = startPair(M, shape, 2, "normal"); // B₀, A₀
/** Float64 algebra on an 11 x 6 matrix over a few rounds. */
const EXACT = 1e-10;

const federation = (step = 0.4) =>
  rehearsal({ strategy: frLora(), module: M, shape, members, initial, step });

const distance = (x: Dense, y: Dense): number => frobenius(combination([1, -1], [x, y]));
const zero: Dense = Array.from({ length: shape.out }, () => new Array<number>(shape.width).fill(0));

describe("FRLoRA", () => {
  it("starts at the pretrained weight, and every round from the same pair, bit by bit", () => {
    const run = federation();
    for (const member of members) expect(distance(run.held(member, 1), zero)).toBe(0);
    for (const round of [1, 2, 3]) {
      for (const member of members) {
        const { params } = run.halfOf(member, round).start;
        for (const name of [`${M}.lora_A.weight`, `${M}.lora_B.weight`])
          expect(params.get(name)).toEqual(initial.get(name));
      }
      run.round(round, round === 2 ? [0, 2] : [0, 1, 2]);
    }
  });

  it("adds s(B̄Ā − B₀A₀) of every round to everybody's weight", () => {
    fc.assert(
      fc.property(
        fc.array(fc.subarray([0, 1, 2], { minLength: 1 }), { minLength: 1, maxLength: 4 }),
        (rounds) => {
          const run = federation();
          let sum: Dense = zero;
          rounds.forEach((present, t) => {
            const { updates } = run.round(t + 1, present);
            const mean = (factor: string): Dense =>
              combination(
                updates.map(() => 1 / updates.length),
                updates.map(({ params }) => denseOf(params.get(`${M}.${factor}.weight`))),
              );
            const moved = [product(mean("lora_B"), mean("lora_A")), pairProduct(initial, M)];
            sum = combination([1, scaling, -scaling], [sum, ...moved]);
            for (const member of members) expect(distance(run.held(member, t + 2), sum)).toBeLessThan(EXACT);
          });
        },
      ),
      { numRuns: 20 },
    );
  });

  it("leaves the base exactly as it is if nobody moves", () => {
    const run = federation(0);
    for (const round of [1, 2, 3]) run.round(round, [0, 1]); // the mean of two equal numbers is exact
    expect(run.base()).toEqual(zero);
  });

  it("sends no more than the mean pair down: what starts every round is known", () => {
    const { traffic } = federation().round(1);
    const pair = 2 * (shape.out + shape.width);
    const head = 3;
    for (const { down, up } of traffic.values()) expect([down, up]).toEqual([pair + head, pair + head]);
  });

  it("takes the best approximation of the weight as its start, split evenly", () => {
    const data = new Float32Array(shape.out * shape.width);
    stream({ seed: 1, purpose: "weight" }).fillNormal(data, 0, 1);
    const weight = float32([shape.out, shape.width], data);
    const base = new Map([[`${M}.weight`, weight]]);
    const { a, b } = principalPair(M, { base, seed: 1 }, 3, 1.5);
    const [left, right] = [denseOf(b), denseOf(a)];
    const rest = combination([1, -1.5], [denseOf(weight), product(left, right)]);
    // What is left of a weight without its leading triplets is orthogonal to them, on both sides.
    const transposed = (x: Dense): Dense => (x[0] ?? []).map((_, j) => x.map((row) => row[j] ?? 0));
    expect(frobenius(product(transposed(left), rest))).toBeLessThan(1e-4);
    expect(frobenius(product(rest, transposed(right)))).toBeLessThan(1e-4);
    const grams = [product(transposed(left), left), product(right, transposed(right))];
    expect(distance(grams[0] ?? [], grams[1] ?? [])).toBeLessThan(1e-4);
    const ofRest = product(transposed(rest), rest);
    const smallest = Math.min(...(grams[0] ?? []).map((row, i) => row[i] ?? 0)) * 1.5; // σ_3
    expect(Math.max(...ofRest.map((row, i) => row[i] ?? 0))).toBeLessThan(smallest ** 2); // no diagonal entry beyond σ_3²
  });

  it("refuses a start of more components than the weight has", () => {
    const base = new Map([[`${M}.weight`, float32([2, 3], [1, 0, 0, 0, 1, 0])]]);
    expect(() => principalPair(M, { base, seed: 1 }, 3, 1)).toThrow(/rank 2 at most; got 3/);
  });
});
