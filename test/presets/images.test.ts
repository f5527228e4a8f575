import { mkdir, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { gzipSync } from "node:zlib";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { writeSafetensors } from "../../src/formats/safetensors.ts";
import { checkJob } from "../../src/job/check.ts";
import { readJobRecords } from "../../src/job/data.ts";
import { exportMerged } from "../../src/job/export.node.ts";
import { modelDigest } from "../../src/job/model.node.ts";
import { runJob } from "../../src/job/run.ts";
import { familyJsons, tinyModel } from "../models/tiny.ts";

const pictures = fileURLToPath(new URL("../data/images/folder", import.meta.url));
let root = "";

async function putModel(name: string, image: object): Promise<void> {
  const json = { ...familyJsons.vit, ...image, initializer_range: 0.05 };
  const trunk = [...tinyModel(json).weights].filter(([weight]) => !weight.startsWith("classifier."));
  await mkdir(join(root, name));
  await writeFile(join(root, name, "config.json"), JSON.stringify(json));
  await writeFile(join(root, name, "model.safetensors"), writeSafetensors(new Map(trunk)));
}

beforeAll(async () => {
  root = await mkdtemp(join(tmpdir(), "images-"));
  await putModel("gray", { image_size: 28, patch_size: 7, num_channels: 1 });
  await putModel("color", { image_size: 16, patch_size: 8, num_channels: 3 });
  await writeFile(
    join(root, "color", "preprocessor_config.json"),
    JSON.stringify({
      size: { height: 16, width: 16 },
      resample: 3,
      image_mean: [0.5, 0.4, 0.3],
      image_std: [0.2, 0.2, 0.2],
    }),
  );
  await mkdir(join(root, "fashion"));
  for (const [part, count] of [
    ["train", 16],
    ["t10k", 4],
  ] as const) {
    // Class 0 is dark and class 1 is bright.
    const pixels = Buffer.concat(Array.from({ length: count }, (_, i) => Buffer.alloc(784, i % 2 ? 250 : 5)));
    const images = Buffer.concat([
      Buffer.from([0, 0, 8, 3, 0, 0, 0, count, 0, 0, 0, 28, 0, 0, 0, 28]),
      pixels,
    ]);
    const labels = Buffer.from([
      0,
      0,
      8,
      1,
      0,
      0,
      0,
      count,
      ...Array.from({ length: count }, (_, i) => i % 2),
    ]);
    await writeFile(join(root, "fashion", `${part}-images-idx3-ubyte.gz`), gzipSync(images));
    await writeFile(join(root, "fashion", `${part}-labels-idx1-ubyte.gz`), gzipSync(labels));
  }
  await mkdir(join(root, "cifar"));
  for (const [name, count] of [
    ["data_batch_1", 8],
    ["test_batch", 2],
  ] as const) {
    const rows = Array.from({ length: count }, (_, i) =>
      Buffer.concat([Buffer.from([i % 10]), Buffer.alloc(3072, 20 * i)]),
    );
    await writeFile(join(root, "cifar", `${name}.bin`), Buffer.concat(rows));
  }
});
afterAll(() => rm(root, { recursive: true }));

const job = (model: string, data: object, more: object = {}) =>
  checkJob({
    schema: 1,
    model: join(root, model),
    task: "image-classification",
    data,
    partition: { kind: "iid", clients: 2 },
    adapter: { kind: "lora", rank: 2, target: "all-linear" },
    strategy: { name: "fedit" },
    local: { optimizer: { name: "adamw", learningRate: 0.02 }, steps: 8, batchSize: 4 },
    rounds: 1,
    workers: 1,
    threads: 1,
    ...more,
  });

describe("image classification over clients", () => {
  it("learns the kinds of clothes in the files of Fashion-MNIST", async () => {
    const made = job("gray", { preset: "fashion-mnist", path: join(root, "fashion") }, { rounds: 2 });
    expect(made).toMatchObject({
      evaluation: { split: "test", metrics: ["accuracy"] },
      data: { splits: { field: "split" } },
    });
    const { before, after } = await runJob({ ...made, out: join(root, "run-fashion") });
    expect(after.loss).toBeLessThan(before.loss ?? 0);
    expect(after.accuracy).toBe(1);
  });

  it("runs on the binary version of CIFAR-10", async () => {
    const made = job("color", { preset: "cifar-10", path: join(root, "cifar") });
    const { after } = await runJob({ ...made, out: join(root, "run-cifar") });
    expect(Number.isFinite(after.loss)).toBe(true);
  });

  it("learns from random weights, and what it learned starts a job with other classes", async () => {
    const folder = join(root, "drawn");
    await mkdir(folder);
    const json = {
      ...familyJsons.vit,
      image_size: 28,
      patch_size: 7,
      num_channels: 1,
      initializer_range: 0.05,
    };
    await writeFile(join(folder, "config.json"), JSON.stringify(json));
    const processor = JSON.stringify({ image_mean: 0.25, image_std: 0.5 });
    await writeFile(join(folder, "preprocessor_config.json"), processor);
    const data = { preset: "fashion-mnist", path: join(root, "fashion") };
    const all = { weights: "random", adapter: { kind: "dense" }, strategy: { name: "centralized" } };
    const run = { ...job("drawn", data, { ...all, seed: 3 }), out: join(root, "run-drawn") };
    await expect(runJob({ ...run, weights: "pretrained" })).rejects.toThrow(/no model\.safetensors/);
    const { before, after } = await runJob(run);
    expect(after.loss).toBeLessThan(before.loss ?? 0);
    expect(await modelDigest(folder, run)).not.toBe(await modelDigest(folder, { ...run, seed: 4 }));

    const exported = join(root, "exported");
    await exportMerged(run.out, exported);
    expect(await readFile(join(exported, "preprocessor_config.json"), "utf8")).toBe(processor);
    const two = (weights: object) => {
      const made = job(
        "exported",
        { path: join(root, "fashion"), classes: 2, splits: { field: "split" } },
        weights,
      );
      return {
        ...made,
        evaluation: { ...made.evaluation, split: "test" as const },
        out: join(root, "run-two"),
      };
    };
    await expect(runJob(two({}))).rejects.toThrow(
      /classifier\.weight: got \[10,\d+\], expected \[2,\d+\]; weights: trunk/,
    );
    const second = await runJob(two({ weights: "trunk" }));
    expect(second.after.loss).toBeLessThan(second.before.loss ?? 0);
  });

  it("reads images in folders, resized and normalised as the model says", async () => {
    const made = job(
      "color",
      { path: pictures, classes: ["cat", "dog"], splits: { field: "split" } },
      { evaluation: { split: "test" } },
    );
    const { records, partition, test } = await readJobRecords(made);
    const [first = 0] = [...partition.values()].flat();
    const { image } = records[first] as {
      readonly image: {
        readonly pixels: Uint8Array;
        readonly processor: { readonly values: readonly Float32Array[] };
      };
    };
    expect(image.pixels.length).toBe(3 * 16 * 16);
    expect(image.processor.values.map((table) => table[0])).toEqual([-2.5, -2, -1.5].map(Math.fround));
    expect(test.length).toBe(4);
  });

  it("refuses a model of text", async () => {
    const text = fileURLToPath(new URL("../../examples/presidents/base", import.meta.url));
    const made = { ...job("color", { path: pictures, classes: 2 }), model: text };
    await expect(readJobRecords(made)).rejects.toThrow(/the model reads no images; take a vision model/);
    expect(JSON.parse(await readFile(join(text, "config.json"), "utf8")).model_type).toBe("llama");
  });
});
