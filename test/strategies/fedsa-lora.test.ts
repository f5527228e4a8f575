import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { clientHalf } from "../../src/federation/local-rule.ts";
import type { ClientRef, Update } from "../../src/federation/strategy.ts";
import { fedIt } from "../../src/strategies/fedit.ts";
import { type FedsaLoraOptions, fedsaLora } from "../../src/strategies/fedsa-lora.ts";
import { localOnly } from "../../src/strategies/local-only.ts";
import type { Params } from "../../src/tensor/params.ts";
import { drawPair } from "./algebra.ts";

const M = "q_proj";
const shape = { out: 6, width: 4 };
const clients: readonly ClientRef[] = ["a", "b", "c"].map((id) => ({ id, rank: 2, scaling: 1.5 }));
const initial = drawPair(M, shape, 2, "initial");
const trainedBy = (client: string, round: number): Params => drawPair(M, shape, 2, `${client} in ${round}`);

/** Rounds with given training results; client c sits out the second. */
function run(options: FedsaLoraOptions) {
  const strategy = fedsaLora(options);
  const memories = new Map<string, Params>();
  let state = strategy.init(initial, clients);
  const half = (client: ClientRef, round: number) => {
    const context = { round, seed: 1, numClients: 3 };
    const received = strategy.broadcast(state, client, context);
    return clientHalf(strategy, { client, received, memory: memories.get(client.id), initial, context });
  };
  const uploads: Update[] = [];
  for (const round of [1, 2, 3]) {
    const updates = clients.slice(0, round === 2 ? 2 : 3).map((client, k): Update => {
      const numExamples = 10 * (k + 1);
      const params = trainedBy(client.id, round);
      const { memory, ...up } = half(client, round).upload({
        params,
        numExamples,
        steps: 1,
        learningRate: 1,
      });
      memories.set(client.id, memory);
      return { client, numExamples, ...up };
    });
    uploads.push(...updates);
    state = strategy.aggregate(state, updates, { round, seed: 1, numClients: 3 }).state;
  }
  return { strategy, state, uploads, start: (client: ClientRef) => half(client, 4).start.params };
}

const of = (params: Params, name: string): number[] => [...(params.get(name)?.data ?? [])].map(Number);
const A = `${M}.lora_A.weight`;
const B = `${M}.lora_B.weight`;

describe("FedSA-LoRA", () => {
  it("gives all clients the mean A, and leaves each its own B and head as it trained them last", () => {
    const { start, uploads } = run({});
    for (const client of clients) {
      expect(of(start(client), A)).toEqual(of(start(clients[0] ?? client), A));
      expect(start(client).get(B)).toBe(start(client).get(B));
      expect(of(start(client), B)).toEqual(of(trainedBy(client.id, 3), B));
      expect(of(start(client), "head.bias")).toEqual(of(trainedBy(client.id, 3), "head.bias"));
    }
    const mean = of(initial, A).map((_, i) =>
      clients.reduce((sum, { id }, k) => sum + ((k + 1) / 6) * (of(trainedBy(id, 3), A)[i] ?? 0), 0),
    );
    of(start(clients[0] ?? { id: "a", rank: 2, scaling: 1 }), A).forEach((x, i) => {
      expect(x).toBeCloseTo(mean[i] ?? Number.NaN, 12);
    });
    for (const { params } of uploads) expect([...params.keys()]).toEqual([A]);
  });

  it("keeps the B of an absent client, which meets a new A", () => {
    const strategy = fedsaLora();
    const context = { round: 2, seed: 1, numClients: 3 };
    const [client] = clients;
    if (!client) return;
    const memory = new Map([...trainedBy("a", 1)].filter(([name]) => name !== A));
    const received = { params: new Map([...trainedBy("b", 1)].filter(([name]) => name === A)) };
    const { start } = clientHalf(strategy, { client, received, memory, initial, context });
    expect(start.params.get(B)).toBe(memory.get(B));
    expect(start.params.get(A)).toBe(received.params.get(A));
  });

  it("is FedIT where everything is shared, and isolated training where nothing is", () => {
    const everything = run({ isShared: () => true });
    let theirs = initial;
    for (const round of [1, 2, 3]) {
      const updates = clients
        .slice(0, round === 2 ? 2 : 3)
        .map((client, k) => ({ client, numExamples: 10 * (k + 1), params: trainedBy(client.id, round) }));
      theirs = fedIt().aggregate(theirs, updates, { round, seed: 1, numClients: 3 }).state;
    }
    for (const client of clients) expect(everything.start(client)).toEqual(theirs);

    const nothing = run({ isShared: () => false });
    for (const client of clients) {
      const memory = trainedBy(client.id, 3);
      const context = { round: 4, seed: 1, numClients: 3 };
      const alone = clientHalf(localOnly(), {
        client,
        received: { params: new Map() },
        memory,
        initial,
        context,
      });
      expect(nothing.start(client)).toEqual(alone.start.params);
    }
  });

  it("shares λ_d of VeRA and keeps λ_b", () => {
    fc.assert(
      fc.property(fc.integer({ min: 1, max: 6 }), fc.integer({ min: 1, max: 6 }), (rank, out) => {
        const vector = (length: number) =>
          ({ dtype: "float32", shape: [length], data: new Float32Array(length).fill(0.1) }) as const;
        const params: Params = new Map([
          ["m.vera_lambda_d", vector(rank)],
          ["m.vera_lambda_b", vector(out)],
        ]);
        const strategy = fedsaLora();
        const state = strategy.init(params, []);
        const [client = { id: "a", rank, scaling: 1 }] = clients;
        const sent = strategy.broadcast(state, client, { round: 1, seed: 1, numClients: 1 }).params;
        expect([...sent.keys()]).toEqual(["m.vera_lambda_d"]);
      }),
    );
  });
});
