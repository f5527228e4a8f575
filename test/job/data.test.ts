import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { loadTokenizer } from "../../src/data/tokenizer.ts";
import { checkJob } from "../../src/job/check.ts";
import { evaluatedRecords, readJobRecords, tokenizeRecords } from "../../src/job/data.ts";
import type { Job } from "../../src/job/job.ts";
import { rawJob } from "./job.ts";

const words = ["<unk>", "a", "b", "c", "d"];
const tokenizer = loadTokenizer({
  model: {
    type: "WordLevel",
    vocab: Object.fromEntries(words.map((word, i) => [word, i])),
    unk_token: "<unk>",
  },
  pre_tokenizer: { type: "Whitespace" },
  normalizer: null,
  post_processor: null,
  decoder: null,
  added_tokens: [],
});

let path = "";
let folder = "";
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "job-data-"));
  path = join(folder, "rows.jsonl");
  const rows = Array.from({ length: 12 }, (_, i) => ({ text: i === 5 ? "" : "a b c d a", label: i % 2 }));
  await writeFile(path, rows.map((row) => `${JSON.stringify(row)}\n`).join(""));
});
afterAll(() => rm(folder, { recursive: true }));

const jobOf = (data: object, more: object = {}): Job =>
  checkJob(
    rawJob({
      data: { path, splits: { validation: 0 }, ...data },
      partition: { kind: "contiguous", clients: 3 },
      ...more,
    }),
  );

describe("the records of a job", () => {
  it("are thinned evenly in every silo", async () => {
    const { partition } = await readJobRecords(jobOf({ perSilo: 2 }));
    expect([...partition.values()]).toEqual([
      [0, 2],
      [4, 6],
      [8, 10],
    ]);
  });

  it("are, of what is held out, those that are evaluated", async () => {
    const job = jobOf(
      { splits: { validation: 0.5, test: 0.25 } },
      { evaluation: { split: "validation", maxExamples: 3 } },
    );
    const read = await readJobRecords(job);
    const evaluated = evaluatedRecords(job, read);
    expect([evaluated.validation.length, evaluated.test.length]).toEqual([3, 0]);
    expect(read.validation).toEqual(expect.arrayContaining([...evaluated.validation]));
  });

  it("show classes by their names", async () => {
    const { picture } = await readJobRecords(
      jobOf({ classes: ["bad", "good"] }, { task: "sequence-classification" }),
    );
    expect(picture).toContain("labels: bad, good (");
  });
});

describe("the notes on a job's data", () => {
  it("take one line for each reason, over all silos and parts", async () => {
    const job = jobOf({ maxLength: 4, template: "text" }, {});
    const { notes } = tokenizeRecords(job, await readJobRecords(job), tokenizer);
    expect(notes).toEqual([
      'left out: 1 training: an empty field "text"',
      "cut to 4 tokens: 11 of 11 training examples",
    ]);
    const packed = jobOf({ maxLength: 3, pack: true });
    const { notes: ofBlocks } = tokenizeRecords(packed, await readJobRecords(packed), tokenizer);
    expect(ofBlocks).toEqual([
      "left out: 2 training: the last tokens do not fill a block of 3",
      'left out: 1 training: an empty field "text"',
    ]);
  });
});
