import { describe, expect, it } from "vitest";
import { runtime } from "#ort";
import { generate, traceDecoder } from "../../src/train/generate.ts";
import { type BatchGenerateOptions, generateBatch } from "../../src/train/generate-batch.ts";
import { llamaJson, tinyModel } from "../models/tiny.ts";

const { taskModel, weights } = tinyModel(llamaJson);
const prompts = [[4, 17, 9], [3], [8, 8, 1, 30, 2, 11], [25, 6]];

async function continued(
  options: Omit<BatchGenerateOptions, "prompts"> & Partial<BatchGenerateOptions>,
): Promise<number[][]> {
  const { graph, ...decoder } = traceDecoder(taskModel);
  const session = await runtime.openSession(graph);
  try {
    return await generateBatch(decoder, session, weights, { prompts, ...options });
  } finally {
    await session.dispose();
  }
}

async function oneByOne(maxTokens: number, stopTokens: readonly number[] = []): Promise<number[][]> {
  const { graph, ...decoder } = traceDecoder(taskModel);
  const session = await runtime.openSession(graph);
  try {
    const all: number[][] = [];
    for (const prompt of prompts) {
      const ids: number[] = [];
      for await (const { id } of generate(decoder, session, weights, { prompt, maxTokens, stopTokens }))
        ids.push(id);
      all.push(ids);
    }
    return all;
  } finally {
    await session.dispose();
  }
}

describe("generateBatch", () => {
  it("continues prompts of different lengths as they are continued one by one", async () => {
    expect(await continued({ maxTokens: 12 })).toEqual(await oneByOne(12));
  });

  it("ends each row at its stop, and goes on with the others", async () => {
    const free = await oneByOne(12);
    const stop = free[0]?.[2] ?? -1;
    const found = await continued({ maxTokens: 12, stopTokens: [stop] });
    expect(found).toEqual(await oneByOne(12, [stop]));
    expect(found.some(({ length }) => length === 12)).toBe(free.some((ids) => !ids.includes(stop)));
  });

  it("ends each row where the positions of the model end", async () => {
    const found = await continued({ maxTokens: 100 });
    expect(found.map(({ length }) => length)).toEqual(prompts.map(({ length }) => 32 - length + 1));
    expect(found).toEqual(await oneByOne(100));
  });

  it("asks for each row whether it is enough", async () => {
    const found = await continued({ maxTokens: 9, isDone: (row, ids) => ids.length > 2 * row });
    expect(found.map(({ length }) => length)).toEqual([1, 3, 5, 7]);
  });

  it("stops between passes when it is aborted", async () => {
    const controller = new AbortController();
    const work = continued({
      maxTokens: 9,
      signal: controller.signal,
      onPass: (_, pass) => pass === 3 && controller.abort(new Error("enough")),
    });
    await expect(work).rejects.toThrow("enough");
  });

  it("refuses an empty prompt", async () => {
    await expect(continued({ maxTokens: 1, prompts: [[]] })).rejects.toThrow("expected 1 to 32");
  });
});
