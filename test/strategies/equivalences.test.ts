import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { applyChanges } from "../../src/federation/base-chain.ts";
import type { StateTree, Strategy, Update } from "../../src/federation/strategy.ts";
import { fedAvg } from "../../src/strategies/fedavg.ts";
import { fedAvgM } from "../../src/strategies/fedavgm.ts";
import { fedexLora } from "../../src/strategies/fedex-lora.ts";
import { fedIt } from "../../src/strategies/fedit.ts";
import { fedLoru } from "../../src/strategies/fedloru.ts";
import { flexLora } from "../../src/strategies/flexlora.ts";
import { flora } from "../../src/strategies/flora.ts";
import { hetLora } from "../../src/strategies/hetlora.ts";
import { loraFair } from "../../src/strategies/lora-fair.ts";
import { scaffold } from "../../src/strategies/scaffold.ts";
import { zerosLike } from "../../src/tensor/params.ts";
import {
  combination,
  type Dense,
  denseOf,
  drawPair,
  drawUpdates,
  frobenius,
  idealProduct,
  pairProduct,
} from "./algebra.ts";

const M = "q_proj";
/** Float64 algebra on matrices of at most 12 x 12 with entries of magnitude 1. */
const EXACT = 1e-9;

const setting = fc.record({
  out: fc.integer({ min: 2, max: 12 }),
  width: fc.integer({ min: 2, max: 12 }),
  rank: fc.integer({ min: 1, max: 5 }),
  clients: fc.integer({ min: 1, max: 5 }),
  seed: fc.integer({ min: 0, max: 1e6 }),
});
type Setting = typeof setting extends fc.Arbitrary<infer T> ? T : never;

const context = { round: 1, seed: 1, numClients: 5 };
const distance = (x: Dense, y: Dense): number => frobenius(combination([1, -1], [x, y]));

function updatesOf({ out, width, rank, clients, seed }: Setting): Update[] {
  const ranks = Array.from({ length: clients }, () => rank);
  return drawUpdates(M, { out, width }, ranks, `equal ${seed}`);
}

/** The update of the weight that the client of the largest rank holds after one aggregation. */
function weightAfter<State extends StateTree>(strategy: Strategy<State>, updates: readonly Update[]): Dense {
  const clients = updates.map(({ client }) => client);
  const largest = clients.reduce(
    (a, b) => (b.rank > a.rank ? b : a),
    clients[0] ?? { id: "", rank: 0, scaling: 1 },
  );
  const [first] = updates.filter(({ client }) => client.rank === largest.rank);
  const { state, base = [] } = strategy.aggregate(
    strategy.init(first?.params ?? new Map(), clients),
    updates,
    context,
  );
  const change = applyChanges(new Map(), base).get(`${M}.weight`);
  const product = pairProduct(strategy.global(state, largest), M);
  return combination(
    [largest.scaling, ...(change ? [1] : [])],
    [product, ...(change ? [denseOf(change)] : [])],
  );
}

describe("methods that must agree", () => {
  it("FedEx-LoRA and FLoRA hold the same model after one aggregation of the same factors", () => {
    fc.assert(
      fc.property(setting, (s) => {
        const updates = updatesOf(s);
        expect(distance(weightAfter(fedexLora(), updates), weightAfter(flora(), updates))).toBeLessThan(
          EXACT,
        );
      }),
    );
  });

  it("FLoRA and FlexLoRA hold the same model where the mean product fits into the largest rank", () => {
    const ranks = fc.array(fc.integer({ min: 1, max: 3 }), { minLength: 1, maxLength: 3 });
    fc.assert(
      fc.property(ranks, fc.integer({ min: 0, max: 1e6 }), (list, seed) => {
        const shape = { out: 12, width: 11 };
        const updates = drawUpdates(M, shape, list, `fits ${seed}`);
        const rank = list.reduce((a, b) => a + b, 0); // of the mean product
        const observer: Update = {
          client: { id: "wide", rank, scaling: 1 },
          numExamples: 0,
          params: drawPair(M, shape, rank, "wide"),
        };
        const all = [...updates, observer];
        expect(distance(weightAfter(flexLora(), all), weightAfter(flora(), all))).toBeLessThan(EXACT);
      }),
    );
  });

  it("FedLoRU merged in every round puts FedIT's product into the base", () => {
    fc.assert(
      fc.property(setting, (s) => {
        const updates = updatesOf(s);
        const merged = weightAfter(fedLoru({ mergeEvery: 1 }), updates);
        expect(distance(merged, weightAfter(fedIt(), updates))).toBeLessThan(EXACT);
      }),
    );
  });

  it("LoRA-FAIR with a large lambda is FedIT", () => {
    fc.assert(
      fc.property(setting, (s) => {
        const updates = updatesOf(s);
        expect(
          distance(weightAfter(loraFair({ lambda: 1e13 }), updates), weightAfter(fedIt(), updates)),
        ).toBeLessThan(1e-6);
      }),
    );
  });

  it("HetLoRA of clients that agree, SCAFFOLD without gradients and FedAvgM at its first step are the mean", () => {
    fc.assert(
      fc.property(setting, (s) => {
        const [first] = updatesOf(s);
        if (!first) return;
        const same = [1, 2].map((k): Update => ({ ...first, client: { ...first.client, id: `c${k}` } }));
        expect(distance(weightAfter(hetLora({ gamma: 1 }), same), idealProduct(same, M))).toBeLessThan(EXACT);
        const updates = updatesOf(s);
        const still = updates.map((update) => ({ ...update, extra: zerosLike(update.params) }));
        const uniform = weightAfter(fedAvg({ weighting: "uniform" }), updates);
        expect(distance(weightAfter(scaffold(), still), uniform)).toBeLessThan(EXACT);
        expect(distance(weightAfter(fedAvgM(), updates), weightAfter(fedAvg(), updates))).toBeLessThan(EXACT);
      }),
    );
  });

  it("order by error: FlexLoRA before LoRA-FAIR at lambda 0, LoRA-FAIR before FedIT; FedEx-LoRA and FLoRA have none", () => {
    fc.assert(
      fc.property(setting, (s) => {
        const updates = updatesOf(s);
        const error = <State extends StateTree>(strategy: Strategy<State>): number =>
          distance(weightAfter(strategy, updates), idealProduct(updates, M));
        const [flex, fair, plain] = [error(flexLora()), error(loraFair({ lambda: 0 })), error(fedIt())];
        expect(flex).toBeLessThanOrEqual(fair + EXACT);
        expect(fair).toBeLessThanOrEqual(plain + EXACT);
        expect(error(fedexLora())).toBeLessThan(EXACT);
        expect(error(flora())).toBeLessThan(EXACT);
      }),
      { numRuns: 200 },
    );
  });
});
