import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { clientHalf } from "../../src/federation/local-rule.ts";
import type { Strategy, Update } from "../../src/federation/strategy.ts";
import { fedIt } from "../../src/strategies/fedit.ts";
import { type FlascState, flasc, flascAdamw, spread } from "../../src/strategies/flasc.ts";
import { mapParams, type Params } from "../../src/tensor/params.ts";
import { placesBytes } from "../../src/tensor/places.ts";
import type { Tensor } from "../../src/tensor/tensor.ts";
import { clipped } from "../../src/wrappers/clipped.ts";
import { half } from "../../src/wrappers/half.ts";
import { quantized } from "../../src/wrappers/quantized.ts";
import { denseOf, drawPair, drawUpdates } from "./algebra.ts";

const M = "up_proj";
const context = { round: 1, seed: 1, numClients: 4 };
/** Numbers beside the pair. */
const H = 3;
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

/** What clients upload, what it means, and what they had trained. */
function trained(strategy: Strategy<FlascState>, { out, width, rank, clients, seed }: Setting) {
  const initial = drawPair(M, { out, width }, rank, `flasc ${seed}`);
  const drawn = drawUpdates(M, { out, width }, Array(clients).fill(rank), `flasc trained ${seed}`);
  const state = strategy.init(
    initial,
    drawn.map(({ client }) => client),
  );
  const updates = drawn.map((update): Update => {
    const received = strategy.broadcast(state, update.client, context);
    const local = clientHalf(strategy, {
      client: update.client,
      received,
      memory: undefined,
      initial,
      context,
    });
    return { ...update, ...local.upload({ ...update, steps: 1, learningRate: 1 }) };
  });
  const moves = updates.map((update) =>
    update.params.has("flasc.moves") ? flat(spread(update, initial)) : [],
  );
  return { initial, state, drawn, updates, moves, sent: flat(spread(state.sent, initial)) };
}

