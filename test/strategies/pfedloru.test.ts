import { describe, expect, it } from "vitest";
import { fedLoru } from "../../src/strategies/fedloru.ts";
import { pFedLoru } from "../../src/strategies/pfedloru.ts";
import type { Params } from "../../src/tensor/params.ts";
import { drawPair } from "./algebra.ts";
import { membersOf, rehearsal, startPair } from "./rehearsal.ts";

const M = "q_proj";
const shape = { out: 9, width: 6 };
const members = membersOf([2, 2, 2]);

/** A shared pair, a private one and a head. */
function initialOf(): Params {
  const own = [...drawPair(M, shape, 2, "private")].filter(([name]) => name.includes("lora_"));
  const renamed = own.map(([name, tensor]) => [name.replace("lora_", "private_"), tensor] as const);
  return new Map([...startPair(M, shape, 2), ...renamed]);
}

const names = (params: Params): string[] => [...params.keys()].sort();
const shared = ["head.bias", `${M}.lora_A.weight`, `${M}.lora_B.weight`];
const own = [`${M}.private_A.weight`, `${M}.private_B.weight`];

describe("pFedLoRU", () => {
  it("keeps the private pair on the client: it neither travels nor meets another", () => {
    const strategy = pFedLoru({ mergeEvery: 2 });
    const initial = initialOf();
    const { local } = strategy;
    const [first] = members;
    if (!first || !local?.upload) throw new Error("no client half");
    const context = { round: 1, seed: 1, numClients: 3 };
    const received = strategy.broadcast(strategy.init(initial, members), first, context);
    expect(names(received.params)).toEqual(shared);
    const memory = local.remember?.(received, initial) ?? new Map();
    expect(names(memory)).toEqual(own);
    const start = local.start?.({ client: first, received, memory, initial, context }).params ?? new Map();
    expect(names(start)).toEqual([...shared, ...own]);
    const up = local.upload({
      client: first,
      received,
      memory,
      initial,
      context,
      params: start,
      numExamples: 1,
      steps: 1,
      learningRate: 1,
    });
    expect(names(up.params)).toEqual(shared);
    expect(names(up.memory ?? new Map())).toEqual(own);
  });

  it("trains the private pair first, then the shared one and the rest", () => {
    const { local } = pFedLoru();
    const trained = [0, 1].map((phase) =>
      [...shared, ...own].filter((name) => local?.trainable?.(name, phase)),
    );
    expect(local?.phases).toBe(2);
    expect(trained).toEqual([own, shared]);
  });

  it("does with the shared pair what FedLoRU does", () => {
    const initial = initialOf();
    const plain = new Map([...initial].filter(([name]) => !name.includes("private_")));
    const settings = { module: M, shape, members };
    const personal = rehearsal({ strategy: pFedLoru({ mergeEvery: 2 }), initial, ...settings });
    const common = rehearsal({ strategy: fedLoru({ mergeEvery: 2 }), initial: plain, ...settings });
    for (const round of [1, 2, 3]) {
      // The rehearsal moves what its first phase trains; shared factors move by the same noise in the second.
      const { updates } = common.round(round, round === 2 ? [0, 2] : [0, 1, 2]);
      const strategy = pFedLoru({ mergeEvery: 2 });
      const context = { round, seed: 9, numClients: 3 };
      const state = { ...common.state(), params: new Map([...common.state().params, ...initial]) };
      const result = strategy.aggregate(state, updates, context);
      const expected = fedLoru({ mergeEvery: 2 }).aggregate(common.state(), updates, context);
      for (const name of shared)
        expect(result.state.params.get(name)).toEqual(expected.state.params.get(name));
      expect(result.base).toEqual(expected.base);
    }
    expect(names(personal.state().params)).toEqual([...shared, ...own]);
  });

  it("lets every client go on from its own private pair", () => {
    const run = rehearsal({ strategy: pFedLoru(), module: M, shape, members, initial: initialOf() });
    run.round(1, [0, 1]);
    const pairs = members.map((member) => run.halfOf(member, 2).start.params.get(own[0] ?? ""));
    expect(pairs[0]).not.toEqual(pairs[1]);
    expect(pairs[2]).toEqual(initialOf().get(own[0] ?? "")); // was absent
  });
});
