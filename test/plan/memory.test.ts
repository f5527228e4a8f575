import { describe, expect, it } from "vitest";
import { adapterBase } from "../../src/adapters/adapter.ts";
import { lora } from "../../src/adapters/lora.ts";
import { bytesSource } from "../../src/formats/byte-source.ts";
import { writeSafetensors } from "../../src/formats/safetensors.ts";
import { memoryPlan, shortage } from "../../src/job/memory-plan.node.ts";
import { describeModel, findModel } from "../../src/models/load.ts";
import type { BasePrecision } from "../../src/models/precision.ts";
import { randomWeights } from "../../src/models/random-weights.ts";
import { adamw } from "../../src/optim/adam.ts";
import { type TrainingMemory, trainingMemory } from "../../src/plan/memory.ts";
import { convert } from "../../src/tensor/convert.ts";
import { mapParams } from "../../src/tensor/params.ts";
import { llamaJson } from "../models/tiny.ts";

const json = { ...llamaJson, hidden_size: 64, intermediate_size: 96, head_dim: 16 };

async function planned(precision: BasePrecision, rows = 4, recompute?: "layers"): Promise<TrainingMemory> {
  const weights = mapParams(randomWeights(describeModel(json), 7), (value) => convert(value, "float16"));
  const folder = new Map([
    ["config.json", bytesSource(new TextEncoder().encode(JSON.stringify(json)))],
    ["model.safetensors", bytesSource(writeSafetensors(weights))],
  ]);
  const { model } = await findModel(folder, { precision });
  return trainingMemory({
    model,
    attached: [lora({ rank: 2, alpha: 4, target: "all-linear" }).attach(adapterBase(model))],
    optimizer: adamw({ learningRate: 1e-3 }),
    batch: { rows, length: 16, labels: 15 * rows },
    ...(recompute && { recompute }),
  });
}

describe("the memory of training", () => {
  it("has the weights of each precision, two moments a trained number, and activations that grow with the batch", async () => {
    const [whole, stored, blocks] = await Promise.all(
      (["float32", "stored", "4bit"] as const).map((one) => planned(one)),
    );
    if (!whole || !stored || !blocks) throw new Error("no plan");
    expect(stored.weights).toBeLessThan(0.52 * whole.weights);
    expect(blocks.weights).toBeLessThan(0.25 * whole.weights);
    expect(whole.optimizer).toBe(2 * whole.adapter);
    expect(whole.total).toBe(
      whole.weights + whole.adapter + whole.optimizer + whole.activations + whole.runtime,
    );
    const twice = await planned("float32", 8);
    expect(twice.activations).toBeGreaterThan(1.6 * whole.activations);
    expect((await planned("float32", 8, "layers")).activations).toBeLessThan(twice.activations);
  });

  it("that is not there is said, with what would help", async () => {
    const worker = await planned("float32");
    const fitting = memoryPlan(worker, { workers: 1, holdsWeights: true });
    expect(fitting.total).toBe(fitting.program + worker.total);
    expect(fitting.program - memoryPlan(worker, { workers: 1, holdsWeights: false }).program).toBe(
      worker.weights,
    );
    expect(shortage(fitting)).toBeUndefined();
    const plan = { ...fitting, workers: 3, total: 3 * worker.total, free: 2 * worker.total };
    expect(shortage(plan)).toMatch(
      /^memory: 3 workers need about .* are free; set workers: 1, take a smaller/,
    );
  });
});
