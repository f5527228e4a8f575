import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { padded, prefix } from "../../src/federation/low-rank.ts";
import type { Update } from "../../src/federation/strategy.ts";
import { gradients } from "../../src/graph/gradients.ts";
import { input } from "../../src/graph/value.ts";
import { fedIt } from "../../src/strategies/fedit.ts";
import { type HetLoraOptions, hetLora } from "../../src/strategies/hetlora.ts";
import { scale } from "../../src/tensor/params.ts";
import { array64, evaluate } from "../graph/evaluator.ts";
import {
  combination,
  type Dense,
  denseOf,
  drawPair,
  drawUpdates,
  frobenius,
  pairProduct,
} from "./algebra.ts";
import { membersOf, rehearsal, scalars, startPair } from "./rehearsal.ts";

const M = "o_proj";
const shape = { out: 9, width: 5 };
const context = { round: 1, seed: 1, numClients: 3 };

function aggregated(updates: readonly Update[], options: HetLoraOptions = {}) {
  const strategy = hetLora(options);
  const clients = updates.map(({ client }) => client);
  const start = startPair(M, shape, Math.max(...clients.map(({ rank }) => rank)));
  const result = strategy.aggregate(strategy.init(start, clients), updates, context);
  return { strategy, ...result };
}

const distance = (x: Dense, y: Dense): number => frobenius(combination([1, -1], [x, y]));

