import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { coreName } from "../../src/adapters/tri-lora.ts";
import type { StateTree, Strategy } from "../../src/federation/strategy.ts";
import { ceLora } from "../../src/strategies/ce-lora.ts";
import { coordinateMedian } from "../../src/strategies/coordinate-median.ts";
import { fedAvg } from "../../src/strategies/fedavg.ts";
import { fedAvgM } from "../../src/strategies/fedavgm.ts";
import { fedBuff } from "../../src/strategies/fedbuff.ts";
import { fedexLora, fedexLoraKeepLocal, fedexLoraReinit } from "../../src/strategies/fedex-lora.ts";
import { fedFtg } from "../../src/strategies/fedftg.ts";
import { fedHm } from "../../src/strategies/fedhm.ts";
import { fedIt } from "../../src/strategies/fedit.ts";
import { fedlease } from "../../src/strategies/fedlease.ts";
import { fedLoru } from "../../src/strategies/fedloru.ts";
import { fedAdagrad, fedAdam, fedYogi } from "../../src/strategies/fedopt.ts";
import { fedProx } from "../../src/strategies/fedprox.ts";
import { fedsaLora } from "../../src/strategies/fedsa-lora.ts";
import { ffaLora } from "../../src/strategies/ffa-lora.ts";
import { flTac } from "../../src/strategies/fl-tac.ts";
import { flasc } from "../../src/strategies/flasc.ts";
import { flexLora } from "../../src/strategies/flexlora.ts";
import { flora } from "../../src/strategies/flora.ts";
import { frLora } from "../../src/strategies/frlora.ts";
import { fsLora } from "../../src/strategies/fslora.ts";
import { geometricMedian } from "../../src/strategies/geometric-median.ts";
import { hetLora } from "../../src/strategies/hetlora.ts";
import { krum } from "../../src/strategies/krum.ts";
import { localOnly } from "../../src/strategies/local-only.ts";
import { loraFair } from "../../src/strategies/lora-fair.ts";
import { mFedLoru } from "../../src/strategies/mfedloru.ts";
import { pFedLoru } from "../../src/strategies/pfedloru.ts";
import { scaffold } from "../../src/strategies/scaffold.ts";
import { slora } from "../../src/strategies/slora.ts";
import { trimmedMean } from "../../src/strategies/trimmed-mean.ts";
import type { Params } from "../../src/tensor/params.ts";
import { drawPair, float64 } from "./algebra.ts";
import { membersOf, rehearsal, scalars, startPair } from "./rehearsal.ts";

const M = "up_proj";
/** Scalars of the head that is trained beside the factors. */
const H = 3;

const setting = fc.record({
  out: fc.integer({ min: 2, max: 40 }),
  width: fc.integer({ min: 2, max: 40 }),
  rank: fc.integer({ min: 1, max: 6 }),
  clients: fc.integer({ min: 1, max: 4 }),
});
type Setting = typeof setting extends fc.Arbitrary<infer T> ? T : never;

/** What every client sends and receives in one round, the base changes of that round included. */
function trafficOf<State extends StateTree>(
  strategy: Strategy<State>,
  { out, width }: Setting,
  ranks: readonly number[],
  initial?: Params,
) {
  const shape = { out, width };
  const start = initial ?? startPair(M, shape, Math.max(...ranks), "normal");
  const run = rehearsal({ strategy, module: M, shape, members: membersOf(ranks), initial: start });
  run.round(1);
  return [...run.round(2).traffic.values()];
}

/** L(r), the scalars of a pair. */
const pair = ({ out, width }: Setting, rank: number): number => rank * (out + width);

