import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { applyChanges } from "../../src/federation/base-chain.ts";
import type { Aggregate, StateTree, Update } from "../../src/federation/strategy.ts";
import { fedexLora } from "../../src/strategies/fedex-lora.ts";
import { fedIt } from "../../src/strategies/fedit.ts";
import { ffaLora } from "../../src/strategies/ffa-lora.ts";
import { flexLora } from "../../src/strategies/flexlora.ts";
import type { Params } from "../../src/tensor/params.ts";
import { combination, denseOf, drawUpdates, frobenius, idealProduct, pairProduct } from "./algebra.ts";

const M = "q_proj";
const context = { round: 1, seed: 1, numClients: 5 };
/** Float64 algebra on matrices of at most 12 x 12 with entries of magnitude 1. */
const EXACT = 1e-10;

const setting = fc.record({
  out: fc.integer({ min: 2, max: 12 }),
  width: fc.integer({ min: 2, max: 12 }),
  rank: fc.integer({ min: 1, max: 5 }),
  clients: fc.integer({ min: 1, max: 5 }),
  seed: fc.integer({ min: 0, max: 1e6 }),
});

interface Case {
  readonly updates: readonly Update[];
  readonly scaling: number;
}

function caseOf({
  out,
  width,
  rank,
  clients,
  seed,
}: {
  out: number;
  width: number;
  rank: number;
  clients: number;
  seed: number;
}): Case {
  const updates = drawUpdates(
    M,
    { out, width },
    Array.from({ length: clients }, () => rank),
    `case ${seed}`,
  );
  return { updates, scaling: updates[0]?.client.scaling ?? 1 };
}

/** Distance of adapter and base change from the ideal. */
function error({ updates, scaling }: Case, params: Params, { base = [] }: Aggregate<StateTree>): number {
  const change = applyChanges(new Map(), base).get(`${M}.weight`);
  const terms = [pairProduct(params, M), ...(change ? [denseOf(change)] : []), idealProduct(updates, M)];
  return frobenius(combination(change ? [scaling, 1, -1] : [scaling, -1], terms));
}

describe("rules for LoRA factors, on the same factors", () => {
  it("FedIT is off by the deviation that it measures", () => {
    fc.assert(
      fc.property(setting, (s) => {
        const one = caseOf(s);
        const result = fedIt().aggregate(new Map(), one.updates, context);
        expect(result.measurements?.[`deviation/${M}`]).toBeCloseTo(error(one, result.state, result), 8);
        const ideal = frobenius(idealProduct(one.updates, M));
        expect(result.measurements?.[`relativeDeviation/${M}`]).toBeCloseTo(
          error(one, result.state, result) / ideal,
          7,
        );
      }),
    );
  });

  it("FedEx-LoRA is exact: adapter plus residual is the mean of the clients' products", () => {
    fc.assert(
      fc.property(setting, (s) => {
        const one = caseOf(s);
        const result = fedexLora().aggregate(new Map(), one.updates, context);
        expect(error(one, result.state, result)).toBeLessThan(EXACT);
        for (const change of result.base ?? []) {
          if (change.kind !== "factors") continue;
          const rank = change.left.get(`${M}.weight`)?.shape[1] ?? 0;
          expect(rank).toBeLessThanOrEqual((one.updates.length - 1) * s.rank);
          expect(rank * (s.out + s.width)).toBeLessThan(s.out * s.width);
        }
      }),
    );
  });

  it("a residual of rank q is off by what it cut, less with every rank, FedIT at 0 and exact at the end", () => {
    fc.assert(
      fc.property(setting, (s) => {
        const one = caseOf(s);
        const errors = Array.from({ length: (one.updates.length - 1) * s.rank + 1 }, (_, q) => {
          const result = fedexLora({ residualRank: q }).aggregate(new Map(), one.updates, context);
          const off = error(one, result.state, result);
          expect(result.measurements?.[`deviation/${M}`]).toBeCloseTo(off, 8);
          return off;
        });
        const plain = fedIt().aggregate(new Map(), one.updates, context);
        expect(errors[0]).toBeCloseTo(error(one, plain.state, plain), 8);
        expect(errors.at(-1)).toBeLessThan(EXACT);
        errors.slice(1).forEach((off, q) => {
          expect(off).toBeLessThanOrEqual((errors[q] ?? 0) + EXACT);
        });
      }),
    );
  });

  it("FlexLoRA is never further from the mean of products than FedIT", () => {
    fc.assert(
      fc.property(setting, (s) => {
        const one = caseOf(s);
        const strategy = flexLora();
        const clients = one.updates.map(({ client }) => client);
        const result = strategy.aggregate(
          strategy.init(one.updates[0]?.params ?? new Map(), clients),
          one.updates,
          context,
        );
        const flex = error(one, strategy.global(result.state), { state: null });
        const plain = fedIt().aggregate(new Map(), one.updates, context);
        expect(flex).toBeLessThanOrEqual(error(one, plain.state, plain) + EXACT);
        expect(result.measurements?.[`deviation/${M}`]).toBeCloseTo(flex, 8);
      }),
    );
  });

  it("FFA-LoRA: the mean of products is the product of means, and A never moves", () => {
    fc.assert(
      fc.property(setting, (s) => {
        const { updates, scaling } = caseOf(s);
        const initial = updates[0]?.params ?? new Map();
        const a = initial.get(`${M}.lora_A.weight`);
        const shared = updates.map((update) => ({
          ...update,
          params: new Map([...update.params].filter(([name]) => !name.includes("lora_A"))),
        }));
        const result = ffaLora().aggregate(initial, shared, context);
        expect(result.state.get(`${M}.lora_A.weight`)).toBe(a);
        const common = updates.map((update) => ({
          ...update,
          params: new Map([...update.params, ...(a ? ([[`${M}.lora_A.weight`, a]] as const) : [])]),
        }));
        expect(error({ updates: common, scaling }, result.state, result)).toBeLessThan(EXACT);
        expect(result.measurements?.[`deviation/${M}`]).toBeLessThan(EXACT);
      }),
    );
  });

  it("multiplying all example counts by one factor changes nothing", () => {
    const { updates } = caseOf({ out: 7, width: 5, rank: 2, clients: 3, seed: 1 });
    const more = updates.map((update) => ({ ...update, numExamples: 8 * update.numExamples }));
    const weights = [updates, more].map((list) => fedIt().aggregate(new Map(), list, context).state);
    expect(weights[0]).toEqual(weights[1]);
  });

  it("refuses clients of unequal scaling where one scaling is applied to all", () => {
    const updates = drawUpdates(M, { out: 7, width: 5 }, [2, 2], "unequal").map((update, k) => ({
      ...update,
      client: { ...update.client, scaling: 1 + k },
    }));
    for (const strategy of [fedIt(), fedexLora()]) {
      expect(() => strategy.aggregate(new Map(), updates, context)).toThrow(
        expect.objectContaining({ code: "unequal-scaling" }),
      );
    }
  });
});
