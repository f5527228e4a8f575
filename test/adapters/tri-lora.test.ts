import { describe, expect, it } from "vitest";
import { adaptedScope, adapterBase, startParams } from "../../src/adapters/adapter.ts";
import { mergeAdapters } from "../../src/adapters/merge.ts";
import { triLora } from "../../src/adapters/tri-lora.ts";
import { llamaJson, tinyModel } from "../models/tiny.ts";
import { disturbed, gradientsMatchDifferences, outputOf } from "./checks.ts";

const llama = tinyModel(llamaJson);
const base = adapterBase(llama.taskModel);
const options = { rank: 3, alpha: 6, target: ["q_proj", "down_proj"] };
const module = "model.layers.0.mlp.down_proj";

describe("tri-lora", () => {
  it("starts with a small normal A, C = I and B = 0", () => {
    const attached = triLora({ ...options, rank: 40 }).attach(base);
    const params = startParams([attached], { seed: 3, base: llama.weights });
    const a = Array.from(params.get(`${module}.lora_A.weight`)?.data ?? [], Number);
    expect(Math.sqrt(a.reduce((sum, x) => sum + x * x, 0) / a.length) * 1e3).toBeCloseTo(1, 1);
    const core = params.get(`${module}.lora_C.weight`);
    expect(core?.shape).toEqual([40, 40]);
    expect(Array.from(core?.data ?? [], Number)).toEqual(
      Array.from({ length: 1600 }, (_, i) => Number(i % 41 === 0)),
    );
    expect(params.get(`${module}.lora_B.weight`)?.data.every((x) => Number(x) === 0)).toBe(true);
  });

  it("leaves the model as it is at the start, and merged equals applied", async () => {
    const attached = [triLora(options).attach(base)];
    const start = startParams(attached, { seed: 3, base: llama.weights });
    const plain = await outputOf(llama, adaptedScope(base), llama.weights);
    expect(
      await outputOf(llama, adaptedScope(base, attached), new Map([...llama.weights, ...start])),
    ).toEqual(plain);
    const params = disturbed(start);
    const applied = await outputOf(
      llama,
      adaptedScope(base, attached),
      new Map([...llama.weights, ...params]),
    );
    const merged = await outputOf(llama, adaptedScope(base), mergeAdapters(llama.weights, attached, params));
    const scale = Math.max(...plain.map(Math.abs));
    applied.forEach((x, i) => {
      expect(Math.abs(x - (merged[i] ?? Number.NaN)) / scale).toBeLessThan(1e-5);
    });
    expect(applied).not.toEqual(plain);
  });

  it("has the gradients of finite differences", async () => {
    const attached = [triLora(options).attach(base)];
    const params = disturbed(startParams(attached, { seed: 3, base: llama.weights }));
    await gradientsMatchDifferences(llama, adaptedScope(base, attached), params);
  });
});