describe("scalars on the wire, for each client and round", () => {
  const same: Readonly<Record<string, Strategy>> = {
    FedIT: fedIt(),
    "LoRA-FAIR": loraFair(),
    FRLoRA: frLora(),
    "FedLoRU merged in every round": fedLoru({ mergeEvery: 1 }),
    "FedLoRU not merged": fedLoru({ mergeEvery: 9 }),
  };
  it.each(Object.entries(same))("%s: L(r) + H both ways", (_, strategy) => {
    fc.assert(
      fc.property(setting, (s) => {
        const ranks = Array.from({ length: s.clients }, () => s.rank);
        const expected = pair(s, s.rank) + H;
        for (const { up, down } of trafficOf(strategy, s, ranks))
          expect([up, down]).toEqual([expected, expected]);
      }),
      { numRuns: 20 },
    );
  });

  it("FFA-LoRA: r out + H both ways", () => {
    fc.assert(
      fc.property(setting, (s) => {
        const ranks = Array.from({ length: s.clients }, () => s.rank);
        const expected = s.rank * s.out + H;
        for (const { up, down } of trafficOf(ffaLora(), s, ranks))
          expect([up, down]).toEqual([expected, expected]);
      }),
      { numRuns: 20 },
    );
  });

  it("FlexLoRA and HetLoRA: L(r_k) + H both ways", () => {
    fc.assert(
      fc.property(
        setting,
        fc.array(fc.integer({ min: 1, max: 6 }), { minLength: 1, maxLength: 4 }),
        (s, ranks) => {
          const expected = ranks.map((rank) => pair(s, rank) + H);
          const flex = trafficOf(flexLora(), s, ranks);
          expect(flex.map(({ up }) => up)).toEqual(expected);
          expect(flex.map(({ down }) => down)).toEqual(expected);
          const het = trafficOf(hetLora({ gamma: 1 }), s, ranks);
          expect(het.map(({ up }) => up - 1)).toEqual(expected); // beside its rank, one number
          expect(het.map(({ down }) => down)).toEqual(expected);
        },
      ),
      { numRuns: 20 },
    );
  });

  it("FLoRA: L(r_k) + H up, the stack of all and H down", () => {
    fc.assert(
      fc.property(
        setting,
        fc.array(fc.integer({ min: 1, max: 6 }), { minLength: 1, maxLength: 4 }),
        (s, ranks) => {
          const stack = ranks.reduce((sum, rank) => sum + pair(s, rank), 0);
          trafficOf(flora(), s, ranks).forEach(({ up, down }, k) => {
            expect([up, down]).toEqual([pair(s, ranks[k] ?? 0) + H, stack + H]);
          });
        },
      ),
      { numRuns: 20 },
    );
  });

  it("FedEx-LoRA: L(r) + H up, at most K L(r) + H down, L(r) + L(q) + H with a residual of rank q", () => {
    fc.assert(
      fc.property(setting, (s) => {
        const ranks = Array.from({ length: s.clients }, () => s.rank);
        const dense = s.out * s.width;
        for (const { up, down } of trafficOf(fedexLora(), s, ranks)) {
          expect(up).toBe(pair(s, s.rank) + H);
          expect(down).toBeLessThanOrEqual(
            pair(s, s.rank) + H + Math.min(dense, pair(s, (s.clients - 1) * s.rank)),
          );
        }
        const q = Math.min(1, (s.clients - 1) * s.rank);
        for (const { down } of trafficOf(fedexLora({ residualRank: 1 }), s, ranks))
          expect(down).toBe(pair(s, s.rank) + H + Math.min(dense, pair(s, q)));
      }),
      { numRuns: 20 },
    );
  });

  it("FedAvg, FedAvgM, FedFTG, FedBuff and the robust rules: P both ways; SCAFFOLD, with its control variates: 2 P", () => {
    fc.assert(
      fc.property(setting, (s) => {
        const initial = drawPair(M, s, s.rank, "dense");
        const ranks = Array.from({ length: s.clients }, () => s.rank);
        const P = scalars(initial);
        const likeFedAvg: readonly Strategy[] = [
          fedAvg(),
          fedAvgM(),
          fedFtg(),
          fedBuff(),
          krum(),
          coordinateMedian(),
        ];
        for (const strategy of likeFedAvg)
          for (const { up, down } of trafficOf<StateTree>(strategy, s, ranks, initial))
            expect([up, down]).toEqual([P, P]);
        for (const { up, down } of trafficOf(scaffold(), s, ranks, initial))
          expect([up, down]).toEqual([2 * P, 2 * P]);
      }),
      { numRuns: 20 },
    );
  });

  it("FedHM: q (out + in) and what stays whole, both ways", () => {
    fc.assert(
      fc.property(setting, fc.double({ min: 1, max: 4, noNaN: true }), (s, ratio) => {
        const initial: Params = new Map([
          [`${M}.weight`, float64([s.out, s.width], new Float64Array(s.out * s.width).fill(1))],
          ["head.bias", float64([H], new Float64Array(H))],
        ]);
        const share = s.out / ratio;
        fc.pre(share % 1 !== 0.5);
        const q = Math.max(1, Math.min(Math.round(share), s.out, s.width));
        const ranks = Array.from({ length: s.clients }, () => 1);
        for (const { up, down } of trafficOf(fedHm({ ratios: [ratio] }), s, ranks, initial))
          expect([up, down]).toEqual([pair(s, q) + H, pair(s, q) + H]);
      }),
      { numRuns: 20 },
    );
  });

  it("FedSA-LoRA: r in both ways", () => {
    fc.assert(
      fc.property(setting, (s) => {
        const ranks = Array.from({ length: s.clients }, () => s.rank);
        for (const { up, down } of trafficOf(fedsaLora(), s, ranks))
          expect([up, down]).toEqual([s.rank * s.width, s.rank * s.width]);
      }),
      { numRuns: 20 },
    );
  });

  it("FSLoRA: L(k_i) + H both ways, the slice being all that a client reads", () => {
    fc.assert(
      fc.property(
        setting,
        fc.array(fc.integer({ min: 1, max: 6 }), { minLength: 1, maxLength: 4 }),
        (s, ranks) => {
          trafficOf(fsLora(), s, ranks).forEach(({ up, down }, k) => {
            expect([up, down]).toEqual([pair(s, ranks[k] ?? 0) + H, pair(s, ranks[k] ?? 0) + H]);
          });
        },
      ),
      { numRuns: 20 },
    );
  });

  it("FLASC: ⌊d D⌋ values and their places both ways", () => {
    fc.assert(
      fc.property(setting, (s) => {
        const ranks = Array.from({ length: s.clients }, () => s.rank);
        const [downDensity, upDensity] = [0.4, 0.2];
        const D = pair(s, s.rank) + H;
        const places = (count: number): number => (Math.ceil(D / 8) < 2 * count ? Math.ceil(D / 8) : count);
        const [down, up] = [Math.floor(downDensity * D), Math.floor(upDensity * D)];
        for (const traffic of trafficOf(flasc({ downDensity, upDensity }), s, ranks))
          expect(traffic).toEqual({ down: down + places(down), up: up + places(up) });
      }),
      { numRuns: 20 },
    );
  });

  it("SLoRA: the masked entries and H both ways, then L(r) + H", () => {
    fc.assert(
      fc.property(setting, fc.double({ min: 0.1, max: 1, noNaN: true }), (s, share) => {
        const ranks = Array.from({ length: s.clients }, () => s.rank);
        const count = Math.max(1, Math.floor(share * s.out * s.width));
        const strategy = slora({ sparseRounds: 3, mask: () => Array.from({ length: count }, (_, i) => i) });
        for (const { up, down } of trafficOf(strategy, s, ranks))
          expect([up, down]).toEqual([count + H, count + H]);
        for (const { up, down } of trafficOf(slora({ sparseRounds: 1 }), s, ranks))
          expect([up, down]).toEqual([pair(s, s.rank) + H, pair(s, s.rank) + H]);
      }),
      { numRuns: 20 },
    );
  });

  it("FL-TAC: L(r) + H both ways for each task", () => {
    fc.assert(
      fc.property(setting, (s) => {
        const ranks = Array.from({ length: s.clients }, () => s.rank);
        for (const { up, down } of trafficOf(flTac({ tasks: 2 }), s, ranks))
          expect([up, down]).toEqual([pair(s, s.rank) + H, pair(s, s.rank) + H]);
      }),
      { numRuns: 20 },
    );
  });

  it("FedProx, the server optimizers and the other robust rules: P both ways", () => {
    fc.assert(
      fc.property(setting, (s) => {
        const initial = drawPair(M, s, s.rank, "dense");
        const ranks = Array.from({ length: s.clients }, () => s.rank);
        const expected = [scalars(initial), scalars(initial)];
        const likeFedAvg: readonly Strategy[] = [
          fedProx(),
          fedAdagrad(),
          fedAdam(),
          fedYogi(),
          trimmedMean({ beta: 0 }),
          geometricMedian(),
        ];
        for (const strategy of likeFedAvg)
          for (const { up, down } of trafficOf<StateTree>(strategy, s, ranks, initial))
            expect([up, down]).toEqual(expected);
      }),
      { numRuns: 10 },
    );
  });

  it("local training: nothing", () => {
    fc.assert(
      fc.property(setting, (s) => {
        for (const { up, down } of trafficOf(localOnly(), s, [s.rank, s.rank]))
          expect([up, down]).toEqual([0, 0]);
      }),
      { numRuns: 5 },
    );
  });

  it("FedEx-LoRA, re-initialized: L(r) + H up, at most K L(r) + H down; with local factors kept at most 2 K L(r) + H", () => {
    fc.assert(
      fc.property(setting, (s) => {
        const ranks = Array.from({ length: s.clients }, () => s.rank);
        const dense = s.out * s.width;
        const bounds: readonly (readonly [Strategy, number])[] = [
          [fedexLoraReinit(), s.clients],
          [fedexLoraKeepLocal(), 2 * s.clients],
        ];
        for (const [strategy, blocks] of bounds) {
          for (const { up, down } of trafficOf(strategy, s, ranks)) {
            expect(up).toBe(pair(s, s.rank) + H);
            expect(down).toBeLessThanOrEqual(Math.min(dense, blocks * pair(s, s.rank)) + H);
          }
        }
      }),
      { numRuns: 20 },
    );
  });

  it("pFedLoRU: L(r) + H both ways, the private pair staying where it is", () => {
    fc.assert(
      fc.property(setting, fc.constantFrom(1, 9), (s, mergeEvery) => {
        const ranks = Array.from({ length: s.clients }, () => s.rank);
        const start = startPair(M, s, s.rank, "normal");
        const own = [...start].filter(([name]) => name.includes("lora_"));
        const initial = new Map([
          ...start,
          ...own.map(([name, tensor]) => [name.replace("lora_", "private_"), tensor] as const),
        ]);
        const expected = pair(s, s.rank) + H;
        for (const { up, down } of trafficOf(pFedLoru({ mergeEvery }), s, ranks, initial))
          expect([up, down]).toEqual([expected, expected]);
      }),
      { numRuns: 20 },
    );
  });

  it("mFedLoRU: q_k (out + in) + 2 r q_k + H up, L(r) + H and the inner rank down", () => {
    const inner = fc.array(fc.integer({ min: 1, max: 4 }), { minLength: 1, maxLength: 4 });
    fc.assert(
      fc.property(setting, inner, (s, innerRanks) => {
        const ranks = innerRanks.map(() => s.rank);
        trafficOf(mFedLoru({ mergeEvery: 9, innerRanks }), s, ranks).forEach(({ up, down }, k) => {
          const q = innerRanks[k] ?? 0;
          expect(up).toBe(pair(s, q) + 2 * s.rank * q + H);
          expect(down).toBe(pair(s, s.rank) + H + 1);
        });
      }),
      { numRuns: 20 },
    );
  });

  it("CE-LoRA: r² both ways", () => {
    fc.assert(
      fc.property(setting, (s) => {
        const ranks = Array.from({ length: s.clients }, () => s.rank);
        const core = float64([s.rank, s.rank], new Float64Array(s.rank ** 2).fill(1));
        const initial = new Map([...startPair(M, s, s.rank, "normal"), [coreName(M), core] as const]);
        for (const { up, down } of trafficOf(ceLora(), s, ranks, initial))
          expect([up, down]).toEqual([s.rank ** 2, s.rank ** 2]);
      }),
      { numRuns: 20 },
    );
  });

  it("FedLEASE: own expert, router and H up; M experts, router and H down, once clients have trained alone", () => {
    fc.assert(
      fc.property(setting, fc.integer({ min: 2, max: 4 }), (s, maxExperts) => {
        const ranks = Array.from({ length: s.clients }, () => s.rank);
        const shape = { out: s.out, width: s.width };
        const initial = startPair(M, shape, s.rank, "normal");
        const strategy = fedlease({ warmupRounds: 1, maxExperts });
        const run = rehearsal({ strategy, module: M, shape, members: membersOf(ranks), initial });
        run.round(1);
        const experts = run.state().experts.length;
        const router = (2 * experts - 1) * s.width;
        for (const { up, down } of run.round(2).traffic.values()) {
          expect(up).toBe(pair(s, s.rank) + router + H);
          expect(down).toBe(experts * pair(s, s.rank) + router + H);
        }
      }),
      { numRuns: 20 },
    );
  });
});
