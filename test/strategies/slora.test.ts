import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { clientHalf } from "../../src/federation/local-rule.ts";
import type { ClientRef, Update } from "../../src/federation/strategy.ts";
import { fedIt } from "../../src/strategies/fedit.ts";
import { type SloraState, slora } from "../../src/strategies/slora.ts";
import { svd } from "../../src/tensor/linalg.ts";
import { matrix } from "../../src/tensor/matrix.ts";
import type { Params } from "../../src/tensor/params.ts";
import { stream } from "../../src/tensor/random.ts";
import { combination, denseOf, drawPair, drawUpdates, frobenius, pairProduct, shares } from "./algebra.ts";
import { startPair } from "./rehearsal.ts";

const M = "up_proj";
const D = `${M}.difference.weight`;
/** Float64 algebra on small matrices with entries of magnitude 1. */
const EXACT = 1e-10;
const SCALING = 1.5;

const setting = fc.record({
  out: fc.integer({ min: 2, max: 9 }),
  width: fc.integer({ min: 2, max: 9 }),
  rank: fc.integer({ min: 1, max: 4 }),
  clients: fc.integer({ min: 1, max: 4 }),
  density: fc.double({ min: 0.05, max: 1, noNaN: true }),
  seed: fc.integer({ min: 0, max: 1e6 }),
});
type Setting = typeof setting extends fc.Arbitrary<infer T> ? T : never;

/** Sparse rounds in which every client adds noise to the whole difference. */
function sparseRounds({ out, width, rank, clients, density, seed }: Setting, rounds: number) {
  const strategy = slora({ sparseRounds: rounds, density });
  const members = Array.from(
    { length: clients },
    (_, k): ClientRef => ({ id: `c${k}`, rank, scaling: SCALING }),
  );
  const initial = startPair(M, { out, width }, rank, "normal");
  let state = strategy.init(initial, members);
  const trained: Update[][] = [];
  const masks: number[][] = [];
  let measurements: Readonly<Record<string, number>> = {};
  for (let round = 1; round <= rounds; round++) {
    const context = { round, seed, numClients: clients };
    const held: Update[] = [];
    const updates = members.map((client, k): Update => {
      const received = strategy.broadcast(state, client, context);
      const half = clientHalf(strategy, { client, received, memory: undefined, initial, context });
      masks.push(denseOf(half.start.extra.get(D)).flat());
      const noise = stream({ seed, round, client: client.id, purpose: "noise" });
      const params = new Map(half.start.params);
      const start = denseOf(params.get(D)).flat();
      params.set(D, {
        dtype: "float64",
        shape: [out, width],
        data: Float64Array.from(start, (x) => x + noise.normal()),
      });
      const numExamples = 3 + 4 * k;
      held.push({ client, numExamples, params });
      return { client, numExamples, ...half.upload({ params, numExamples, steps: 1, learningRate: 1 }) };
    });
    trained.push(held);
    const result = strategy.aggregate(state, updates, context);
    state = result.state;
    measurements = result.measurements ?? {};
  }
  return { strategy, members, initial, state, trained, masks, measurements };
}

const held = (s: Setting, { strategy, state, members, initial }: ReturnType<typeof sparseRounds>): Params => {
  const [client = { id: "", rank: 1, scaling: 1 }] = members;
  const context = { round: 9, seed: s.seed, numClients: s.clients };
  const received = strategy.broadcast(state, client, context);
  return clientHalf(strategy, { client, received, memory: undefined, initial, context }).start.params;
};

