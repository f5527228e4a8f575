import fc from "fast-check";
import { describe, expect, it } from "vitest";
import type { ClientRef, Update } from "../../src/federation/strategy.ts";
import { fedIt } from "../../src/strategies/fedit.ts";
import { fsLora } from "../../src/strategies/fslora.ts";
import type { Params } from "../../src/tensor/params.ts";
import { combination, type Dense, denseOf, drawPair, frobenius, pairProduct } from "./algebra.ts";

const M = "q_proj";
/** Float64 algebra on small matrices with entries of magnitude 1. */
const EXACT = 1e-10;
const ALPHA = 6;

const setting = fc.record({
  out: fc.integer({ min: 2, max: 9 }),
  width: fc.integer({ min: 2, max: 9 }),
  rank: fc.integer({ min: 2, max: 5 }),
  parts: fc.array(fc.integer({ min: 1, max: 5 }), { minLength: 1, maxLength: 5 }),
  seed: fc.integer({ min: 0, max: 1e6 }),
});

interface Setting {
  readonly out: number;
  readonly width: number;
  readonly rank: number;
  readonly parts: readonly number[];
  readonly seed: number;
}

function federation({ out, width, rank, parts, seed }: Setting) {
  const context = { round: 3, seed, numClients: parts.length };
  const clients = parts.map((part, k): ClientRef => {
    const own = Math.min(part, rank);
    return { id: `c${k}`, rank: own, scaling: ALPHA / own };
  });
  const strategy = fsLora();
  const state = strategy.init(drawPair(M, { out, width }, rank, `fslora ${seed}`), clients);
  const updates = clients.map(
    (client, k): Update => ({
      client,
      numExamples: 5 + 3 * k,
      params: drawPair(M, { out, width }, client.rank, `fslora ${seed}/${k}`),
    }),
  );
  return { context, clients, strategy, state, updates };
}

const columns = (x: Dense): Dense => (x[0] ?? []).map((_, j) => x.map((row) => row[j] ?? Number.NaN));
const components = (params: Params) => ({
  a: denseOf(params.get(`${M}.lora_A.weight`)), // rows
  b: columns(denseOf(params.get(`${M}.lora_B.weight`))),
});

describe("FSLoRA", () => {
  it("hands a client as many components as its rank, the same for A and B, drawn anew in each round", () => {
    fc.assert(
      fc.property(setting, (s) => {
        const { strategy, state, clients, context } = federation(s);
        const whole = components(state.params);
        for (const client of clients) {
          const { a, b } = components(strategy.broadcast(state, client, context).params);
          const indices = a.map((row) => whole.a.findIndex((one) => one.join() === row.join()));
          expect(indices).toHaveLength(client.rank);
          expect(new Set(indices).size).toBe(client.rank);
          expect(b).toEqual(indices.map((i) => whole.b[i]));
        }
      }),
    );
    const { strategy, state, clients, context } = federation({
      out: 4,
      width: 3,
      rank: 5,
      parts: [2],
      seed: 1,
    });
    const client = clients[0] ?? { id: "", rank: 1, scaling: 1 };
    const rounds = Array.from({ length: 30 }, (_, i) =>
      components(strategy.broadcast(state, client, { ...context, round: i + 1 }).params).a.join(";"),
    );
    expect(new Set(rounds).size).toBeGreaterThan(5); // of 10 pairs
  });

  it("is unbiased: over all index sets the scaled slice is BA on average", () => {
    const [rank, own] = [4, 2];
    const pair = drawPair(M, { out: 5, width: 3 }, rank, "unbiased");
    const client = { id: "c", rank: own, scaling: ALPHA / own };
    const sets = Array.from({ length: rank }, (_, i) => i).flatMap((i) =>
      Array.from({ length: rank - i - 1 }, (_, j) => [i, i + j + 1]),
    );
    const slices = sets.map((set) => {
      const strategy = fsLora({ sketch: () => set });
      const state = strategy.init(pair, [client]);
      return pairProduct(strategy.broadcast(state, client, { round: 1, seed: 1, numClients: 1 }).params, M);
    });
    const mean = combination(Array(sets.length).fill(client.scaling / sets.length), slices);
    expect(frobenius(combination([1, -ALPHA / rank], [mean, pairProduct(pair, M)]))).toBeLessThan(EXACT);
  });

  it("adds the padded moves divided by all participants, and leaves components alone that nobody drew", () => {
    fc.assert(
      fc.property(setting, (s) => {
        const { strategy, state, clients, updates, context } = federation(s);
        const whole = components(state.params);
        const next = components(strategy.aggregate(state, updates, context).state.params);
        const draws = clients.map((client) => {
          const { a } = components(strategy.broadcast(state, client, context).params);
          return a.map((row) => whole.a.findIndex((one) => one.join() === row.join()));
        });
        whole.a.forEach((row, i) => {
          const holders = draws.flatMap((indices, k) =>
            indices.includes(i) ? [{ k, at: indices.indexOf(i) }] : [],
          );
          for (const part of ["a", "b"] as const) {
            const before = part === "a" ? row : (whole.b[i] ?? []);
            const expected = before.map((x, j) =>
              holders.reduce((sum, { k, at }) => {
                const own = components(updates[k]?.params ?? new Map())[part];
                return sum + ((own[at]?.[j] ?? Number.NaN) - x) / updates.length;
              }, x),
            );
            const got = next[part][i] ?? [];
            if (holders.length === 0) expect(got).toEqual(before);
            expect(frobenius(combination([1, -1], [[got], [expected]]))).toBeLessThan(EXACT);
          }
        });
      }),
    );
  });

  it("is FedIT with uniform weights where every client trains all components", () => {
    fc.assert(
      fc.property(setting, (s) => {
        const { strategy, state, updates, context } = federation({ ...s, parts: s.parts.map(() => s.rank) });
        const ours = strategy.aggregate(state, updates, context);
        const theirs = fedIt({ weighting: "uniform" }).aggregate(new Map(), updates, context);
        for (const [name, tensor] of theirs.state) {
          const difference = combination(
            [1, -1],
            [[[...(ours.state.params.get(name)?.data ?? [])].map(Number)], [[...tensor.data].map(Number)]],
          );
          expect(frobenius(difference)).toBeLessThan(EXACT);
        }
        for (const [key, value] of Object.entries(theirs.measurements ?? {}))
          expect(ours.measurements?.[key]).toBeCloseTo(value, 8);
      }),
    );
  });

  it("measures its distance from the mean of the sketched weights, by dense algebra", () => {
    fc.assert(
      fc.property(setting, (s) => {
        const { strategy, state, updates, context } = federation(s);
        const { state: next, measurements } = strategy.aggregate(state, updates, context);
        const terms = updates.map(({ params }) => pairProduct(params, M));
        const shares = updates.map(({ client }) => client.scaling / updates.length);
        const distance = combination([...shares, -ALPHA / s.rank], [...terms, pairProduct(next.params, M)]);
        expect(measurements?.[`deviation/${M}`]).toBeCloseTo(frobenius(distance), 8);
      }),
    );
  });

  it("refuses clients whose scaling is not alpha / rank, since r / k would be applied twice or not at all", () => {
    const clients = [
      { id: "a", rank: 4, scaling: 3 },
      { id: "b", rank: 1, scaling: 6 },
    ];
    expect(() => fsLora().init(drawPair(M, { out: 3, width: 5 }, 4, "x"), clients)).toThrow(
      expect.objectContaining({ code: "unequal-scaling" }),
    );
  });
});
