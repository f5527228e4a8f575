import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { applyChanges } from "../../src/federation/base-chain.ts";
import type { StateTree, Strategy, Update } from "../../src/federation/strategy.ts";
import { coordinateMedian } from "../../src/strategies/coordinate-median.ts";
import { fedAvg } from "../../src/strategies/fedavg.ts";
import { fedAvgM } from "../../src/strategies/fedavgm.ts";
import { fedexLora } from "../../src/strategies/fedex-lora.ts";
import { fedIt } from "../../src/strategies/fedit.ts";
import { fedLoru } from "../../src/strategies/fedloru.ts";
import { fedProx } from "../../src/strategies/fedprox.ts";
import { ffaLora } from "../../src/strategies/ffa-lora.ts";
import { flTac } from "../../src/strategies/fl-tac.ts";
import { flasc } from "../../src/strategies/flasc.ts";
import { flexLora } from "../../src/strategies/flexlora.ts";
import { flora } from "../../src/strategies/flora.ts";
import { frLora } from "../../src/strategies/frlora.ts";
import { fsLora } from "../../src/strategies/fslora.ts";
import { geometricMedian } from "../../src/strategies/geometric-median.ts";
import { hetLora } from "../../src/strategies/hetlora.ts";
import { loraFair } from "../../src/strategies/lora-fair.ts";
import { scaffold } from "../../src/strategies/scaffold.ts";
import { trimmedMean } from "../../src/strategies/trimmed-mean.ts";
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
import { membersOf, rehearsal, startPair } from "./rehearsal.ts";

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

  const alone: Readonly<Record<string, () => Strategy>> = {
    FedAvg: fedAvg,
    FedProx: fedProx,
    "FedAvgM without momentum": () => fedAvgM({ beta: 0 }),
    FedIT: fedIt,
    FlexLoRA: flexLora,
    "FedEx-LoRA": fedexLora,
    "FedEx-LoRA with a residual of rank 1": () => fedexLora({ residualRank: 1 }),
    FLoRA: flora,
    "FedLoRU merged in every round": () => fedLoru({ mergeEvery: 1 }),
    "LoRA-FAIR": loraFair,
    FRLoRA: frLora,
    HetLoRA: () => hetLora({ gamma: 1 }),
    FLASC: () => flasc({ downDensity: 1, upDensity: 1 }),
    "FL-TAC": () => flTac({ tasks: 1 }),
    "the median": coordinateMedian,
    "the geometric median": geometricMedian,
    "the trimmed mean": () => trimmedMean({ beta: 0.2 }),
  };
  it.each(Object.entries(alone))("%s of a single client holds what this client has trained", (_, make) => {
    fc.assert(
      fc.property(setting, (s) => {
        const shape = { out: s.out, width: s.width };
        const run = rehearsal({
          strategy: make(),
          module: M,
          shape,
          members: membersOf([s.rank]),
          initial: startPair(M, shape, s.rank, "normal"),
          seed: s.seed,
        });
        const [member] = membersOf([s.rank]);
        if (!member) return;
        for (const round of [1, 2]) {
          const { ideal } = run.round(round);
          expect(distance(run.held(member, round + 1), ideal)).toBeLessThan(EXACT * (1 + frobenius(ideal)));
        }
      }),
      { numRuns: 30 },
    );
  });

  it("FedEx-LoRA of clients that agree is FedIT and sends nothing into the base", () => {
    fc.assert(
      fc.property(setting, (s) => {
        const [first] = updatesOf(s);
        if (!first) return;
        const same = Array.from(
          { length: s.clients },
          (_, k): Update => ({ ...first, numExamples: k + 1, client: { ...first.client, id: `c${k}` } }),
        );
        const exact = fedexLora().aggregate(new Map(), same, context);
        const plain = fedIt().aggregate(new Map(), same, context);
        expect(exact.base ?? []).toEqual([]);
        expect(exact.state).toEqual(plain.state);
        expect(exact.measurements?.[`deviation/${M}`]).toBe(0);
      }),
    );
  });

  it("FFA-LoRA is FedIT of clients that hold one A", () => {
    fc.assert(
      fc.property(setting, (s) => {
        const shape = { out: s.out, width: s.width };
        const initial = drawPair(M, shape, s.rank, `ffa ${s.seed}`);
        const isA = (name: string): boolean => name.endsWith("lora_A.weight");
        const updates = updatesOf(s).map(
          (update): Update => ({
            ...update,
            params: new Map([...update.params, ...[...initial].filter(([name]) => isA(name))]),
          }),
        );
        const withoutA = updates.map(
          (update): Update => ({
            ...update,
            params: new Map([...update.params].filter(([name]) => !isA(name))),
          }),
        );
        const clients = updates.map(({ client }) => client);
        const strategy = ffaLora();
        const { state } = strategy.aggregate(strategy.init(initial, clients), withoutA, context);
        const plain = fedIt().aggregate(initial, updates, context).state;
        const ours = strategy.global(state, clients[0]);
        for (const [name, { data }] of plain) {
          const got = ours.get(name)?.data ?? [];
          expect(got).toHaveLength(data.length);
          for (let i = 0; i < data.length; i++)
            expect(Math.abs(Number(got[i]) - Number(data[i]))).toBeLessThan(EXACT);
        }
      }),
    );
  });

  it("FedLoRU that does not merge is FedIT, round after round", () => {
    fc.assert(
      fc.property(setting, (s) => {
        const shape = { out: s.out, width: s.width };
        const members = membersOf(Array.from({ length: s.clients }, () => s.rank));
        const runOf = <State extends StateTree>(strategy: Strategy<State>) =>
          rehearsal({
            strategy,
            module: M,
            shape,
            members,
            initial: startPair(M, shape, s.rank, "normal"),
            seed: s.seed,
          });
        const [ours, theirs] = [runOf(fedLoru({ mergeEvery: 4 })), runOf(fedIt())];
        const [member] = members;
        if (!member) return;
        for (const round of [1, 2, 3]) {
          ours.round(round);
          theirs.round(round);
          expect(distance(ours.held(member, round + 1), theirs.held(member, round + 1))).toBeLessThan(EXACT);
        }
      }),
      { numRuns: 20 },
    );
  });

  it("FL-TAC of one task and FSLoRA of whole slices are FedIT of clients that count alike", () => {
    fc.assert(
      fc.property(setting, (s) => {
        const updates = updatesOf(s);
        const plain = weightAfter(fedIt({ weighting: "uniform" }), updates);
        for (const strategy of [flTac({ tasks: 1 }), fsLora()])
          expect(distance(weightAfter<StateTree>(strategy, updates), plain)).toBeLessThan(
            EXACT * (1 + frobenius(plain)),
          );
      }),
    );
  });
});
