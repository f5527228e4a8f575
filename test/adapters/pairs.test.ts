import { describe, expect, it } from "vitest";
import { type Adapter, adaptedScope, adapterBase, startParams } from "../../src/adapters/adapter.ts";
import { lora } from "../../src/adapters/lora.ts";
import { mergeAdapters } from "../../src/adapters/merge.ts";
import { innerNames, nestedLora } from "../../src/adapters/nested-lora.ts";
import { privateNames, privatePair } from "../../src/adapters/private-pair.ts";
import { modelInputs, taskOutput } from "../../src/models/task.ts";
import type { Params } from "../../src/tensor/params.ts";
import { stream } from "../../src/tensor/random.ts";
import { float32, type Tensor, tensor } from "../../src/tensor/tensor.ts";
import { llamaJson, tinyModel } from "../models/tiny.ts";
import { evaluate, farthest } from "../nn/evaluate.ts";

const llama = tinyModel(llamaJson);
const base = adapterBase(llama.taskModel);
const int64 = (values: readonly number[]): Tensor =>
  tensor("int64", [2, 4], BigInt64Array.from(values, BigInt));
const tokens = new Map([
  ["input_ids", int64([3, 9, 27, 1, 8, 8, 2, 0])],
  ["attention_mask", int64([1, 1, 1, 1, 1, 1, 1, 0])],
]);
const options = { rank: 3, alpha: 6, target: ["q_proj", "down_proj"] };

function disturbed(params: Params): Params {
  return new Map(
    [...params].map(([name, { shape, data }]) => {
      const values = new Float32Array(data.length);
      stream({ seed: 12, purpose: name }).fillNormal(values, 0, 0.3);
      return [name, float32(shape, values)] as const;
    }),
  );
}

/** Inner factors of rank 2 for every pair. */
function innerFactors(start: Params): Params {
  const factors = new Map<string, Tensor>();
  for (const [name, { shape }] of start) {
    const { Bd, Bu, Ad, Au } = innerNames(name.replace(/\.lora_[AB]\.weight$/, ""));
    const zeros = (rows = 0, columns = 0) => float32([rows, columns], new Float32Array(rows * columns));
    if (name.endsWith("lora_A.weight")) factors.set(Ad, zeros(shape[0], 2)).set(Au, zeros(2, shape[1]));
    else factors.set(Bd, zeros(shape[0], 2)).set(Bu, zeros(2, shape[1]));
  }
  return factors;
}

async function outputOf(
  weights: Params,
  attached: Parameters<typeof mergeAdapters>[1],
): Promise<readonly number[]> {
  const inputs = modelInputs(llama.taskModel.model);
  const further = new Map([...weights].filter(([name]) => name.includes(".lora_")));
  const { output } = taskOutput(llama.taskModel, adaptedScope(base, attached, further), inputs);
  const found = await evaluate({ output }, new Map([...weights, ...tokens]));
  return found.output ?? [];
}

const adapters: Readonly<Record<string, readonly Adapter[]>> = {
  "a private pair beside LoRA": [lora(options), privatePair({ ...options, privateScaling: 0.5 })],
  "nested LoRA": [nestedLora({ ...options, alphaA: 0.5, alphaB: 2 })],
};

describe.each(Object.entries(adapters))("%s", (name, list) => {
  const attached = list.map((adapter) => adapter.attach(base));
  const start = startParams(attached, { seed: 3, base: llama.weights });
  const inner = name === "nested LoRA" ? innerFactors(start) : new Map();

  it("leaves the model as it is at the start", async () => {
    const plain = await outputOf(llama.weights, []);
    expect(farthest(await outputOf(new Map([...llama.weights, ...start]), attached), plain)).toBeLessThan(
      1e-6,
    );
  });

  it("merged equals applied", async () => {
    const params = disturbed(new Map([...start, ...inner]));
    const merged = mergeAdapters(llama.weights, attached, params);
    const [applied, plain] = [
      await outputOf(new Map([...llama.weights, ...params]), attached),
      await outputOf(merged, []),
    ];
    const scale = Math.max(...plain.map(Math.abs));
    expect(farthest(applied, plain) / scale).toBeLessThan(1e-5);
  });
});

describe("the start", () => {
  it("draws the private U from a stream of its own", () => {
    const attached = [lora(options), privatePair(options)].map((adapter) => adapter.attach(base));
    const start = startParams(attached, { seed: 3, base: llama.weights });
    const module = "model.layers.0.self_attn.q_proj";
    const { privateA, privateB } = privateNames(module);
    expect(start.get(privateA)?.shape).toEqual(start.get(`${module}.lora_A.weight`)?.shape);
    expect(start.get(privateA)).not.toEqual(start.get(`${module}.lora_A.weight`));
    expect(start.get(privateB)?.data.every((x) => Number(x) === 0)).toBe(true);
  });
});
