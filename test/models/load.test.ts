import { describe, expect, it } from "vitest";
import { bytesSource } from "../../src/formats/byte-source.ts";
import { writeSafetensors } from "../../src/formats/safetensors.ts";
import { describeModel, loadModel } from "../../src/models/load.ts";
import { floatWeight } from "../../src/models/precision.ts";
import { randomWeights } from "../../src/models/random-weights.ts";
import { convert } from "../../src/tensor/convert.ts";
import type { Params } from "../../src/tensor/params.ts";
import { tensor, zeros } from "../../src/tensor/tensor.ts";
import { bertJson, folderOf, llamaJson, tinyModel } from "./tiny.ts";

const renamed = (params: Params, rename: (name: string) => string): Params =>
  new Map([...params].map(([name, value]) => [rename(name), value]));
const without = (params: Params, pattern: RegExp): Params =>
  new Map([...params].filter(([name]) => !pattern.test(name)));

describe("loadModel", () => {
  it("reads what a checkpoint holds, by the names of the task", async () => {
    const { weights } = tinyModel(llamaJson);
    const loaded = await loadModel(folderOf(llamaJson, weights));
    expect(loaded.task).toBe("causal-lm");
    expect(loaded.weights).toEqual(weights);
    expect([loaded.initialized, loaded.ignored]).toEqual([[], []]);
  });

  it("widens 16-bit tensors to float32", async () => {
    const { weights } = tinyModel(llamaJson);
    for (const dtype of ["float16", "bfloat16"] as const) {
      const stored = new Map([...weights].map(([name, value]) => [name, convert(value, dtype)] as const));
      const loaded = await loadModel(folderOf(llamaJson, stored));
      for (const [name, value] of stored) expect(loaded.weights.get(name)).toEqual(convert(value, "float32"));
    }
  });

  it("reads shards", async () => {
    const { weights } = tinyModel(llamaJson);
    const layers = without(weights, /embed|lm_head|norm\.weight/);
    const rest = new Map([...weights].filter(([name]) => !layers.has(name)));
    const map = [...weights.keys()].map((name) => [
      name,
      layers.has(name) ? "a.safetensors" : "b.safetensors",
    ]);
    const index = JSON.stringify({ metadata: {}, weight_map: Object.fromEntries(map) });
    const folder = new Map([
      ["config.json", bytesSource(new TextEncoder().encode(JSON.stringify(llamaJson)))],
      ["model.safetensors.index.json", bytesSource(new TextEncoder().encode(index))],
      ["a.safetensors", bytesSource(writeSafetensors(layers))],
      ["b.safetensors", bytesSource(writeSafetensors(rest))],
    ]);
    expect((await loadModel(folder)).weights).toEqual(weights);
  });

  it("finds the trunk under its prefix or bare, old norm names, and passes over buffers", async () => {
    const { weights } = tinyModel(bertJson);
    const old = renamed(weights, (name) =>
      name
        .replace(/^bert\./, "")
        .replace("LayerNorm.weight", "LayerNorm.gamma")
        .replace("LayerNorm.bias", "LayerNorm.beta"),
    );
    const positions = tensor(
      "int64",
      [1, 16],
      BigInt64Array.from({ length: 16 }, (_, i) => BigInt(i)),
    );
    const stored = new Map([
      ...old,
      ["embeddings.position_ids", positions],
      ["cls.predictions.bias", zeros("float32", [29])],
    ]);
    const loaded = await loadModel(folderOf(bertJson, stored));
    expect(loaded.weights).toEqual(weights);
    expect(loaded.ignored).toEqual(["cls.predictions.bias"]);
  });

  it("starts an absent head from the seed and says so", async () => {
    const { weights } = tinyModel(bertJson);
    const trunk = folderOf(bertJson, without(weights, /pooler|classifier/));
    const [one, same, other] = await Promise.all([1, 1, 2].map((seed) => loadModel(trunk, { seed })));
    expect(one?.initialized).toEqual([
      "bert.pooler.dense.weight",
      "bert.pooler.dense.bias",
      "classifier.weight",
      "classifier.bias",
    ]);
    const head = one?.weights.get("classifier.weight");
    expect(same?.weights.get("classifier.weight")).toEqual(head);
    expect(other?.weights.get("classifier.weight")).not.toEqual(head);
    expect(one?.weights.get("classifier.bias")).toEqual(zeros("float32", [3]));
  });

  it("takes another task and number of labels than the checkpoint's", async () => {
    const { weights } = tinyModel(bertJson);
    const trunk = folderOf(bertJson, without(weights, /classifier/));
    const regression = await loadModel(trunk, { task: "regression", numLabels: 1 });
    expect(regression.weights.get("classifier.weight")?.shape).toEqual([1, 18]);
    const embeddings = await loadModel(trunk, { task: "embeddings" });
    expect(embeddings.weights.has("encoder.layer.1.output.dense.bias")).toBe(true);
    expect(embeddings.ignored).toEqual(["bert.pooler.dense.bias", "bert.pooler.dense.weight"]);
  });

  it("begins a new head on a trunk whose checkpoint has one of other classes, where it is asked to", async () => {
    const { weights } = tinyModel(bertJson);
    const folder = folderOf(bertJson, weights);
    await expect(loadModel(folder, { numLabels: 5 })).rejects.toThrow(
      /2 of \d+ tensors.*classifier\.weight: got \[3,18\], expected \[5,18\]; weights: trunk begins with a new one/s,
    );
    const loaded = await loadModel(folder, { numLabels: 5, weights: "trunk", seed: 2 });
    expect(loaded.initialized).toEqual(["classifier.weight", "classifier.bias"]);
    expect(without(loaded.weights, /classifier/)).toEqual(without(weights, /classifier/));
    const again = await loadModel(folderOf(bertJson, without(weights, /classifier/)), {
      numLabels: 5,
      seed: 2,
    });
    expect(loaded.weights).toEqual(again.weights);
  });

  it("draws every weight from the seed where it is asked to, and needs no checkpoint then", async () => {
    const { weights, taskModel } = tinyModel(bertJson);
    const config = new Map([
      ["config.json", bytesSource(new TextEncoder().encode(JSON.stringify(bertJson)))],
    ]);
    await expect(loadModel(config)).rejects.toMatchObject({ code: "missing-file" });
    const alone = await loadModel(config, { weights: "random", seed: 3 });
    expect(alone.weights).toEqual(randomWeights(taskModel, 3));
    expect(alone.initialized).toEqual([...weights.keys()]);
    const beside = await loadModel(folderOf(bertJson, weights), { weights: "random", seed: 3 });
    expect(beside.weights).toEqual(alone.weights);
  });

  it("holds random weights in the precision that is asked for", async () => {
    const json = { ...llamaJson, hidden_size: 32, intermediate_size: 64 };
    const config = new Map([["config.json", bytesSource(new TextEncoder().encode(JSON.stringify(json)))]]);
    const whole = await loadModel(config, { weights: "random", seed: 3 });
    const blocks = await loadModel(config, { weights: "random", seed: 3, precision: "4bit" });
    const name = "model.layers.0.mlp.up_proj.weight";
    expect([blocks.held?.get(name)?.blockBits, blocks.weights.has(name)]).toEqual([4, false]);
    const [exact, read] = [whole, blocks].map(({ weights }) =>
      Array.from(floatWeight(weights, name)?.data ?? [], Number),
    );
    const largest = Math.max(...(exact ?? []).map(Math.abs));
    const errors = (read ?? []).map((value, i) => Math.abs(value - (exact?.[i] ?? Number.NaN)));
    expect(errors.length).toBe(64 * 32);
    // A block of 32 numbers has 16 levels from its least to its largest, which round by half a level.
    expect(Math.max(...errors)).toBeLessThan((1.1 * largest) / 15);
  });

  it("lists every missing and misshapen tensor in one error", async () => {
    const { weights } = tinyModel(llamaJson);
    const broken = new Map([
      ...without(weights, /layers\.1\.mlp\.up_proj|lm_head/),
      ["model.norm.weight", zeros("float32", [7])] as const,
    ]);
    await expect(loadModel(folderOf(llamaJson, broken))).rejects.toMatchObject({
      code: "checkpoint",
      message: expect.stringMatching(
        /3 of 21 tensors.*model\.layers\.1\.mlp\.up_proj\.weight: missing.*model\.norm\.weight: got \[7\], expected \[20\].*lm_head\.weight: missing/s,
      ),
    });
  });

  it("reads a tied checkpoint with or without the copy of its output layer", async () => {
    const json = { ...llamaJson, tie_word_embeddings: true };
    const { weights } = tinyModel(json);
    expect(weights.has("lm_head.weight")).toBe(false);
    const copy = weights.get("model.embed_tokens.weight") ?? zeros("float32", []);
    const loaded = await loadModel(folderOf(json, new Map([...weights, ["lm_head.weight", copy]])));
    expect([loaded.weights, loaded.ignored]).toEqual([weights, []]);
  });
});

