import { readFileSync } from "node:fs";
import { describe, expect, it } from "vitest";
import { runtime } from "#ort";
import { adaptedScope, adapterBase } from "../../src/adapters/adapter.ts";
import { loadPeftAdapter } from "../../src/adapters/peft.ts";
import { openFolder } from "../../src/formats/files.node.ts";
import { loadModel } from "../../src/models/load.ts";
import { modelInputs, taskLoss, taskOutput } from "../../src/models/task.ts";
import type { Params } from "../../src/tensor/params.ts";
import { type Tensor, tensor } from "../../src/tensor/tensor.ts";
import { generate, traceDecoder } from "../../src/train/generate.ts";
import { generateBatch } from "../../src/train/generate-batch.ts";
import { encode } from "../../src/train/step.ts";
import { farthest } from "../nn/evaluate.ts";
import { shared } from "../shared.ts";

const int64 = (shape: readonly number[], values: readonly number[]): Tensor =>
  tensor("int64", shape, BigInt64Array.from(values, BigInt));

/** Rows of ids padded on the right. */
function padded(rows: readonly (readonly number[])[]): Params {
  const width = Math.max(...rows.map((row) => row.length));
  const fill = (of: (row: readonly number[], t: number) => number): Tensor =>
    int64(
      [rows.length, width],
      rows.flatMap((row) => Array.from({ length: width }, (_, t) => of(row, t))),
    );
  return new Map([
    ["input_ids", fill((row, t) => row[t] ?? 0)],
    ["attention_mask", fill((row, t) => (t < row.length ? 1 : 0))],
  ]);
}

const expectedOf = <T>(model: string): T =>
  JSON.parse(readFileSync(`${shared}/models/${model}/expected.json`, "utf8")) as T;

describe.skipIf(shared === undefined)("all-MiniLM-L6-v2 (skipped without its folder)", () => {
  interface Expected {
    readonly embeddings: {
      readonly sentences: readonly { readonly ids: number[]; readonly embedding: number[] }[];
    };
    readonly sst2: {
      readonly ids: number[][];
      readonly labels: number[];
      readonly float64: { readonly losses: number[] };
      readonly float32: { readonly firstLogits: number[][] };
    };
  }
  const folder = `${shared}/models/all-MiniLM-L6-v2`;

  it("gives the embeddings of sentence-transformers", async () => {
    const { sentences } = expectedOf<Expected>("all-MiniLM-L6-v2").embeddings;
    const loaded = await loadModel(await openFolder(folder));
    const { output } = taskOutput(loaded, adaptedScope(adapterBase(loaded)), modelInputs(loaded.model));
    const session = await runtime.openSession(encode(new Map([["output", output]])));
    const got = await session.run(new Map([...loaded.weights, ...padded(sentences.map(({ ids }) => ids))]));
    await session.dispose();
    const numbers = Array.from(got.get("output")?.data ?? [], Number);
    expect(
      farthest(
        numbers,
        sentences.flatMap(({ embedding }) => embedding),
      ),
    ).toBeLessThan(2e-6);
  });

  it("starts as PEFT does on SST-2 from a saved adapter and head", async () => {
    const { ids, labels, float64, float32 } = expectedOf<Expected>("all-MiniLM-L6-v2").sst2;
    const loaded = await loadModel(await openFolder(folder), { task: "sequence-classification" });
    expect(loaded.initialized).toEqual(["classifier.weight", "classifier.bias"]);
    const base = adapterBase(loaded);
    const { attached, params } = await loadPeftAdapter(await openFolder(`${folder}/lora-init`), base);
    const { sum, count, output } = taskLoss(
      loaded,
      adaptedScope(base, [attached]),
      modelInputs(loaded.model),
    );
    const outputs = new Map([
      ["sum", sum],
      ["count", count],
      ["output", output],
    ]);
    const session = await runtime.openSession(encode(outputs));
    const batch = new Map([
      ...padded(ids.slice(0, 16)),
      ["labels", int64([16], labels.slice(0, 16))] as const,
    ]);
    const got = await session.run(new Map([...loaded.weights, ...params, ...batch]));
    await session.dispose();
    expect(
      farthest(Array.from(got.get("output")?.data ?? [], Number), float32.firstLogits.flat()),
    ).toBeLessThan(1e-6);
    const mean = Number(got.get("sum")?.data[0]) / Number(got.get("count")?.data[0]);
    expect(mean).toBeCloseTo(float64.losses[0] ?? Number.NaN, 6);
  });
});

describe.skipIf(shared === undefined)("stories260K (skipped without its folder)", () => {
  interface Expected {
    readonly greedy: { readonly promptIds: number[]; readonly ids: number[]; readonly logprobs: number[] };
    readonly sentences: readonly { readonly ids: number[]; readonly lossFloat64: number }[];
  }

  it("gives the losses of Transformers", async () => {
    const { sentences } = expectedOf<Expected>("stories260K");
    const loaded = await loadModel(await openFolder(`${shared}/models/stories260K`));
    const { sum, count } = taskLoss(loaded, adaptedScope(adapterBase(loaded)), modelInputs(loaded.model));
    const outputs = new Map([
      ["sum", sum],
      ["count", count],
    ]);
    const session = await runtime.openSession(encode(outputs));
    for (const { ids, lossFloat64 } of sentences) {
      const targets = ids.slice(1);
      const labelled = new Map([
        [
          "label_positions",
          int64(
            [targets.length],
            targets.map((_, t) => t),
          ),
        ],
        ["labels", int64([targets.length], targets)],
      ]);
      const got = await session.run(new Map([...loaded.weights, ...padded([ids]), ...labelled]));
      expect(Number(got.get("sum")?.data[0]) / Number(got.get("count")?.data[0])).toBeCloseTo(lossFloat64, 5);
    }
    await session.dispose();
  });

  it("writes the 64 greedy tokens of Transformers through the cache", async () => {
    const { greedy } = expectedOf<Expected>("stories260K");
    const loaded = await loadModel(await openFolder(`${shared}/models/stories260K`));
    const { graph, ...decoder } = traceDecoder(loaded);
    const session = await runtime.openSession(graph);
    const ids: number[] = [];
    const logProbs: number[] = [];
    const options = { prompt: greedy.promptIds, maxTokens: greedy.ids.length };
    for await (const token of generate(decoder, session, loaded.weights, options)) {
      ids.push(token.id);
      logProbs.push(token.logProb());
    }
    await session.dispose();
    expect(ids).toEqual(greedy.ids);
    expect(farthest(logProbs, greedy.logprobs)).toBeLessThan(1e-4);
  });

  it("writes them in a batch of prompts of other lengths", async () => {
    const { greedy } = expectedOf<Expected>("stories260K");
    const loaded = await loadModel(await openFolder(`${shared}/models/stories260K`));
    const { graph, ...decoder } = traceDecoder(loaded);
    const session = await runtime.openSession(graph);
    const known = [...greedy.promptIds, ...greedy.ids];
    const lengths = [greedy.promptIds.length, greedy.promptIds.length + 9, greedy.promptIds.length + 2];
    const prompts = lengths.map((length) => known.slice(0, length));
    const options = { prompts, maxTokens: greedy.ids.length };
    const made = await generateBatch(decoder, session, loaded.weights, options);
    await session.dispose();
    for (const [i, prompt] of prompts.entries()) {
      const text = [...prompt, ...(made[i] ?? [])];
      expect(text.slice(0, known.length)).toEqual(known);
    }
  });
});
