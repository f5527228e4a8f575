import { copyFile, mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { writeSafetensors } from "../../src/formats/safetensors.ts";
import { checkJob } from "../../src/job/check.ts";
import { quickJob } from "../../src/job/quick.ts";
import { runJob } from "../../src/job/run.ts";
import { bertJson, familyJsons, llamaJson, tinyModel } from "../models/tiny.ts";
import { shared } from "../shared.ts";

const base = fileURLToPath(new URL("../../examples/presidents/base", import.meta.url));
let root = "";

/** Small random models, with the tokenizer of the example where they read text. */
const models: Readonly<Record<string, Readonly<Record<string, unknown>>>> = {
  causal: { ...llamaJson, vocab_size: 4096, max_position_embeddings: 512 },
  text: { ...bertJson, vocab_size: 4096, max_position_embeddings: 512 },
  image: { ...familyJsons.vit, image_size: 32, patch_size: 8, num_channels: 1 },
};

beforeAll(async () => {
  root = await mkdtemp(join(tmpdir(), "presets-"));
  for (const [name, json] of Object.entries(models)) {
    const folder = join(root, name);
    await mkdir(folder);
    await writeFile(join(folder, "config.json"), JSON.stringify(json));
    // Without their heads, which start fresh with the classes of each set.
    const trunk = [...tinyModel(json).weights].filter(([weight]) => !weight.startsWith("classifier."));
    await writeFile(join(folder, "model.safetensors"), writeSafetensors(new Map(trunk)));
    if (name === "image") continue;
    for (const file of ["tokenizer.json", "tokenizer_config.json"])
      await copyFile(join(base, file), join(folder, file));
  }
});
afterAll(() => rm(root, { recursive: true }));

interface DataSet {
  readonly preset: string;
  readonly path: string;
  readonly model: string;
  readonly metric: string;
  readonly splits?: Readonly<Record<string, string>>;
}

const sets: readonly DataSet[] = [
  { preset: "medquad", path: "medquad/medquad.jsonl.gz", model: "causal", metric: "rougeL" },
  { preset: "dolly-15k", path: "dolly15k/dolly15k.jsonl.gz", model: "causal", metric: "rougeL" },
  {
    preset: "cola",
    path: "glue/cola/train.jsonl.gz",
    model: "text",
    metric: "mcc",
    splits: { validation: "glue/cola/validation.jsonl.gz" },
  },
  { preset: "rte", path: "glue/rte/train.jsonl.gz", model: "text", metric: "accuracy" },
  { preset: "sst-2", path: "glue/sst2/train.jsonl.gz", model: "text", metric: "accuracy" },
  { preset: "sts-b", path: "glue/stsb/train.jsonl.gz", model: "text", metric: "mse" },
  { preset: "e2e-nlg", path: "e2e/devset.csv.gz", model: "causal", metric: "bleu" },
  { preset: "boolq", path: "commonsense/boolq/train.json.gz", model: "causal", metric: "acc" },
  { preset: "piqa", path: "commonsense/piqa/test.json.gz", model: "causal", metric: "acc" },
  { preset: "social-iqa", path: "commonsense/social_i_qa/test.json.gz", model: "causal", metric: "acc" },
  { preset: "winogrande", path: "commonsense/winogrande/test.json.gz", model: "causal", metric: "acc" },
  { preset: "arc-easy", path: "commonsense/ARC-Easy/train.json.gz", model: "causal", metric: "acc" },
  {
    preset: "arc-challenge",
    path: "commonsense/ARC-Challenge/train.json.gz",
    model: "causal",
    metric: "acc",
  },
  { preset: "openbookqa", path: "commonsense/openbookqa/train.json.gz", model: "causal", metric: "acc" },
  { preset: "gsm8k", path: "gsm8k/train.jsonl.gz", model: "causal", metric: "gsm8k" },
  { preset: "brain-mri", path: "brain-mri", model: "image", metric: "f1Macro" },
];

describe.skipIf(shared === undefined)("presets over four clients (needs the reference data)", () => {
  it.each(sets)(
    "$preset runs, and is measured by its metric",
    async ({ preset, path, model, metric, splits = {} }) => {
      const data = `${shared}/data/`;
      const held = Object.fromEntries(Object.entries(splits).map(([part, file]) => [part, `${data}${file}`]));
      const job = checkJob({
        schema: 1,
        model: join(root, model),
        data: {
          preset,
          path: data + path,
          limit: 120,
          ...(model === "causal" ? { maxLength: 400 } : {}),
          ...(Object.keys(held).length === 0 ? {} : { splits: held }),
        },
        partition: { kind: "iid", clients: 4 },
        adapter: { kind: "lora", rank: 2, target: "all-linear" },
        strategy: { name: "fedit" },
        local: { optimizer: { name: "adamw", learningRate: 1e-3 }, steps: 1, batchSize: 2 },
        evaluation: { maxExamples: 2, maxTokens: 2 },
        rounds: 1,
        workers: 1,
        threads: 1,
      });
      const { after } = await runJob(quickJob({ ...job, out: join(root, preset) }));
      expect(Object.keys(after)).toContain("loss");
      expect(Number.isFinite(after.loss)).toBe(true);
      expect(Object.keys(after)).toContain(metric);
    },
  );
});