describe("describeModel", () => {
  it("gives one configuration for the spellings of Transformers 4 and 5", () => {
    const scaling = {
      factor: 8,
      low_freq_factor: 1,
      high_freq_factor: 4,
      original_max_position_embeddings: 16,
    };
    const { rope_theta, ...rest } = llamaJson;
    const newer = describeModel({
      ...rest,
      dtype: "float32",
      rope_parameters: { ...scaling, rope_type: "llama3", rope_theta },
    });
    const older = describeModel({
      ...llamaJson,
      torch_dtype: "float32",
      rope_scaling: { ...scaling, rope_type: "llama3" },
    });
    const oldest = describeModel({ ...llamaJson, rope_scaling: { ...scaling, type: "llama3" } });
    expect(older).toEqual(newer);
    expect(oldest).toEqual(newer);
  });

  it("refuses every unsupported value by name, all at once", () => {
    const json = {
      ...llamaJson,
      hidden_act: "xielu",
      pretraining_tp: 2,
      hidden_size: "big",
      rope_scaling: { rope_type: "yarn", factor: 2 },
    };
    expect(() => describeModel(json)).toThrow(
      /hidden_act: got "xielu".*pretraining_tp: got 2, expected 1.*hidden_size: got "big", expected a number.*rope_scaling\.rope_type: got "yarn"/s,
    );
    expect(() => describeModel({ ...bertJson, position_embedding_type: "relative_key" })).toThrow(
      /position_embedding_type/,
    );
    expect(() => describeModel({ ...bertJson, problem_type: "multi_label_classification" })).toThrow(
      /problem_type/,
    );
  });

  it("refuses an unknown family and lists the known ones", () => {
    expect(() => describeModel({ model_type: "mamba" })).toThrow(
      /model_type "mamba"; supported are bert, .*llama, /,
    );
    expect(() => describeModel({})).toThrow(/model_type undefined/);
  });

  it("refuses a task that the family has not", () => {
    expect(() => describeModel(bertJson, { task: "causal-lm" })).toThrow(
      /got task "causal-lm", expected one of/,
    );
  });

  it("reads a classifier of one label as regression", () => {
    expect(describeModel({ ...bertJson, num_labels: 1 }).task).toBe("regression");
    expect(
      describeModel({ ...bertJson, num_labels: undefined, id2label: { 0: "a", 1: "b", 2: "c" } }).config
        .numLabels,
    ).toBe(3);
  });
});