describe("SLoRA", () => {
  it("gives all clients and rounds one mask, and averages the masked entries alone", () => {
    fc.assert(
      fc.property(setting, (s) => {
        const run = sparseRounds(s, 2);
        expect(new Set(run.masks.map(String)).size).toBe(1);
      }),
      { numRuns: 20 },
    );
    fc.assert(
      fc.property(setting, (s) => {
        const strategy = slora({ sparseRounds: 2, density: s.density });
        const one = sparseRoundOf(s, strategy);
        const mask = one.mask;
        const mean = combination(
          shares(one.updates),
          one.trained.map((params) => denseOf(params.get(D))),
        );
        const expected = mean.flat().map((x, i) => x * (mask[i] ?? 0));
        const got = denseOf(one.held.get(D)).flat();
        expect(frobenius(combination([1, -1], [[got], [expected]]))).toBeLessThan(EXACT);
        got.forEach((x, i) => {
          if (mask[i] === 0) expect(x).toBe(0);
        });
        for (const { params } of one.updates)
          expect(params.get(`${M}.difference.values`)?.data.length).toBe(mask.filter((x) => x === 1).length);
      }),
      { numRuns: 40 },
    );
  });

  it("starts the factors with the best approximation of what the sparse rounds changed, and drops the rest", () => {
    fc.assert(
      fc.property(setting, (s) => {
        const run = sparseRounds(s, 1);
        const mask = run.masks[0] ?? [];
        const mean = combination(
          shares(run.trained[0] ?? []),
          (run.trained[0] ?? []).map(({ params }) => denseOf(params.get(D))),
        );
        const delta = mean.flat().map((x, i) => x * (mask[i] ?? 0));
        const { singularValues } = svd(matrix(s.out, s.width, delta));
        const tail = Math.sqrt([...singularValues.slice(s.rank)].reduce((sum, x) => sum + x * x, 0));
        const start = held(s, run);
        const rows = Array.from({ length: s.out }, (_, i) => delta.slice(i * s.width, (i + 1) * s.width));
        const distance = frobenius(combination([SCALING, -1], [pairProduct(start, M), rows]));
        expect(Math.abs(distance - tail)).toBeLessThan(1e-8);
        expect(run.measurements[`deviation/${M}`]).toBeCloseTo(tail, 7);
        expect(start.has(D)).toBe(false);
      }),
      { numRuns: 40 },
    );
  });

  it("goes on as FedIT, and is FedIT without sparse rounds", () => {
    const shape = { out: 6, width: 4 };
    const updates = drawUpdates(M, shape, [2, 2, 2], "fedit");
    const context = { round: 1, seed: 1, numClients: 3 };
    const strategy = slora({ sparseRounds: 0 });
    const initial = drawPair(M, shape, 2, "start");
    const ours = strategy.aggregate(
      strategy.init(
        initial,
        updates.map(({ client }) => client),
      ),
      updates,
      context,
    );
    const theirs = fedIt().aggregate(initial, updates, context);
    expect(ours.state.params).toEqual(theirs.state);
    expect(ours.measurements).toEqual(theirs.measurements);
  });

  it("starts with B = 0 and a usable A if the sparse rounds changed nothing", () => {
    const shape = { out: 6, width: 4 };
    const strategy = slora({ sparseRounds: 1, density: 0.5 });
    const initial = startPair(M, shape, 2, "zero");
    const client = { id: "a", rank: 2, scaling: 1 };
    const context = { round: 1, seed: 1, numClients: 1 };
    const state = strategy.init(initial, [client]);
    const received = strategy.broadcast(state, client, context);
    const half = clientHalf(strategy, { client, received, memory: undefined, initial, context });
    const { params } = half.upload({ params: half.start.params, numExamples: 1, steps: 1, learningRate: 1 });
    const next = strategy.aggregate(state, [{ client, numExamples: 1, params }], context).state;
    expect(
      denseOf(next.params.get(`${M}.lora_B.weight`))
        .flat()
        .every((x) => x === 0),
    ).toBe(true);
    for (const row of denseOf(next.params.get(`${M}.lora_A.weight`)))
      expect(frobenius([row])).toBeCloseTo(1, 9);
  });

  it("refuses a density outside (0, 1]", () => {
    expect(() => slora({ density: 0 })).toThrow(/density is 0/);
    expect(() => slora({ density: 1.5 })).toThrow(/density is 1.5/);
  });
});

/** One sparse round, and what clients hold after it. */
function sparseRoundOf({ out, width, rank, clients, seed }: Setting, strategy: ReturnType<typeof slora>) {
  const context = { round: 1, seed, numClients: clients };
  const initial = startPair(M, { out, width }, rank, "zero");
  const members = Array.from(
    { length: clients },
    (_, k): ClientRef => ({ id: `c${k}`, rank, scaling: SCALING }),
  );
  let state: SloraState = strategy.init(initial, members);
  const halfOf = (client: ClientRef) =>
    clientHalf(strategy, {
      client,
      received: strategy.broadcast(state, client, context),
      memory: undefined,
      initial,
      context,
    });
  const trained: Params[] = [];
  const updates = members.map((client, k): Update => {
    const half = halfOf(client);
    const noise = stream({ seed, client: client.id, purpose: "noise" });
    const data = new Float64Array(out * width);
    noise.fillNormal(data, 0, 1);
    const params = new Map([
      ...half.start.params,
      [D, { dtype: "float64", shape: [out, width], data }] as const,
    ]);
    trained.push(params);
    const numExamples = 3 + 4 * k;
    return { client, numExamples, ...half.upload({ params, numExamples, steps: 1, learningRate: 1 }) };
  });
  const [first = { id: "", rank: 1, scaling: 1 }] = members;
  const mask = denseOf(halfOf(first).start.extra.get(D)).flat();
  state = strategy.aggregate(state, updates, context).state;
  return { updates, trained, mask, held: halfOf(first).start.params };
}
