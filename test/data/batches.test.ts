import fc from "fast-check";
import { describe, expect, it } from "vitest";
import {
  type Batch,
  batches,
  bucketed,
  collate,
  inOrder,
  lengthsOf,
  paddingShare,
} from "../../src/data/batches.ts";
import { type Example, ignored } from "../../src/data/examples.ts";
import { stream } from "../../src/tensor/random.ts";

const causal = (ids: number[], labels: number[] = ids): Example => ({
  inputIds: Int32Array.from(ids),
  labels: Int32Array.from(labels),
});

const anyExample = fc
  .array(fc.tuple(fc.nat(50), fc.boolean()), { minLength: 2, maxLength: 12 })
  .map((tokens) =>
    causal(
      tokens.map(([id]) => id),
      tokens.map(([id, on], t) => (on || t === 1 ? id : ignored)),
    ),
  );

const numbers = (data: ArrayLike<number | bigint>): number[] => Array.from(data, Number);

/** The (row, id before, id after) of each label, by the definition of the shifted loss. */
function shifted(examples: readonly Example[]): number[][] {
  return examples.flatMap(({ inputIds, labels }, b) =>
    [...inputIds].flatMap((id, t) => {
      const next = labels?.[t + 1];
      return next === undefined || next === ignored ? [] : [[b, id, next]];
    }),
  );
}

describe("collate", () => {
  it("pads on the right, masks by length and never by id, and shifts the labels", () => {
    const batch = collate([causal([7, 0, 9]), causal([5, 6], [ignored, 6])], { padId: 0 });
    expect(batch.inputIds.shape).toEqual([2, 3]);
    expect(numbers(batch.inputIds.data)).toEqual([7, 0, 9, 5, 6, 0]);
    expect(numbers(batch.attentionMask.data)).toEqual([1, 1, 1, 1, 1, 0]);
    expect(numbers(batch.labelPositions.data)).toEqual([0, 1, 3]);
    expect(numbers(batch.labels.data)).toEqual([0, 9, 6]);
    expect([batch.numExamples, batch.numLabels]).toEqual([2, 3]);
    expect(batch.tokenTypeIds).toBeUndefined();
  });

  it("has exactly the labels of the shifted loss, at any padding", () => {
    fc.assert(
      fc.property(fc.array(anyExample, { minLength: 1, maxLength: 5 }), fc.nat(4), (examples, extra) => {
        const padTo = Math.max(...lengthsOf(examples)) + extra;
        const batch = collate(examples, { padId: 3, padTo });
        const found = numbers(batch.labelPositions.data).map((at, i) => [
          Math.floor(at / padTo),
          Number(batch.inputIds.data[at]),
          Number(batch.labels.data[i]),
        ]);
        expect(found).toEqual(shifted(examples));
        expect(numbers(batch.attentionMask.data).reduce((a, b) => a + b, 0)).toBe(
          lengthsOf(examples).reduce((a, b) => a + b, 0),
        );
      }),
    );
  });

  it("gives one class or target a row, and token types where the examples have them", () => {
    const rows = [
      { inputIds: Int32Array.of(1, 2, 3), tokenTypeIds: Int32Array.of(0, 0, 1), label: 2 },
      { inputIds: Int32Array.of(4), tokenTypeIds: Int32Array.of(1), label: 0 },
    ];
    const batch = collate(rows);
    expect(batch.labels).toEqual({ dtype: "int64", shape: [2], data: BigInt64Array.of(2n, 0n) });
    expect(numbers(batch.tokenTypeIds?.data ?? [])).toEqual([0, 0, 1, 1, 0, 0]);
    expect(batch.labelPositions.shape).toEqual([0]);
    const targets = collate([{ inputIds: Int32Array.of(1), label: 0.25 }], { regression: true });
    expect(targets.labels).toEqual({ dtype: "float32", shape: [1], data: Float32Array.of(0.25) });
  });

  it("refuses mixed kinds, examples longer than padTo, classes that are no integers, and nothing to train", () => {
    const labelled = { inputIds: Int32Array.of(1), label: 0 };
    expect(() => collate([causal([1, 2]), labelled])).toThrow("example 1 has other labels than example 0");
    expect(() => collate([causal([1, 2, 3])], { padTo: 2 })).toThrow(
      "an example has 3 tokens, expected at most 2",
    );
    expect(() => collate([{ ...labelled, label: 0.5 }])).toThrow("the class 0.5 is no integer");
    expect(() => collate([causal([1, 2], [1, ignored])])).toThrow(
      expect.objectContaining({ code: "no-labels" }),
    );
    expect(() => collate([])).toThrow(expect.objectContaining({ code: "no-examples" }));
  });
});

describe("plans", () => {
  const lengths = fc.array(fc.integer({ min: 1, max: 200 }), { minLength: 1, maxLength: 150 });

  it("take each example once, in batches of which at most one is not full", () => {
    fc.assert(
      fc.property(lengths, fc.integer({ min: 1, max: 9 }), fc.nat(5), (sizes, batchSize, seed) => {
        const plan = bucketed(sizes, {
          batchSize,
          random: stream({ seed, purpose: "batches" }),
          bucketBatches: 4,
        });
        expect(plan.flat().sort((a, b) => a - b)).toEqual(sizes.map((_, i) => i));
        expect(plan.filter((indices) => indices.length < batchSize).length).toBeLessThanOrEqual(1);
        expect(inOrder(sizes.length, batchSize).flat()).toEqual(sizes.map((_, i) => i));
      }),
    );
  });

  it("bucketing leaves little padding where order leaves much", () => {
    const random = stream({ seed: 1, purpose: "lengths" });
    const sizes = Array.from({ length: 1024 }, () => 8 + random.integer(120));
    const plan = bucketed(sizes, { batchSize: 16, random });
    expect(paddingShare(sizes, inOrder(sizes.length, 16))).toBeGreaterThan(0.4);
    expect(paddingShare(sizes, plan)).toBeLessThan(0.02);
    expect(paddingShare([5, 3, 2], [[0, 1], [2]])).toBeCloseTo(1 - 10 / 12, 12);
  });

  it("the order depends on seed, round and client, and on nothing else", () => {
    const examples = Array.from({ length: 40 }, (_, i) =>
      causal([i, i + 1, ...new Array<number>(i % 5).fill(1)]),
    );
    const rows = (made: Iterable<Batch>): number[][] =>
      [...made].map(({ inputIds }) => numbers(inputIds.data));
    const run = (shuffle: { seed: number; round?: number; client?: string }): number[][] =>
      rows(batches(examples, { batchSize: 4, shuffle }));
    expect(run({ seed: 1, round: 2, client: "a" })).toEqual(run({ seed: 1, round: 2, client: "a" }));
    for (const other of [
      { seed: 2, round: 2, client: "a" },
      { seed: 1, round: 3, client: "a" },
      { seed: 1, round: 2, client: "b" },
    ]) {
      expect(run(other)).not.toEqual(run({ seed: 1, round: 2, client: "a" }));
    }
    expect(rows(batches(examples.slice(0, 3), { batchSize: 2 })).map((row) => row[0])).toEqual([0, 2]);
  });

  it("refuse a batch size below one", () => {
    expect(() => inOrder(3, 0)).toThrow("batchSize 0, expected an integer of at least 1");
  });
});
