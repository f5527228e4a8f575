import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { expertNames, routerName } from "../../src/adapters/lora-moe.ts";
import { clientHalf } from "../../src/federation/local-rule.ts";
import type { ClientRef, Update } from "../../src/federation/strategy.ts";
import { chooseClusters, expertDistances, fedlease } from "../../src/strategies/fedlease.ts";
import { addScaled, type Params, scale } from "../../src/tensor/params.ts";
import { combination, denseOf, drawPair, frobenius, shares } from "./algebra.ts";

const M = "q_proj";
const shape = { out: 7, width: 5 };
const rank = 2;
const L = rank * (shape.out + shape.width);
const H = 3;
const clients = Array.from({ length: 6 }, (_, k): ClientRef => ({ id: `c${k}`, rank, scaling: 1.5 }));
const initial = drawPair(M, shape, rank, "initial");
/** Planted groups of the clients. */
const groups = [0, 1, 0, 2, 1, 0];
const near = (group: number | undefined, client: string, what: string): Params =>
  addScaled(drawPair(M, shape, rank, `group ${group}`), 0.05, drawPair(M, shape, rank, `${client} ${what}`));

/** A federation whose clients train to given places. */
function federation(warmupRounds: number) {
  const strategy = fedlease({ warmupRounds });
  const memories = new Map<string, Params>();
  let state = strategy.init(initial, clients);
  const half = (client: ClientRef, round: number) => {
    const context = { round, seed: 2, numClients: clients.length };
    const received = strategy.broadcast(state, client, context);
    return clientHalf(strategy, { client, received, memory: memories.get(client.id), initial, context });
  };
  const run = (round: number, present: readonly number[]) => {
    const updates = present.flatMap((k): Update[] => {
      const client = clients[k];
      if (!client) return [];
      const one = half(client, round);
      const given = near(groups[k], client.id, `round ${round}`);
      const params = new Map(
        [...one.start.params].map(([name, tensor]) => [
          name,
          (one.rule.trainable?.(name, 0) ?? true) ? (given.get(name) ?? tensor) : tensor,
        ]),
      );
      const { memory, ...up } = one.upload({ params, numExamples: k + 1, steps: 1, learningRate: 1 });
      memories.set(client.id, memory);
      return [{ client, numExamples: k + 1, ...up }];
    });
    state = strategy.aggregate(state, updates, { round, seed: 2, numClients: clients.length }).state;
    return updates;
  };
  return { run, half, state: () => state };
}

const everyone = [0, 1, 2, 3, 4, 5];
const scalars = (params: Params): number =>
  [...params.values()].reduce((sum, { data }) => sum + data.length, 0);

describe("FedLEASE", () => {
  it("lets clients train alone first, then finds the planted groups by their B", () => {
    const { run, half, state } = federation(2);
    expect(run(1, everyone).every(({ params }) => params.size === 0)).toBe(true);
    const [first = { id: "", rank, scaling: 1 }] = clients;
    expect(half(first, 2).start.params.get(`${M}.lora_B.weight`)).toEqual(
      near(0, "c0", "round 1").get(`${M}.lora_B.weight`),
    );
    run(2, everyone);
    expect(state().clusters).toEqual({ c0: 0, c1: 1, c2: 0, c3: 2, c4: 1, c5: 0 });
  });

  it("averages experts, routers and heads inside a cluster only, all members alike", () => {
    const { run, state } = federation(1);
    run(1, everyone);
    const before = state();
    const updates = run(2, [1, 2, 4, 5]);
    const after = state();
    for (const [cluster, members] of [
      [0, ["c2", "c5"]],
      [1, ["c1", "c4"]],
    ] as const) {
      const own = updates.filter(({ client }) => members.some((id) => id === client.id));
      for (const name of [`${M}.lora_A.weight`, `${M}.lora_B.weight`]) {
        const mean = combination(
          own.map(() => 1 / own.length),
          own.map(({ params }) => denseOf(params.get(name))),
        );
        expect(
          frobenius(combination([1, -1], [mean, denseOf(after.experts[cluster]?.get(name))])),
        ).toBeLessThan(1e-10);
      }
    }
    expect(after.experts[2]).toEqual(before.experts[2]); // c3 was absent
    expect(after.routers[2]).toEqual(before.routers[2]);
    expect(shares(updates)).not.toEqual(updates.map(() => 0.25)); // examples are unequal, and do not count
  });

  it("sends own expert and router up, all experts and the router down", () => {
    const { run, half, state } = federation(1);
    run(1, everyone);
    const experts = state().experts.length; // M
    const router = (2 * experts - 1) * shape.width;
    for (const { params } of run(2, everyone)) expect(scalars(params)).toBe(L + router + H);
    const one = half(clients[3] ?? { id: "c3", rank, scaling: 1 }, 3);
    expect(scalars(one.local.received.params)).toBe(experts * L + router + H);
    const foreign = Array.from({ length: experts - 1 }, (_, m) =>
      Object.values<string>({ ...expertNames(M, m + 1) }),
    ).flat();
    for (const name of foreign) expect(one.rule.trainable?.(name, 0)).toBe(false);
    for (const name of [`${M}.lora_A.weight`, routerName(M), "head.bias"])
      expect(one.rule.trainable?.(name, 0)).toBe(true);
  });

  it("lets a latecomer train alone once, and join the nearest cluster", () => {
    const { run, half, state } = federation(1);
    run(1, [0, 1, 2, 4]);
    expect(state().clusters).toEqual({ c0: 0, c1: 1, c2: 0, c4: 1 });
    const late = clients[5] ?? { id: "c5", rank, scaling: 1 };
    expect(half(late, 2).local.received.stage).toBe("alone");
    run(
      2,
      everyone.filter((k) => k !== 3),
    );
    expect(state().clusters.c5).toBe(0);
    expect(half(late, 3).local.received.stage).toBe("experts");
  });

  it("measures distances by directions of B: scaling one does not matter, and no training is distance 1", () => {
    fc.assert(
      fc.property(
        fc.double({ min: 0.1, max: 50, noNaN: true }),
        fc.integer({ min: 0, max: 1e6 }),
        (factor, seed) => {
          const [x, y] = [drawPair(M, shape, rank, `x ${seed}`), drawPair(M, shape, rank, `y ${seed}`)];
          const plain = expertDistances([x, y]).data;
          const scaled = expertDistances([scale(x, factor), y]).data;
          scaled.forEach((value, i) => {
            expect(value).toBeCloseTo(plain[i] ?? Number.NaN, 6);
          });
          expect(expertDistances([scale(x, 0), y]).data[1]).toBe(1);
        },
      ),
    );
  });

  it("takes the number of clusters with the best silhouette, and one cluster for one client", () => {
    const list = groups.map((group, k) => near(group, `c${k}`, "warm"));
    const { clusters, silhouettes } = chooseClusters(expertDistances(list), 4);
    expect(clusters).toEqual(groups);
    expect(silhouettes.indexOf(Math.max(...silhouettes))).toBe(1); // of 2, 3 and 4
    expect(chooseClusters(expertDistances(list.slice(0, 1)), 4).clusters).toEqual([0]);
  });

  it("refuses to cluster before anybody has trained", () => {
    expect(() => fedlease({ warmupRounds: 0 })).toThrow(/warmupRounds is 0/);
  });
});
