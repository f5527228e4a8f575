import { describe, expect, it } from "vitest";
import { applyChanges } from "../../src/federation/base-chain.ts";
import { clientHalf } from "../../src/federation/local-rule.ts";
import type { StateTree, Strategy, Update } from "../../src/federation/strategy.ts";
import { fedexLora, fedexLoraKeepLocal, fedexLoraReinit } from "../../src/strategies/fedex-lora.ts";
import type { Params } from "../../src/tensor/params.ts";
import { stream } from "../../src/tensor/random.ts";
import type { Tensor } from "../../src/tensor/tensor.ts";
import {
  combination,
  type Dense,
  denseOf,
  drawPair,
  drawUpdates,
  frobenius,
  pairProduct,
} from "./algebra.ts";

const M = "up_proj";
const shape = { out: 9, width: 14 };
const clients = [0, 1, 2].map((k) => ({ id: `c${k}`, rank: 2, scaling: 1.5 }));
const numExamples = [30, 50, 120];

/** Three rounds in which a client's product moves by an amount keyed by round and client, whatever pair it starts from. */
function federation<State extends StateTree>(strategy: Strategy<State>) {
  const zero: Dense = Array.from({ length: shape.out }, () => new Array<number>(shape.width).fill(0));
  const drawn = drawPair(M, shape, 2, "initial");
  const b = drawn.get(`${M}.lora_B.weight`);
  const initial = new Map(drawn);
  if (b)
    initial.set(`${M}.lora_B.weight`, {
      dtype: "float64",
      shape: b.shape,
      data: new Float64Array(b.data.length),
    });
  let state = strategy.init(initial, clients);
  let offset: Params = new Map();
  const memories = new Map<string, Params>();
  const base = (change: Params) => (change.has(`${M}.weight`) ? denseOf(change.get(`${M}.weight`)) : zero);
  const held = (round: number) =>
    clients.map((client) => {
      const context = { round, seed: 9, numClients: 3 };
      const received = strategy.broadcast(state, client, context);
      const half = clientHalf(strategy, {
        client,
        received,
        memory: memories.get(client.id),
        initial,
        context,
      });
      const own = base(applyChanges(offset, half.personalBase));
      const effective = (params: Params) => combination([1, client.scaling], [own, pairProduct(params, M)]);
      return { client, half, effective };
    });
  return {
    held,
    round(round: number, present: readonly number[]) {
      const all = held(round);
      const updates: Update[] = [];
      const weights: Dense[] = [];
      for (const k of present) {
        const one = all[k];
        if (!one) continue;
        const params = new Map(
          [...one.half.start.params].map(([name, x]) => [name, nudged(x, `${round}/${k}/${name}`)]),
        );
        const { memory, ...up } = one.half.upload({
          params,
          numExamples: numExamples[k] ?? 1,
          steps: 1,
          learningRate: 1,
        });
        memories.set(one.client.id, memory);
        updates.push({ client: one.client, numExamples: numExamples[k] ?? 1, ...up });
        weights.push(one.effective(params));
      }
      const result = strategy.aggregate(state, updates, { round, seed: 9, numClients: 3 });
      state = result.state;
      offset = applyChanges(offset, result.base ?? []);
      const total = present.reduce((sum, k) => sum + (numExamples[k] ?? 1), 0);
      return combination(
        present.map((k) => (numExamples[k] ?? 1) / total),
        weights,
      );
    },
  };
}

function nudged({ shape: dims, data }: Tensor, purpose: string): Tensor {
  const random = stream({ seed: 2, purpose });
  return {
    dtype: "float64",
    shape: dims,
    data: Float64Array.from([...data].map((x) => Number(x) + 0.4 * random.normal())),
  };
}

describe("FedEx-LoRA", () => {
  function everyRound<State extends StateTree>(strategy: Strategy<State>): void {
    const run = federation(strategy);
    [
      [0, 1, 2],
      [0, 2],
      [1, 2],
      [0, 1, 2],
    ].forEach((present, t) => {
      const ideal = run.round(t + 1, present);
      for (const { client, half, effective } of run.held(t + 2)) {
        const off = frobenius(combination([1, -1], [effective(half.start.params), ideal]));
        expect(off, `round ${t + 1}, client ${client.id}`).toBeLessThan(1e-10);
      }
    });
  }

  const mean = "gives every client the mean of the clients' weights, absent clients too";
  it(`with averaged factors ${mean}`, () => everyRound(fedexLora()));
  it(`with re-initialized factors ${mean}`, () => everyRound(fedexLoraReinit()));
  it(`with local factors kept ${mean}`, () => everyRound(fedexLoraKeepLocal()));

  it("sends nothing into the base where the clients agree", () => {
    const [one] = drawUpdates(M, shape, [2], "same");
    const updates = [0, 1, 2].map((k) => ({
      client: { id: `c${k}`, rank: 2, scaling: 1.5 },
      numExamples: 10 + k,
      params: one?.params ?? new Map(),
    }));
    expect(fedexLora().aggregate(new Map(), updates, { round: 1, seed: 1, numClients: 3 }).base).toEqual([]);
  });

  it("sends a dense residual where its factors would cost more", () => {
    const small = { out: 4, width: 5 };
    const kinds = [shape, small].map((of) =>
      fedexLora()
        .aggregate(new Map(), drawUpdates(M, of, [2, 2, 2], "kinds"), { round: 1, seed: 1, numClients: 3 })
        .base?.map(({ kind }) => kind),
    );
    expect(kinds).toEqual([["factors"], ["dense"]]); // 4 (9 + 14) < 126, but 4 (4 + 5) > 20
  });

  it("restarts all clients from one fresh A, another in every round", () => {
    const run = federation(fedexLoraReinit());
    run.round(1, [0, 1, 2]);
    const a = (round: number) =>
      run.held(round).map(({ half }) => half.start.params.get(`${M}.lora_A.weight`));
    const [first, second, third] = a(2);
    expect(second).toEqual(first);
    expect(third).toEqual(first);
    expect(a(3)[0]).not.toEqual(first);
    expect(
      run
        .held(2)[0]
        ?.half.start.params.get(`${M}.lora_B.weight`)
        ?.data.every((x) => x === 0),
    ).toBe(true);
  });
});
