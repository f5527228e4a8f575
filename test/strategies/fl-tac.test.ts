import fc from "fast-check";
import { describe, expect, it } from "vitest";
import type { ClientRef, Update } from "../../src/federation/strategy.ts";
import { fedIt } from "../../src/strategies/fedit.ts";
import { flTac } from "../../src/strategies/fl-tac.ts";
import { addScaled, type Params } from "../../src/tensor/params.ts";
import { combination, denseOf, drawPair, drawUpdates, frobenius, pairProduct } from "./algebra.ts";

const M = "q_proj";
const context = { round: 1, seed: 1, numClients: 6 };
/** Float64 algebra on small matrices with entries of magnitude 1. */
const EXACT = 1e-10;

const setting = fc.record({
  out: fc.integer({ min: 2, max: 8 }),
  width: fc.integer({ min: 2, max: 8 }),
  rank: fc.integer({ min: 1, max: 3 }),
  tasks: fc.integer({ min: 2, max: 3 }),
  seed: fc.integer({ min: 0, max: 1e6 }),
});

/** Adapters of three clients for each task, near one point a task. */
function planted({
  out,
  width,
  rank,
  tasks,
  seed,
}: typeof setting extends fc.Arbitrary<infer T> ? T : never) {
  const shape = { out, width };
  return Array.from({ length: 3 * tasks }, (_, i): Update => {
    const task = i % tasks;
    const centre = drawPair(M, shape, rank, `${seed} task ${task}`);
    const noise = drawPair(M, shape, rank, `${seed} noise ${i}`);
    const client: ClientRef = { id: `c${Math.floor(i / tasks)}/t${task}`, rank, scaling: 2 };
    return { client, numExamples: 3 + i, params: addScaled(centre, 0.01, noise) };
  });
}

const distance = (x: Params, y: Params): number =>
  Math.max(
    ...[...x].map(([name, { data }]) =>
      frobenius(
        combination([1, -1], [[[...data].map(Number)], [[...(y.get(name)?.data ?? [])].map(Number)]]),
      ),
    ),
  );

describe("FL-TAC", () => {
  it("finds the tasks without their names, and gives each adapter the mean of its task", () => {
    fc.assert(
      fc.property(setting, (s) => {
        const updates = planted(s);
        const strategy = flTac({ tasks: s.tasks });
        const state = strategy.init(drawPair(M, s, s.rank, "start"), []);
        const result = strategy.aggregate(state, updates, context);
        updates.forEach(({ client }, i) => {
          const group = updates.filter((_, j) => j % s.tasks === i % s.tasks);
          const mean = fedIt({ weighting: "uniform" }).aggregate(new Map(), group, context);
          const got = strategy.broadcast(result.state, client, context).params;
          expect(distance(got, mean.state)).toBeLessThan(EXACT);
          const cluster = result.measurements?.[`cluster/${client.id}`] ?? Number.NaN;
          expect(result.measurements?.[`deviation/${M}/cluster-${cluster}`]).toBeCloseTo(
            mean.measurements?.[`deviation/${M}`] ?? Number.NaN,
            9,
          );
        });
      }),
      { numRuns: 50 },
    );
  });

  it("does not look at the order or the names of what is submitted", () => {
    fc.assert(
      fc.property(setting, (s) => {
        const updates = planted(s);
        const renamed = [...updates].reverse().map((update, i) => ({
          ...update,
          client: { ...update.client, id: `other-${i}` },
        }));
        const strategy = flTac({ tasks: s.tasks });
        const state = strategy.init(drawPair(M, s, s.rank, "start"), []);
        const [one, other] = [updates, renamed].map((list) => strategy.aggregate(state, list, context).state);
        updates.forEach(({ client }, i) => {
          const twin = renamed[updates.length - 1 - i]?.client ?? client;
          if (!one || !other) return;
          const [x, y] = [strategy.broadcast(one, client, context), strategy.broadcast(other, twin, context)];
          expect(distance(x.params, y.params)).toBeLessThan(EXACT);
        });
      }),
      { numRuns: 30 },
    );
  });

  it("is FedIT with uniform weights for one task", () => {
    const updates = drawUpdates(M, { out: 5, width: 8 }, [2, 2, 2], "one task");
    const strategy = flTac({ tasks: 1 });
    const { state } = strategy.aggregate(strategy.init(new Map(), []), updates, context);
    const mean = fedIt({ weighting: "uniform" }).aggregate(new Map(), updates, context).state;
    for (const { client } of updates)
      expect(pairProduct(strategy.global(state, client), M)).toEqual(pairProduct(mean, M));
  });

  it("keeps the adapter of a task that is not submitted, and leaves few ones as they are", () => {
    const s = { out: 6, width: 5, rank: 2, tasks: 2, seed: 4 };
    const updates = planted(s);
    const strategy = flTac({ tasks: 2 });
    const first = strategy.aggregate(strategy.init(drawPair(M, s, 2, "start"), []), updates, context).state;
    const [lone, ...others] = updates.slice(0, 3);
    if (!lone) return;
    const second = strategy.aggregate(first, others, { ...context, round: 2 }).state;
    expect(strategy.global(second, lone.client)).toBe(strategy.global(first, lone.client));
    // No more submissions than tasks: each is a cluster of its own.
    for (const { client, params } of others)
      expect(distance(strategy.global(second, client), params)).toBeLessThan(EXACT);
    expect(second.means.length).toBeLessThanOrEqual(2 + first.means.length);
    expect(
      denseOf(strategy.global(second, { id: "new", rank: 2, scaling: 1 }).get(`${M}.lora_A.weight`)),
    ).toEqual(denseOf(second.initial.get(`${M}.lora_A.weight`)));
  });
});
