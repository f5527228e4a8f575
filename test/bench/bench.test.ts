import { existsSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { aggregateShare, measureDense } from "../../bench/aggregate.ts";
import { benchBeside } from "../../bench/beside.ts";
import { benchGenerate } from "../../bench/generate.ts";
import { benchMixed } from "../../bench/mixed.ts";
import { benchStep } from "../../bench/step.ts";
import { shared } from "../shared.ts";

const program = (seconds: number, megabytes: number): string =>
  `process.stdout.write("warming up\\n" + JSON.stringify({ secondsPerStep: ${seconds}, peakMB: ${megabytes} }))`;

describe("a bench beside another program", () => {
  test("takes turns and compares medians", async () => {
    const lines: string[] = [];
    const figures = await benchBeside({
      own: [process.execPath, "-e", program(0.5, 300)],
      command: `"${process.execPath}" -e '${program(0.75, 600)}'`,
      repeat: 2,
      onLine: (line) => lines.push(line),
    });
    expect(lines).toHaveLength(4);
    expect(figures).toMatchObject({ speed: 1.5, memory: 0.5, repeat: 2 });
  });

  test("compares rates of tokens", async () => {
    const prints = (rate: number): string =>
      `console.log(JSON.stringify({ tokensPerSecond: ${rate}, peakMB: 100 }))`;
    const figures = await benchBeside({
      own: [process.execPath, "-e", prints(30)],
      command: `"${process.execPath}" -e '${prints(20)}'`,
      repeat: 1,
      onLine: () => undefined,
    });
    expect(figures.speed).toBeCloseTo(1.5);
  });

  test("says what a program without a JSON line printed", async () => {
    const run = benchBeside({
      own: [process.execPath, "-e", "console.log('no figures')"],
      command: "true",
      repeat: 1,
      onLine: () => undefined,
    });
    await expect(run).rejects.toThrow(/printed "no figures"; expected a JSON line/);
  });
});

test("a step's rate counts the products of the graph", async () => {
  const figures = await benchStep({ model: "minilm", batch: 2, length: 16, steps: 2, warmup: 1 });
  // 5 blocks on 32 tokens forward and back, 4 384 + 2 1536 columns of 384 each; the last block's feed-forward on 2.
  const dense = 2 * 2 * 32 * 384 * (4 * 384 + 2 * 1536) * 5;
  expect(figures.productGflop * 1e9).toBeGreaterThan(dense * 0.95);
  expect(figures.productGflop * 1e9).toBeLessThan(dense * 1.3);
  expect(figures.secondsPerStep).toBeGreaterThan(0);
});

test("a step that computes layers again takes more products for less memory", async () => {
  const options = { model: "presidents", batch: 1, length: 8, steps: 1, warmup: 0 } as const;
  const [plain, again] = [await benchStep(options), await benchStep({ ...options, recompute: "layers" })];
  expect([plain.recompute, again.recompute]).toEqual(["none", "layers"]);
  expect(again.productGflop).toBeGreaterThan(1.05 * plain.productGflop);
  expect(again.losses[0]).toBeCloseTo(plain.losses[0], 5);
});

const stories = join(shared ?? "", "models/stories260K");
test.skipIf(!shared)("decoding is timed apart from the prompt (skipped without a model)", async () => {
  const figures = await benchGenerate({ model: stories, batch: 2, length: 5, tokens: 6, threads: 1 });
  expect(figures).toMatchObject({ bench: "generate", batch: 2, promptTokens: 5, newTokens: 6 });
  expect(figures.tokensPerSecond).toBeGreaterThan(0);
  expect(figures.promptSeconds).toBeGreaterThan(0);
});

test.each(["flexlora", "fedex-lora", "frlora"] as const)(
  "the aggregation of %s takes every module of the share once",
  async (method) => {
    const shape = { layers: 2, hidden: 12, intermediate: 20, clients: 3, rank: 2, drift: 0.1 };
    const shares = [await aggregateShare(method, shape, 0, 2), await aggregateShare(method, shape, 1, 2)];
    expect(shares.map(({ modules }) => modules)).toEqual([7, 7]);
    for (const { seconds, making } of shares) {
      expect(seconds).toBeGreaterThan(0);
      expect(making).toBeGreaterThan(0);
    }
    expect(measureDense(24)).toMatchObject({ by: "our Jacobi", size: 24 });
  },
);

const model = join(shared ?? "", "models/all-MiniLM-L6-v2");
const data = join(shared ?? "", "data/glue/sst2/train.jsonl.gz");
test.skipIf(!shared || !existsSync(data))(
  "real phrases in batches of like length have little padding (skipped without the data)",
  async () => {
    const figures = await benchMixed({ folder: model, data, examples: 64, batch: 8, maxLength: 32 });
    expect(figures).toMatchObject({ bench: "mixed", model: "bert", examples: 64 });
    expect(figures.padding).toBeLessThan(0.2);
    expect(figures.losses[0]).toBeCloseTo(Math.log(2), 1);
  },
);
