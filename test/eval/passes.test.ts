import { beforeAll, describe, expect, it } from "vitest";
import { adaptedScope, adapterBase } from "../../src/adapters/adapter.ts";
import { type Example, ignored } from "../../src/data/examples.ts";
import { readTokenizer } from "../../src/data/files.node.ts";
import type { Tokenizer } from "../../src/data/tokenizer.ts";
import { classified, regressed } from "../../src/eval/classes.ts";
import { tokenLosses } from "../../src/eval/losses.ts";
import type { EvaluatedModel, Found } from "../../src/eval/model.ts";
import { shiftedCrossEntropy } from "../../src/metrics/perplexity.ts";
import { modelInputs, taskOutput } from "../../src/models/task.ts";
import type { Params } from "../../src/tensor/params.ts";
import { tensor } from "../../src/tensor/tensor.ts";
import { bertJson, llamaJson, tinyModel } from "../models/tiny.ts";
import { evaluate } from "../nn/evaluate.ts";
import { baseFolder } from "./base.ts";

let tokenizer: Tokenizer;

beforeAll(async () => {
  tokenizer = await readTokenizer(baseFolder);
});

async function inOrder<T>(found: AsyncIterable<Found<T>>): Promise<T[]> {
  const all: T[] = [];
  for await (const { index, value } of found) all[index] = value;
  return all;
}

/** What a model gives for one text by itself, without padding. */
async function outputOf(json: typeof llamaJson, inputIds: Int32Array): Promise<number[]> {
  const { taskModel, weights } = tinyModel(json);
  const w = adaptedScope(adapterBase(taskModel), []);
  const { output } = taskOutput(taskModel, w, modelInputs(taskModel.model));
  const shape = [1, inputIds.length];
  const feeds: Params = new Map([
    ...weights,
    ["input_ids", tensor("int64", shape, BigInt64Array.from(inputIds, BigInt))] as const,
    ["attention_mask", tensor("int64", shape, new BigInt64Array(inputIds.length).fill(1n))] as const,
  ]);
  return (await evaluate({ output }, feeds)).output ?? [];
}

function evaluated(json: typeof llamaJson): EvaluatedModel {
  const { taskModel, weights } = tinyModel(json);
  return { model: taskModel, tokenizer, attached: [], base: weights, params: new Map() };
}

const rows: readonly number[][] = [
  [4, 17, 9, 3, 22],
  [1, 2],
  [8, 8, 1, 28, 2, 11, 5],
  [7, 6, 5],
];

describe("the losses of texts", () => {
  const examples = rows.map((row, i): Example => {
    const inputIds = Int32Array.from(row);
    // Of every other text only the last tokens are labelled.
    return { inputIds, labels: i % 2 === 0 ? inputIds : inputIds.map((id, t) => (t === 0 ? ignored : id)) };
  });

  it("are those of each text by itself, whatever it is batched with", async () => {
    const found = await inOrder(tokenLosses(evaluated(llamaJson), examples, { batchSize: 3 }));
    for (const [i, { inputIds, labels }] of examples.entries()) {
      const flat = await outputOf(llamaJson, inputIds);
      const logits = [...inputIds].map((_, t) => flat.slice(t * 31, (t + 1) * 31));
      const { sum, tokens } = shiftedCrossEntropy(logits, [...(labels ?? [])]);
      const right = logits.slice(0, -1).filter((row, t) => row.indexOf(Math.max(...row)) === labels?.[t + 1]);
      expect(found[i]?.sum).toBeCloseTo(sum, 4);
      expect([found[i]?.tokens, found[i]?.correct]).toEqual([tokens, right.length]);
      expect(found[i]?.text).toBe(tokenizer.decode([...inputIds].slice(1)));
    }
  });

  it("tell how far they are, and stop when they are aborted", async () => {
    const controller = new AbortController();
    const done: number[] = [];
    const options = {
      batchSize: 1,
      signal: controller.signal,
      onProgress(count: number): void {
        done.push(count);
        if (count === 2) controller.abort(new Error("enough"));
      },
    };
    await expect(inOrder(tokenLosses(evaluated(llamaJson), examples, options))).rejects.toThrow("enough");
    expect(done).toEqual([1, 2]);
  });
});

describe("the classes of texts", () => {
  it("have the probabilities of each text by itself", async () => {
    const examples = rows.map((row, i): Example => ({ inputIds: Int32Array.from(row), label: i % 3 }));
    const found = await inOrder(classified(evaluated(bertJson), examples, { batchSize: 3 }));
    for (const [i, { inputIds, label = 0 }] of examples.entries()) {
      const logits = await outputOf(bertJson, inputIds);
      const sum = logits.reduce((total, logit) => total + Math.exp(logit), 0);
      const best = logits.indexOf(Math.max(...logits));
      expect([found[i]?.predicted, found[i]?.actual]).toEqual([best, label]);
      expect(found[i]?.confidence).toBeCloseTo(Math.exp(logits[best] ?? 0) / sum, 5);
      expect(found[i]?.loss).toBeCloseTo(Math.log(sum) - (logits[label] ?? 0), 5);
    }
  });
});

describe("the numbers of texts", () => {
  it("are the predictions of each text by itself", async () => {
    const json = { ...bertJson, num_labels: 1, problem_type: "regression" };
    const examples = rows.map((row, i): Example => ({ inputIds: Int32Array.from(row), label: i / 2 }));
    const found = await inOrder(regressed(evaluated(json), examples, { batchSize: 2 }));
    for (const [i, { inputIds, label }] of examples.entries()) {
      expect(found[i]?.predicted).toBeCloseTo((await outputOf(json, inputIds))[0] ?? Number.NaN, 5);
      expect(found[i]?.actual).toBe(label);
    }
  });
});
