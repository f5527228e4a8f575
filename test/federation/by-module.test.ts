import { describe, expect, test } from "vitest";
import { aggregateByModule, modulesOf, partOfState } from "../../src/federation/by-module.ts";
import type { StateTree, Strategy, Update } from "../../src/federation/strategy.ts";
import { fedAvgM } from "../../src/strategies/fedavgm.ts";
import { fedexLora } from "../../src/strategies/fedex-lora.ts";
import { fedIt } from "../../src/strategies/fedit.ts";
import { fedLoru } from "../../src/strategies/fedloru.ts";
import { flexLora } from "../../src/strategies/flexlora.ts";
import { flora } from "../../src/strategies/flora.ts";
import { frLora } from "../../src/strategies/frlora.ts";
import { loraFair } from "../../src/strategies/lora-fair.ts";
import { type Params, select } from "../../src/tensor/params.ts";
import { stream } from "../../src/tensor/random.ts";
import { float32 } from "../../src/tensor/tensor.ts";

const shapes: Readonly<Record<string, readonly number[]>> = {
  "b.lora_A.weight": [3, 10],
  "b.lora_B.weight": [7, 3],
  "a.lora_A.weight": [3, 5],
  "a.lora_B.weight": [11, 3],
  "classifier.weight": [2, 7],
  "classifier.bias": [2],
};

function drawn(seed: number): Params {
  return new Map(
    Object.entries(shapes).map(([name, shape]) => {
      const values = new Float64Array(shape.reduce((a, b) => a * b, 1));
      stream({ seed, purpose: name }).fillNormal(values, 0, 1);
      return [name, float32(shape, new Float32Array(values))];
    }),
  );
}

const clients = ["c0", "c1", "c2", "c3"].map((id) => ({ id, rank: 3, scaling: 2 }));
const context = { round: 2, seed: 5, numClients: 4 };
const updates: readonly Update[] = clients.map((client, k) => ({
  client,
  numExamples: 3 + 2 * k,
  params: drawn(10 + k),
}));

async function compare<State extends StateTree>(strategy: Strategy<State>): Promise<void> {
  const state = strategy.init(drawn(1), clients);
  const whole = strategy.aggregate(state, updates, context);
  const reads: number[] = [];
  const parts = await aggregateByModule(strategy, {
    state,
    context,
    read: (names) => {
      reads.push(names.size);
      return updates.map((update) => ({
        ...update,
        params: select(update.params, (name) => names.has(name)),
      }));
    },
  });
  expect(parts).toEqual(whole);
  expect(Math.max(...reads)).toBe(2);
}

describe("an aggregation by module", () => {
  test.each([
    ["FedIT", fedIt()],
    ["FLoRA", flora()],
    ["FlexLoRA", flexLora()],
    ["FedEx-LoRA", fedexLora()],
    ["FedEx-LoRA of rank 2", fedexLora({ residualRank: 2 })],
    ["LoRA-FAIR", loraFair()],
    ["FRLoRA", frLora()],
    ["FedLoRU", fedLoru({ mergeEvery: 1 })],
    ["FedAvgM", fedAvgM({})],
  ] as const)("of %s gives the bits of all modules at once", async (_, strategy) => {
    await compare(strategy as Strategy<StateTree>);
  });

  test("names the tensors of each module and cuts the state to them", () => {
    const state = { params: drawn(1), round: 3 };
    expect([...modulesOf(state)].map(([module, names]) => [module, names.size])).toEqual([
      ["b", 2],
      ["a", 2],
      ["classifier.weight", 1],
      ["classifier.bias", 1],
    ]);
    const part = partOfState(state, "a");
    expect([...part.params.keys()]).toEqual(["a.lora_A.weight", "a.lora_B.weight"]);
    expect(part.round).toBe(3);
  });
});