describe("FLASC", () => {
  it("evaluates and saves what clients start from, the largest weights alone", () => {
    fc.assert(
      fc.property(setting, ({ down, ...rest }) => {
        const strategy = flasc({ downDensity: down });
        const { state, updates, initial } = trained(strategy, rest);
        const next = strategy.aggregate(state, updates, context).state;
        expect(flat(strategy.global(next))).toEqual(flat(spread(next.sent, initial)));
        const size = flat(initial).length;
        expect(flat(strategy.global(next)).filter((x) => x !== 0).length).toBeLessThanOrEqual(
          Math.floor(down * size),
        );
      }),
      { numRuns: 20 },
    );
  });

  it("sends the largest ⌊d·D⌋ weights down, and up how far a client moved where it moved furthest", () => {
    fc.assert(
      fc.property(setting, (s) => {
        const strategy = flasc({ downDensity: s.down, upDensity: s.up });
        const { state, drawn, sent, moves } = trained(strategy, s);
        const dense = flat(state.params);
        const support = sent.filter((x) => x !== 0);
        expect(support).toHaveLength(Math.floor(s.down * dense.length));
        const dropped = dense.filter((_, i) => sent[i] === 0).map(Math.abs);
        expect(Math.min(...support.map(Math.abs))).toBeGreaterThanOrEqual(Math.max(0, ...dropped));
        moves.forEach((move, k) => {
          const full = flat(drawn[k]?.params ?? new Map()).map((x, i) => x - (sent[i] ?? 0));
          const moved = move.flatMap((x, i) => (x === 0 ? [] : [i]));
          expect(moved).toHaveLength(Math.floor(s.up * full.length));
          for (const i of moved) expect(move[i]).toBe(full[i]);
          const least = Math.min(...moved.map((i) => Math.abs(full[i] ?? 0)));
          for (const [i, x] of full.entries())
            if (move[i] === 0) expect(Math.abs(x)).toBeLessThanOrEqual(least);
        });
      }),
    );
  });

  it("adds the mean of the sparse moves to the dense weights", () => {
    fc.assert(
      fc.property(setting, (s) => {
        const strategy = flasc({ downDensity: s.down, upDensity: s.up, serverLearningRate: 0.5 });
        const { state, updates, moves } = trained(strategy, s);
        const next = strategy.aggregate(state, updates, context).state;
        const before = flat(state.params);
        flat(next.params).forEach((x, i) => {
          const move = moves.reduce((sum, one) => sum + (one[i] ?? 0) / moves.length, 0);
          expect(x).toBeCloseTo((before[i] ?? 0) + 0.5 * move, EXACT);
        });
      }),
    );
  });

  it("is FedIT with uniform weights at densities 1", () => {
    fc.assert(
      fc.property(setting, (s) => {
        const strategy = flasc({ downDensity: 1, upDensity: 1 });
        const { state, drawn, updates } = trained(strategy, s);
        const ours = strategy.aggregate(state, updates, context).state.params;
        const theirs = fedIt({ weighting: "uniform" }).aggregate(new Map(), drawn, context).state;
        const [x, y] = [flat(ours), flat(theirs)];
        x.forEach((value, i) => {
          expect(value).toBeCloseTo(y[i] ?? Number.NaN, EXACT);
        });
      }),
    );
  });

  it("sends no B before a client has moved it, whatever the density, since it starts at 0", () => {
    const pair = drawPair(M, { out: 6, width: 4 }, 2, "start");
    const initial = mapParams(pair, (x, name) => (name.includes("lora_B") ? zeroed(x) : x));
    for (const downDensity of [0.3, 0.9, 1]) {
      const { sent } = flasc({ downDensity }).init(initial, []);
      const received = spread(sent, initial);
      expect(denseOf(received.get(`${M}.lora_B.weight`)).flat()).toEqual(Array(12).fill(0));
      const count = Math.min(Math.floor(23 * downDensity), 8 + H); // of 12 + 8 + H numbers, 12 in B
      expect(sent.params.get("flasc.weights")?.shape).toEqual([count]);
    }
  });

  it("sends values and the shorter of a bit a number and 16 bits a value, both ways", () => {
    fc.assert(
      fc.property(setting, (s) => {
        const strategy = flasc({ downDensity: s.down, upDensity: s.up });
        const { state, updates } = trained(strategy, s);
        const D = s.rank * (s.out + s.width) + H;
        const bytes = (tensors: readonly Tensor[]): number =>
          tensors.reduce((sum, { data }) => sum + data.byteLength, 0);
        const expected = (density: number): number => {
          const count = Math.floor(density * D);
          return 8 * count + Math.min(Math.ceil(D / 8), 2 * count); // values are float64 here
        };
        for (const { params, extra = new Map() } of [state.sent, ...updates]) {
          const density = params === state.sent.params ? s.down : s.up;
          expect(bytes([...params.values(), ...extra.values()])).toBe(expected(density));
          expect(bytes([...extra.values()])).toBe(placesBytes(Math.floor(density * D), D));
        }
      }),
    );
  });

  it("refuses an update of another size than the density asks for", () => {
    const s = { out: 5, width: 3, rank: 2, clients: 2, seed: 3 };
    const { state, updates } = trained(flasc({ upDensity: 0.5 }), s);
    expect(() => flasc({ upDensity: 0.25 }).aggregate(state, updates, context)).toThrow(
      /client c0 sent 9 moves, expected 4 of 19 numbers/,
    );
  });

  it("is clipped by the length of what a client sent", () => {
    const s = { out: 5, width: 3, rank: 2, clients: 2, seed: 5 };
    const strategy = clipped(flasc({ upDensity: 0.5 }), { norm: 0.25 });
    const { state, updates, moves } = trained(strategy, s);
    const next = flat(strategy.aggregate(state, updates, context).state.params);
    const before = flat(state.params);
    next.forEach((x, i) => {
      const move = moves.reduce((sum, one) => sum + (0.25 * (one[i] ?? 0)) / Math.hypot(...one), 0);
      expect(x).toBeCloseTo((before[i] ?? 0) + move / 2, EXACT);
    });
  });

  it.each([
    ["16 bits", half, 2 ** -10],
    ["8 bits", quantized, 1 / 127],
  ] as const)("goes on with its values in %s, which no error feedback follows", (_, wrap, rounding) => {
    const s = { out: 9, width: 5, rank: 2, clients: 3, seed: 8 };
    const inner = flasc({ downDensity: 0.5, upDensity: 0.5 });
    const plain = trained(inner, s);
    const strategy = wrap(inner);
    const packed = trained(strategy, s);
    const ours = flat(strategy.aggregate(packed.state, packed.updates, context).state.params);
    const exact = flat(inner.aggregate(plain.state, plain.updates, context).state.params);
    const largest = Math.max(...plain.moves.flat().map(Math.abs));
    ours.forEach((value, i) => {
      expect(Math.abs(value - (exact[i] ?? Number.NaN))).toBeLessThan(rounding * largest);
    });
    expect(ours).not.toEqual(exact);
  });

  it("shrinks weights that nobody sent when the server's AdamW decays them", () => {
    const s = { out: 5, width: 3, rank: 2, clients: 2, down: 0, up: 0, seed: 4 };
    const strategy = flascAdamw({ downDensity: 0, upDensity: 0, serverLearningRate: 0.1, weightDecay: 0.5 });
    const initial = drawPair(M, s, s.rank, "decay");
    const state = strategy.init(initial, []);
    const { updates } = trained(strategy, s);
    const next = flat(strategy.aggregate(state, updates, context).state.params);
    flat(initial).forEach((x, i) => {
      expect(next[i]).toBeCloseTo(0.95 * x, EXACT);
    });
  });
});

const zeroed = ({ shape, data }: Tensor): Tensor => ({
  dtype: "float64",
  shape,
  data: new Float64Array(data.length),
});
