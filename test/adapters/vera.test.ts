import { describe, expect, it } from "vitest";
import { adaptedScope, adapterBase, startParams, trainableNames } from "../../src/adapters/adapter.ts";
import { mergeAdapters } from "../../src/adapters/merge.ts";
import { projections, vera } from "../../src/adapters/vera.ts";
import { llamaJson, tinyModel } from "../models/tiny.ts";
import { disturbed, gradientsMatchDifferences, outputOf } from "./checks.ts";

const llama = tinyModel(llamaJson);
const base = adapterBase(llama.taskModel);
const options = { rank: 5, target: ["q_proj", "down_proj"] };

describe("vera", () => {
  it("trains two vectors a module, and nothing of the shared matrices", () => {
    const attached = vera(options).attach(base);
    const params = startParams([attached], { seed: 3, base: llama.weights });
    const vectors = trainableNames([attached]);
    expect(vectors).toEqual([...params.keys()]);
    expect(vectors.every((name) => /vera_lambda_[bd]$/.test(name))).toBe(true);
    const down = "model.layers.1.mlp.down_proj";
    expect(params.get(`${down}.vera_lambda_d`)?.shape).toEqual([5]);
    expect(params.get(`${down}.vera_lambda_d`)?.data.every((x) => Number(x) === Math.fround(0.1))).toBe(true);
    expect(params.get(`${down}.vera_lambda_b`)?.shape).toEqual([
      llama.weights.get(`${down}.weight`)?.shape[0],
    ]);
    expect(params.get(`${down}.vera_lambda_b`)?.data.every((x) => Number(x) === 0)).toBe(true);
  });

  it("draws the shared matrices once, uniform in ±sqrt(6 / fan-in), from a seed of their own", () => {
    const modules = [{ shape: [7, 30] }, { shape: [40, 3] }] as const;
    const { a, b } = projections(modules, 16, 0);
    expect([a.shape, b.shape]).toEqual([
      [16, 30],
      [40, 16],
    ]);
    expect(projections(modules, 16, 0)).toEqual({ a, b });
    expect(projections(modules, 16, 1).a).not.toEqual(a);
    for (const [{ data }, fanIn] of [
      [a, 30],
      [b, 16],
    ] as const) {
      const bound = Math.sqrt(6 / fanIn);
      const largest = Math.max(...Array.from(data, Math.abs));
      expect(largest).toBeLessThanOrEqual(bound);
      expect(largest).toBeGreaterThan(0.97 * bound);
    }
  });

  it("leaves the model as it is at the start, and merged equals applied", async () => {
    const attached = [vera(options).attach(base)];
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
      expect(Math.abs(x - (merged[i] ?? Number.NaN)) / scale).toBeLessThan(1e-4);
    });
    expect(applied).not.toEqual(plain);
  });

  it("has the gradients of finite differences", async () => {
    const attached = [vera(options).attach(base)];
    const params = disturbed(startParams(attached, { seed: 3, base: llama.weights }));
    await gradientsMatchDifferences(llama, adaptedScope(base, attached), params);
  });
});