describe("HetLoRA", () => {
  it("weights padded factors by the norms of the clients' products", () => {
    const ranks = fc.array(fc.integer({ min: 1, max: 5 }), { minLength: 1, maxLength: 5 });
    fc.assert(
      fc.property(ranks, fc.integer({ min: 0, max: 1e6 }), (list, seed) => {
        const updates = drawUpdates(M, shape, list, `het ${seed}`);
        const { state } = aggregated(updates);
        const largest = Math.max(...list);
        const s = 4 / largest;
        const norms = updates.map(
          ({ params, client }) => (client.scaling / s) * frobenius(pairProduct(params, M)),
        );
        const total = norms.reduce((a, b) => a + b, 0);
        const w = norms.map((norm) => norm / total);
        const pad = (rows: Dense, width: number): Dense =>
          Array.from({ length: largest }, (_, i) => rows[i] ?? new Array<number>(width).fill(0));
        const transposed = (x: Dense): Dense => (x[0] ?? []).map((_, j) => x.map((row) => row[j] ?? 0));
        const a = updates.map(({ params }) => pad(denseOf(params.get(`${M}.lora_A.weight`)), shape.width));
        const b = updates.map(({ params, client }) =>
          combination(
            [client.scaling / s],
            [pad(transposed(denseOf(params.get(`${M}.lora_B.weight`))), shape.out)],
          ),
        );
        expect(distance(denseOf(state.params.get(`${M}.lora_A.weight`)), combination(w, a))).toBeLessThan(
          1e-10,
        );
        expect(
          distance(transposed(denseOf(state.params.get(`${M}.lora_B.weight`))), combination(w, b)),
        ).toBeLessThan(1e-10);
      }),
      { numRuns: 40 },
    );
  });

  it("is FedIT with uniform weights where ranks and norms are equal", () => {
    const updates = drawUpdates(M, shape, [2, 2, 2], "equal").map((update): Update => {
      const norm = frobenius(pairProduct(update.params, M));
      const b = new Map([...update.params].filter(([name]) => name.includes("lora_B")));
      return { ...update, params: new Map([...update.params, ...scale(b, 1 / norm)]) };
    });
    const { state } = aggregated(updates, { gamma: 1 });
    const plain = fedIt({ weighting: "uniform" }).aggregate(new Map(), updates, context).state;
    for (const factor of ["lora_A", "lora_B"]) {
      const [got, want] = [state.params, plain].map((params) => denseOf(params.get(`${M}.${factor}.weight`)));
      expect(distance(got ?? [], want ?? [])).toBeLessThan(1e-12);
    }
  });

  it("counts all clients alike where no product differs from 0", () => {
    const updates = [1, 3].map((numExamples, k): Update => {
      const client = { id: `c${k}`, rank: 2, scaling: 1 };
      const params = new Map(drawPair(M, shape, 2, `zero ${k}`));
      params.set(`${M}.lora_B.weight`, { dtype: "float64", shape: [9, 2], data: new Float64Array(18) });
      return { client, numExamples, params };
    });
    const { state } = aggregated(updates);
    const a = updates.map(({ params }) => denseOf(params.get(`${M}.lora_A.weight`)));
    const mean = combination([0.5, 0.5], a);
    expect(distance(denseOf(state.params.get(`${M}.lora_A.weight`)), mean)).toBeLessThan(1e-12);
  });

  it("gives every client the first components of one product, whatever its scaling", () => {
    const updates = drawUpdates(M, shape, [1, 4, 2], "nested");
    const { strategy, state } = aggregated(updates);
    for (const { client } of updates) {
      const { params } = strategy.broadcast(state, client, context);
      const cut = combination([state.scaling], [pairProduct(prefix(state.params, client.rank), M)]);
      expect(distance(combination([client.scaling], [pairProduct(params, M)]), cut)).toBeLessThan(1e-12);
      expect(scalars(params)).toBe(client.rank * (shape.out + shape.width) + 3);
    }
  });

  it("leaves components that no participant holds at 0", () => {
    const members = membersOf([1, 4, 2]);
    const initial = startPair(M, shape, 4);
    const run = rehearsal({ strategy: hetLora(), module: M, shape, members, initial });
    run.round(1, [0, 2]);
    const b = denseOf(run.state().params.get(`${M}.lora_B.weight`));
    expect(b.every((row) => row[2] === 0 && row[3] === 0)).toBe(true);
    expect(b.some((row) => row[1] !== 0)).toBe(true);
  });

  it("drops the last components where training shrank them, sends less from then on, and stops at the least rank", () => {
    const strategy = hetLora({ gamma: 0.6, minRank: 2 });
    const [client] = membersOf([4]);
    if (!client) throw new Error("no client");
    const initial = startPair(M, shape, 4, "normal");
    let state = strategy.init(initial, [client]);
    const seen: number[][] = [];
    for (const [t, factor] of [1.5, 0.5, 0.5, 0.5].entries()) {
      const received = strategy.broadcast(state, client, { ...context, round: t + 1 });
      const local = { client, received, memory: new Map(), initial, context };
      const params = scale(received.params, factor);
      const up = strategy.local?.upload?.({ ...local, params, numExamples: 5, steps: 1, learningRate: 1 });
      if (!up) throw new Error("no upload");
      state = strategy.aggregate(state, [{ client, numExamples: 5, ...up }], context).state;
      seen.push([received.params.get(`${M}.lora_A.weight`)?.shape[0] ?? 0, state.ranks[client.id] ?? 0]);
    }
    expect(seen).toEqual([
      [4, 4], // grown: kept
      [4, 2], // shrunk: floor(0.6 * 4)
      [2, 2], // floor(0.6 * 2) is below the least rank
      [2, 2],
    ]);
  });

  it("pads and cuts without touching what was there", () => {
    fc.assert(
      fc.property(fc.integer({ min: 1, max: 6 }), fc.integer({ min: 0, max: 4 }), (rank, more) => {
        const pair = drawPair(M, shape, rank, "pad");
        const wide = padded(pair, rank + more);
        expect(prefix(wide, rank)).toEqual(pair);
        expect(distance(pairProduct(wide, M), pairProduct(pair, M))).toBe(0);
      }),
    );
  });

  it("penalizes the tail, with the slope of finite differences", () => {
    const strategy = hetLora({ gamma: 0.6, lambda: 0.5 });
    const names = [`${M}.lora_A.weight`, `${M}.lora_B.weight`];
    const at = drawPair(M, shape, 3, "penalty"); // the tail: 3 - floor(1.8) = 2 components
    const w = new Map(names.map((name) => [name, input(name, "float64", at.get(name)?.shape ?? [])]));
    const penalty = strategy.local?.penalty?.(w, w);
    if (!penalty) throw new Error("no penalty");
    const inputs = [...w.values()];
    const feedsAt = (name: string, i: number, by: number) =>
      new Map(
        names.map((one) => {
          const tensor = at.get(one);
          const data = [...(tensor?.data ?? [])].map(
            (x, j) => Number(x) + (one === name && i === j ? by : 0),
          );
          return [one, array64(tensor?.shape ?? [], data)] as const;
        }),
      );
    const valueAt = (name: string, i: number, by: number) =>
      evaluate([penalty], inputs, feedsAt(name, i, by))[0]?.data[0] ?? Number.NaN;
    const a = denseOf(at.get(names[0] ?? "")).slice(1, 3);
    const b = denseOf(at.get(names[1] ?? "")).map((row) => row.slice(1, 3));
    expect(valueAt("", 0, 0)).toBeCloseTo(0.5 * frobenius(a) * frobenius(b), 12);
    const slopes = evaluate(gradients(penalty, inputs), inputs, feedsAt("", 0, 0));
    names.forEach((name, k) => {
      at.get(name)?.data.forEach((_: unknown, i: number) => {
        const h = 1e-6;
        const difference = (valueAt(name, i, h) - valueAt(name, i, -h)) / (2 * h);
        expect(slopes[k]?.data[i]).toBeCloseTo(difference, 7);
      });
    });
  });

  it("has a penalty without slope where the tail is 0, as B is at first", () => {
    const strategy = hetLora();
    const start = startPair(M, shape, 3);
    const names = [`${M}.lora_A.weight`, `${M}.lora_B.weight`];
    const w = new Map(names.map((name) => [name, input(name, "float64", start.get(name)?.shape ?? [])]));
    const penalty = strategy.local?.penalty?.(w, w);
    if (!penalty) throw new Error("no penalty");
    const feeds = new Map(
      names.map((name) => {
        const tensor = start.get(name);
        return [name, array64(tensor?.shape ?? [], [...(tensor?.data ?? [])].map(Number))];
      }),
    );
    for (const slope of evaluate(gradients(penalty, [...w.values()]), [...w.values()], feeds))
      expect(slope.data.every((x) => Number.isFinite(x) && Math.abs(x) < 1e-9)).toBe(true);
  });

  it("refuses a share beyond 1", () => {
    expect(() => hetLora({ gamma: 1.5 })).toThrow(/gamma is 1.5, expected/);
  });
});
