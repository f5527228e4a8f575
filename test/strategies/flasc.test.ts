import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { clientHalf } from "../../src/federation/local-rule.ts";
import type { Strategy, Update } from "../../src/federation/strategy.ts";
import { fedIt } from "../../src/strategies/fedit.ts";
import { type FlascState, flasc, flascAdamw } from "../../src/strategies/flasc.ts";
import type { Params } from "../../src/tensor/params.ts";
import { denseOf, drawPair, drawUpdates } from "./algebra.ts";

const M = "up_proj";
const context = { round: 1, seed: 1, numClients: 4 };
/** Float64 sums of a few terms of magnitude 1. */
const EXACT = 12;

const setting = fc.record({
  out: fc.integer({ min: 2, max: 9 }),
  width: fc.integer({ min: 2, max: 9 }),
  rank: fc.integer({ min: 1, max: 4 }),
  clients: fc.integer({ min: 1, max: 4 }),
  down: fc.double({ min: 0, max: 1, noNaN: true }),
  up: fc.double({ min: 0, max: 1, noNaN: true }),
  seed: fc.integer({ min: 0, max: 1e6 }),
});

interface Setting {
  readonly out: number;
  readonly width: number;
  readonly rank: number;
  readonly clients: number;
  readonly seed: number;
}

const flat = (params: Params): number[] =>
  [...params.keys()].sort().flatMap((name) => [...(params.get(name)?.data ?? [])].map(Number));

/** What clients upload, and what they had trained. */
function trained(strategy: Strategy<FlascState>, { out, width, rank, clients, seed }: Setting) {
  const initial = drawPair(M, { out, width }, rank, `flasc ${seed}`);
  const drawn = drawUpdates(M, { out, width }, Array(clients).fill(rank), `flasc trained ${seed}`);
  const state = strategy.init(
    initial,
    drawn.map(({ client }) => client),
  );
  const updates = drawn.map((update): Update => {
    const received = strategy.broadcast(state, update.client, context);
    const half = clientHalf(strategy, {
      client: update.client,
      received,
      memory: undefined,
      initial,
      context,
    });
    const { params } = half.upload({ ...update, steps: 1, learningRate: 1 });
    return { ...update, params };
  });
  return { state, drawn, updates };
}

describe("FLASC", () => {
  it("sends the largest ⌊d·D⌋ weights down, and up the values where a client moved furthest", () => {
    fc.assert(
      fc.property(setting, (s) => {
        const strategy = flasc({ downDensity: s.down, upDensity: s.up });
        const { state, drawn, updates } = trained(strategy, s);
        const [dense, sent] = [flat(state.params), flat(state.sent)];
        const support = sent.filter((x) => x !== 0);
        expect(support).toHaveLength(Math.floor(s.down * dense.length));
        const dropped = dense.filter((_, i) => sent[i] === 0).map(Math.abs);
        expect(Math.min(...support.map(Math.abs))).toBeGreaterThanOrEqual(Math.max(0, ...dropped));
        updates.forEach(({ params }, k) => {
          const goal = flat(drawn[k]?.params ?? new Map());
          const changed = flat(params).flatMap((x, i) => (x === sent[i] ? [] : [i]));
          expect(changed).toHaveLength(Math.floor(s.up * goal.length));
          for (const i of changed) expect(flat(params)[i]).toBe(goal[i]);
        });
      }),
    );
  });

  it("adds the mean of the sparse moves to the dense weights", () => {
    fc.assert(
      fc.property(setting, (s) => {
        const strategy = flasc({ downDensity: s.down, upDensity: s.up, serverLearningRate: 0.5 });
        const { state, updates } = trained(strategy, s);
        const next = strategy.aggregate(state, updates, context).state;
        const [before, sent] = [flat(state.params), flat(state.sent)];
        flat(next.params).forEach((x, i) => {
          const move = updates.reduce(
            (sum, { params }) => sum + ((flat(params)[i] ?? 0) - (sent[i] ?? 0)) / updates.length,
            0,
          );
          expect(x).toBeCloseTo((before[i] ?? 0) + 0.5 * move, EXACT);
        });
      }),
    );
  });

  it("is FedIT with uniform weights at densities 1", () => {
    fc.assert(
      fc.property(setting, (s) => {
        const strategy = flasc({ downDensity: 1, upDensity: 1 });
        const { state, updates } = trained(strategy, s);
        const ours = strategy.aggregate(state, updates, context).state.params;
        const theirs = fedIt({ weighting: "uniform" }).aggregate(new Map(), updates, context).state;
        const [x, y] = [flat(ours), flat(theirs)];
        x.forEach((value, i) => {
          expect(value).toBeCloseTo(y[i] ?? Number.NaN, EXACT);
        });
      }),
    );
  });

  it("sends no B before a client has moved it, since it starts at 0", () => {
    const pair = drawPair(M, { out: 6, width: 4 }, 2, "start");
    const initial = new Map(
      [...pair].map(([name, x]) => [name, name.includes("lora_B") ? zeroed(x) : x] as const),
    );
    const { sent } = flasc({ downDensity: 0.3 }).init(initial, []);
    expect(denseOf(sent.get(`${M}.lora_B.weight`)).flat()).toEqual(Array(12).fill(0));
  });

  it("shrinks weights that nobody sent when the server's AdamW decays them", () => {
    const s = { out: 5, width: 3, rank: 2, clients: 2, down: 0, up: 0, seed: 4 };
    const strategy = flascAdamw({ downDensity: 0, upDensity: 0, serverLearningRate: 0.1, weightDecay: 0.5 });
    const initial = drawPair(M, s, s.rank, "decay");
    const state = strategy.init(initial, []);
    const updates = drawUpdates(M, s, [2, 2], "decay").map((update) => ({ ...update, params: state.sent }));
    const next = flat(strategy.aggregate(state, updates, context).state.params);
    flat(initial).forEach((x, i) => {
      expect(next[i]).toBeCloseTo(0.95 * x, EXACT);
    });
  });
});

const zeroed = <T extends { readonly data: ArrayLike<number | bigint>; readonly shape: readonly number[] }>({
  shape,
  data,
}: T) => ({ dtype: "float64", shape, data: new Float64Array(data.length) }) as const;
