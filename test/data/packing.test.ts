import { describe, expect, it } from "vitest";
import { runtime } from "#ort";
import { adaptedScope, adapterBase } from "../../src/adapters/adapter.ts";
import { collate } from "../../src/data/batches.ts";
import { type Example, ignored } from "../../src/data/examples.ts";
import { sharedRows } from "../../src/data/packing.ts";
import { batchFeeds } from "../../src/federation/trainer.ts";
import { modelInputs, taskLoss } from "../../src/models/task.ts";
import { stream } from "../../src/tensor/random.ts";
import { encode } from "../../src/train/step.ts";
import { familyJsons, tinyModel } from "../models/tiny.ts";

const random = stream({ seed: 3, purpose: "packing test" });
const examples: readonly Example[] = [5, 9, 3, 7, 2, 4, 8].map((length) => {
  const inputIds = Int32Array.from({ length }, () => 1 + random.integer(28));
  // The first part of each is a prompt.
  return { inputIds, labels: inputIds.map((id, t) => (t < length / 3 ? ignored : id)) };
});

describe("sharedRows", () => {
  it("fills rows, keeps every token, and predicts no first token", () => {
    const rows = sharedRows(examples, 12);
    expect(rows.map(({ inputIds }) => inputIds.length)).toEqual([12, 12, 12, 2]);
    const tokens = (list: readonly Example[]) => list.flatMap(({ inputIds }) => [...inputIds]).sort();
    expect(tokens(rows)).toEqual(tokens(examples));
    for (const { labels, segments } of rows)
      for (const [t, segment] of [...(segments ?? [])].entries())
        if (t === 0 || segment !== segments?.[t - 1]) expect(labels?.[t]).toBe(ignored);
  });

  it("gives positions that begin anew", () => {
    const { segmentIds, positionIds } = collate(sharedRows(examples, 12).slice(1));
    expect(Array.from(segmentIds?.data.subarray(0, 12) ?? [], Number)).toEqual([
      1, 1, 1, 1, 1, 1, 1, 1, 2, 2, 2, 2,
    ]);
    expect(Array.from(positionIds?.data.subarray(0, 12) ?? [], Number)).toEqual([
      0, 1, 2, 3, 4, 5, 6, 7, 0, 1, 2, 3,
    ]);
    expect(Array.from(segmentIds?.data.subarray(-3) ?? [], Number)).toEqual([0, 0, 0]);
  });
});

describe("a model with several sequences in a row", () => {
  it.each(["llama", "mistral", "gemma2", "gpt2", "phi3", "qwen2"])(
    "has the loss of each by itself: %s",
    async (family) => {
      const { taskModel, weights } = tinyModel(familyJsons[family] ?? {});
      const measured = async (rows: readonly Example[], packed: boolean) => {
        const optional = packed ? (["segment_ids", "position_ids"] as const) : [];
        const scope = adaptedScope(adapterBase(taskModel), []);
        const loss = taskLoss(taskModel, scope, modelInputs(taskModel.model, { optional }));
        const graph = encode(
          new Map([
            ["loss", loss.sum],
            ["count", loss.count],
          ]),
        );
        const session = await runtime.openSession(graph, { threads: 1 });
        const found = await session.run(new Map([...weights, ...batchFeeds(collate(rows), taskModel.task)]));
        await session.dispose();
        return [found.get("loss")?.data[0], found.get("count")?.data[0]].map(Number);
      };
      let [sum, count] = [0, 0];
      for (const example of examples) {
        const [loss = 0, labels = 0] = await measured([example], false);
        sum += loss;
        count += labels;
      }
      const [loss, labels] = await measured(sharedRows(examples, 12), true);
      expect(labels).toBe(count);
      expect(loss).toBeCloseTo(sum, 3);
      // Without their numbers the sequences would see each other.
      const mixed = sharedRows(examples, 12).map(({ segments: _, ...row }) => row);
      expect(Math.abs(((await measured(mixed, false))[0] ?? 0) - sum)).toBeGreaterThan(0.05);
    },
  );
});
