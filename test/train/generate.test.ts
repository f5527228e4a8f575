import { describe, expect, it } from "vitest";
import { runtime } from "#ort";
import { adaptedScope, adapterBase, startParams } from "../../src/adapters/adapter.ts";
import { lora } from "../../src/adapters/lora.ts";
import { modelInputs, taskOutput } from "../../src/models/task.ts";
import { stream } from "../../src/tensor/random.ts";
import { tensor } from "../../src/tensor/tensor.ts";
import { chooseToken, type GenerateOptions, generate, traceDecoder } from "../../src/train/generate.ts";
import { bertJson, llamaJson, tinyModel } from "../models/tiny.ts";
import { evaluate } from "../nn/evaluate.ts";

const { taskModel, weights } = tinyModel(llamaJson);
const attached = lora({ rank: 2, alpha: 4, target: ["q_proj"] }).attach(adapterBase(taskModel));
const params = new Map([...weights, ...startParams([attached], { seed: 1, base: weights })]);

async function continued(options: GenerateOptions): Promise<number[]> {
  const { graph, ...decoder } = traceDecoder(taskModel, [attached]);
  const session = await runtime.openSession(graph);
  const ids: number[] = [];
  try {
    for await (const { id } of generate(decoder, session, params, options)) ids.push(id);
  } finally {
    await session.dispose();
  }
  return ids;
}

describe("generate", () => {
  const prompt = [4, 17, 9];

  it("gives token by token what the whole text gives without a cache", async () => {
    const ids = await continued({ prompt, maxTokens: 8 });
    const text = [...prompt, ...ids];
    const w = adaptedScope(adapterBase(taskModel), [attached]);
    const { output } = taskOutput(taskModel, w, modelInputs(taskModel.model));
    const feeds = new Map([
      ...params,
      ["input_ids", tensor("int64", [1, text.length], BigInt64Array.from(text, BigInt))] as const,
      ["attention_mask", tensor("int64", [1, text.length], new BigInt64Array(text.length).fill(1n))] as const,
    ]);
    const logits = (await evaluate({ output }, feeds)).output ?? [];
    const best = text.map((_, t) => {
      const row = logits.slice(t * 31, (t + 1) * 31);
      return row.indexOf(Math.max(...row));
    });
    expect(ids).toHaveLength(8);
    expect(ids).toEqual(best.slice(prompt.length - 1, -1));
  });

  it("repeats a sampled text under its seed and differs under another", async () => {
    const options = { prompt, maxTokens: 12, temperature: 2 };
    const one = await continued({ ...options, seed: 1 });
    expect(await continued({ ...options, seed: 1 })).toEqual(one);
    expect(await continued({ ...options, seed: 2 })).not.toEqual(one);
  });

  it("ends before a stop token and where the positions end", async () => {
    const ids = await continued({ prompt, maxTokens: 100 });
    expect(ids).toHaveLength(32 - prompt.length + 1);
    const stop = ids[3] ?? -1;
    expect(await continued({ prompt, maxTokens: 100, stopTokens: [stop] })).toEqual(
      ids.slice(0, ids.indexOf(stop)),
    );
  });

  it("stops when it is told to", async () => {
    const { graph, ...decoder } = traceDecoder(taskModel, [attached]);
    const session = await runtime.openSession(graph);
    const controller = new AbortController();
    const tokens = generate(decoder, session, params, { prompt, maxTokens: 9, signal: controller.signal });
    expect((await tokens.next()).done).toBe(false);
    controller.abort();
    await expect(tokens.next()).rejects.toThrow(/abort/i);
    await session.dispose();
  });

  it("refuses an empty prompt, bad sampling numbers and models that do not generate", async () => {
    await expect(continued({ prompt: [], maxTokens: 1 })).rejects.toThrow(/prompt of 0 tokens/);
    await expect(continued({ prompt, maxTokens: 1, temperature: -1, topP: 0 })).rejects.toThrow(
      /temperature -1.*topP 0/,
    );
    expect(() => traceDecoder(tinyModel(bertJson).taskModel)).toThrow(/does not generate/);
  });
});

describe("chooseToken", () => {
  const logits = Float64Array.of(1, 3, 2, -1, 2.5);
  const draws = (options: Parameters<typeof chooseToken>[1], count = 4000): Map<number, number> => {
    const random = stream({ seed: 8, purpose: "test" });
    const seen = new Map<number, number>();
    for (let i = 0; i < count; i++) {
      const id = chooseToken(logits, options, random);
      seen.set(id, (seen.get(id) ?? 0) + 1 / count);
    }
    return seen;
  };

  it("draws with the probabilities of the tempered softmax", () => {
    const weights = Array.from(logits, (logit) => Math.exp(logit / 0.7));
    const total = weights.reduce((a, b) => a + b, 0);
    const seen = draws({ temperature: 0.7 });
    // Four standard deviations of a share of 4,000 draws are at most 0.032.
    weights.forEach((weight, id) => {
      expect(Math.abs((seen.get(id) ?? 0) - weight / total)).toBeLessThan(0.032);
    });
  });

  it("keeps the most likely k tokens", () => {
    expect([...draws({ temperature: 1, topK: 2 }).keys()].sort()).toEqual([1, 4]);
    expect([...draws({ temperature: 1, topK: 1 }).keys()]).toEqual([1]);
  });

  it("keeps the smallest set of at least probability p", () => {
    // Shares of tokens 1, 4, 2: 0.470, 0.285, 0.173.
    expect([...draws({ temperature: 1, topP: 0.46 }).keys()]).toEqual([1]);
    expect([...draws({ temperature: 1, topP: 0.5 }).keys()].sort()).toEqual([1, 4]);
    expect([...draws({ temperature: 1, topP: 0.9 }).keys()].sort()).toEqual([1, 2, 4]);
  });

  it("takes the most likely token at temperature 0", () => {
    expect([...draws({}).keys()]).toEqual([1]);
  });
});
