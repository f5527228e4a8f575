import { describe, expect, it } from "vitest";
import { runtime } from "#ort";
import { adaptedScope, adapterBase, startParams, trainableNames } from "../../src/adapters/adapter.ts";
import { lora } from "../../src/adapters/lora.ts";
import { mergeAdapters } from "../../src/adapters/merge.ts";
import { gradients } from "../../src/graph/gradients.ts";
import { checkpointTensors } from "../../src/models/checkpoint.ts";
import { families } from "../../src/models/families.ts";
import { describeModel, loadModel } from "../../src/models/load.ts";
import { modelInputs, type TaskModel, taskLoss, taskOutput } from "../../src/models/task.ts";
import { addScaled, mapParams, type Params } from "../../src/tensor/params.ts";
import { stream } from "../../src/tensor/random.ts";
import { float32, sizeOf, type Tensor, tensor, zeros } from "../../src/tensor/tensor.ts";
import { generate, traceDecoder } from "../../src/train/generate.ts";
import { evaluate, farthest } from "../nn/evaluate.ts";
import { familyJsons, folderOf, tinyModel } from "./tiny.ts";

const int64 = (shape: readonly number[], values: readonly number[]): Tensor =>
  tensor("int64", shape, BigInt64Array.from(values, BigInt));

function normal(name: string, shape: readonly number[], deviation = 1): Tensor<"float32"> {
  const values = new Float32Array(sizeOf(shape));
  stream({ seed: 4, purpose: name }).fillNormal(values, 0, deviation);
  return float32(shape, values);
}

const text = [4, 17, 9, 22, 6, 13, 2, 25];

/** A text as one row, with `padding` places before it. */
function row(ids: readonly number[], padding = 0, pad = 0): Params {
  const total = padding + ids.length;
  const before = new Array<number>(padding).fill(pad);
  return new Map([
    ["input_ids", int64([1, total], [...before, ...ids])],
    ["attention_mask", int64([1, total], [...before.map(() => 0), ...ids.map(() => 1)])],
    ["position_ids", int64([1, total], [...before.map(() => 0), ...ids.map((_, t) => t)])],
  ]);
}

function inputsOf({ model, config }: TaskModel): ReturnType<typeof modelInputs> {
  return modelInputs(model, { image: config.image });
}

/** A batch of three for the task, labels included. */
function batchOf({ config, task }: TaskModel): Params {
  const labels = int64([3], [0, 2, 1]);
  const { image } = config;
  if (image) {
    const pixels = normal("pixels", [3, image.channels, image.height, image.width]);
    return new Map([
      ["pixel_values", pixels],
      ["labels", labels],
    ]);
  }
  const ids = [5, 9, 3, 8, 2, 7, 4, 6, 11, 12, 3, 10];
  return new Map([
    ["input_ids", int64([3, 4], ids)],
    ["attention_mask", int64([3, 4], [1, 1, 1, 1, 1, 1, 0, 0, 1, 1, 1, 0])],
    ["labels", labels],
    ...(task === "causal-lm" ? [["label_positions", int64([3], [0, 4, 9])] as const] : []),
  ]);
}

async function output(taskModel: TaskModel, weights: Params, batch: Params): Promise<number[]> {
  const optional = batch.has("position_ids") ? (["position_ids"] as const) : [];
  const inputs = modelInputs(taskModel.model, { optional, image: taskModel.config.image });
  const { output: value } = taskOutput(taskModel, adaptedScope(adapterBase(taskModel)), inputs);
  return (await evaluate({ value }, new Map([...weights, ...batch]))).value ?? [];
}

const jsons = Object.entries(familyJsons);
const causal = jsons.filter(([, json]) => /CausalLM|LMHead/.test(String(json.architectures)));

it("every family has a small model here", () => {
  expect(Object.keys(familyJsons).sort()).toEqual(families.map(({ type }) => type).sort());
});

describe.each(jsons)("%s", (_, json) => {
  const { taskModel, weights } = tinyModel(json);
  const base = adapterBase(taskModel);

  it("gives each of its parameters the slope of its loss", async () => {
    const w = adaptedScope(base);
    const { sum } = taskLoss(taskModel, w, inputsOf(taskModel));
    const names = [...base.parameters.keys()];
    const slopes = gradients(
      sum,
      names.map((name) => w.get(name)),
    );
    const shifted = new Map([...weights].map(([name, value]) => [name, normal(name, value.shape, 0.3)]));
    const wrt = Object.fromEntries(slopes.map((slope, i) => [`slope ${names[i]}`, slope]));
    const got = await evaluate({ sum, ...wrt }, new Map([...shifted, ...batchOf(taskModel)]));
    const direction = new Map(
      [...weights].map(([name, value]) => [name, normal(`along ${name}`, value.shape)]),
    );
    const along = names.reduce((total, name) => {
      const towards = direction.get(name)?.data ?? [];
      return total + (got[`slope ${name}`] ?? []).reduce((part, x, i) => part + x * (towards[i] ?? 0), 0);
    }, 0);
    const step = 2e-3;
    const [after = 0, before = 0] = await Promise.all(
      [step, -step].map(async (by) => {
        const moved = addScaled(shifted, by, direction);
        return (await evaluate({ sum }, new Map([...moved, ...batchOf(taskModel)]))).sum?.[0];
      }),
    );
    expect(Math.abs((after - before) / (2 * step) - along)).toBeLessThan(2e-2 * (1 + Math.abs(along)));
  });

  it("is read back from its checkpoint", async () => {
    const stored = checkpointTensors(taskModel, weights);
    const loaded = await loadModel(folderOf(json, stored));
    expect(loaded.weights).toEqual(weights);
    expect([loaded.initialized, loaded.ignored]).toEqual([[], []]);
    expect(loaded.task).toBe(taskModel.task);
  });

  it("gives with adapters on all linear layers what the merged weights give", async () => {
    const attached = lora({ rank: 2, alpha: 4, target: "all-linear" }).attach(base);
    expect(trainableNames([attached]).length).toBeGreaterThan(0);
    const start = startParams([attached], { seed: 1, base: weights });
    const params = mapParams(start, (value, name) => normal(name, value.shape, 0.3));
    const w = adaptedScope(base, [attached]);
    const { output: value } = taskOutput(taskModel, w, inputsOf(taskModel));
    const batch = batchOf(taskModel);
    const apart = await evaluate({ value }, new Map([...weights, ...params, ...batch]));
    const merged = await output(taskModel, mergeAdapters(weights, [attached], params), batch);
    expect(farthest(apart.value ?? [], merged)).toBeLessThan(1e-3);
    expect(farthest(merged, await output(taskModel, weights, batch))).toBeGreaterThan(1e-2);
  });

  it("refuses values that it does not support, all at once", () => {
    const { vision_config: vision } = json;
    const wrong = { hidden_act: "xielu", hidden_activation: "xielu", activation_function: "xielu" };
    const broken = {
      ...json,
      ...wrong,
      activation: "xielu",
      quantization_config: {},
      ...(vision ? { vision_config: { ...Object(vision), ...wrong } } : {}),
    };
    expect(() => describeModel(broken)).toThrow(/: got "xielu".*quantization_config: got \{\}/s);
  });
});

describe.each(causal)("%s", (_, json) => {
  const { taskModel, weights } = tinyModel(json);

  it("gives token by token what the whole text gives, longer than its window", async () => {
    const { graph, ...decoder } = traceDecoder(taskModel);
    const session = await runtime.openSession(graph);
    const got: { id: number; logProb(): number }[] = [];
    const options = { prompt: text.slice(0, 5), maxTokens: 6 };
    for await (const token of generate(decoder, session, weights, options)) got.push(token);
    await session.dispose();
    const whole = [...options.prompt, ...got.map(({ id }) => id)];
    const logits = await output(taskModel, weights, row(whole));
    const vocabulary = taskModel.config.vocabSize;
    const expected = got.map(({ id }, i) => {
      const t = options.prompt.length - 1 + i;
      const scores = logits.slice(t * vocabulary, (t + 1) * vocabulary);
      return (scores[id] ?? Number.NaN) - Math.log(scores.reduce((sum, score) => sum + Math.exp(score), 0));
    });
    expect(
      farthest(
        got.map((token) => token.logProb()),
        expected,
      ),
    ).toBeLessThan(1e-4);
  });

  it("gives a text padded on the left the logits of the text alone", async () => {
    const alone = await output(taskModel, weights, row(text));
    const padded = await output(taskModel, weights, row(text, 3));
    expect(farthest(padded.slice(-alone.length), alone)).toBeLessThan(1e-5);
  });

  it("reads a class from the last token", async () => {
    const classifier = describeModel(json, { task: "sequence-classification", numLabels: 3 });
    const loaded = await loadModel(folderOf(json, checkpointTensors(taskModel, weights)), {
      task: "sequence-classification",
      numLabels: 3,
    });
    expect(loaded.initialized).toEqual(["score.weight"]);
    const right = new Map([
      ["input_ids", int64([1, text.length + 2], [...text, 0, 0])],
      ["attention_mask", int64([1, text.length + 2], [...text.map(() => 1), 0, 0])],
    ]);
    const alone = await output(classifier, loaded.weights, row(text));
    expect(farthest(await output(classifier, loaded.weights, right), alone)).toBeLessThan(1e-5);
  });
});

describe("windows", () => {
  /** Whether the logits of the last token move with the token at a place. */
  const sees = async (json: Readonly<Record<string, unknown>>, place: number): Promise<boolean> => {
    const { taskModel, weights } = tinyModel(json);
    const { vocabSize } = taskModel.config;
    const last = async (ids: readonly number[]): Promise<number[]> =>
      (await output(taskModel, weights, row(ids))).slice(-vocabSize);
    const other = text.with(place, 30);
    return farthest(await last(text), await last(other)) > 1e-6;
  };

  it("of one layer hold so many tokens, the query's own among them", async () => {
    const json = { ...familyJsons.mistral, num_hidden_layers: 1, sliding_window: 3 };
    expect(await sees(json, text.length - 3)).toBe(true);
    expect(await sees(json, text.length - 4)).toBe(false);
    expect(await sees({ ...json, sliding_window: null }, 0)).toBe(true);
  });

  it("are those of the layers that the configuration names", () => {
    const windows = (json: Readonly<Record<string, unknown>>): unknown[] => {
      const { views = [] } = describeModel(json).config as { views?: readonly { window?: number }[] };
      return views.map(({ window }) => window);
    };
    const { gemma2, gemma3_text: gemma3, qwen2 } = familyJsons;
    expect(windows({ ...gemma2, num_hidden_layers: 4 })).toEqual([3, undefined, 3, undefined]);
    expect(windows({ ...gemma2, layer_types: ["full_attention", "sliding_attention"] })).toEqual([
      undefined,
      3,
    ]);
    expect(windows({ ...gemma3, num_hidden_layers: 7, sliding_window_pattern: undefined })).toEqual([
      3,
      3,
      3,
      3,
      3,
      undefined,
      3,
    ]);
    expect(windows({ ...qwen2 })).toEqual([undefined, 3]);
    expect(windows({ ...qwen2, use_sliding_window: false })).toEqual([undefined, undefined]);
    expect(() => describeModel({ ...gemma2, layer_types: ["chunked_attention"] })).toThrow(
      /layer_types: got \["chunked_attention"\], expected a list of "sliding_attention" or "full_attention"/,
    );
  });
});

describe("gpt2", () => {
  const json = familyJsons.gpt2 ?? {};

  it("is read without its prefix and with the mask buffers of the hub's files", async () => {
    const { taskModel, weights } = tinyModel(json);
    const bare = [...checkpointTensors(taskModel, weights)].map(
      ([name, value]) => [name.replace(/^transformer\./, ""), value] as const,
    );
    const stored = new Map([...bare, ["h.0.attn.bias", zeros("float32", [1, 1, 32, 32])] as const]);
    const loaded = await loadModel(folderOf(json, stored));
    expect([loaded.weights, loaded.ignored]).toEqual([weights, []]);
  });

  it("is stored with its matrices as [in, out]", () => {
    const { taskModel, weights } = tinyModel(json);
    const name = "transformer.h.0.mlp.c_fc.weight";
    const [here, there] = [weights.get(name), checkpointTensors(taskModel, weights).get(name)];
    expect([here?.shape, there?.shape]).toEqual([
      [80, 20],
      [20, 80],
    ]);
    expect(there?.data[3 * 80 + 7]).toBe(here?.data[7 * 20 + 3]);
    expect(checkpointTensors(taskModel, weights).get("transformer.wte.weight")).toBe(
      weights.get("transformer.wte.weight"),
    );
  });
});

describe("roberta", () => {
  it("counts positions over tokens, wherever the padding stands", async () => {
    const { taskModel, weights } = tinyModel(familyJsons.roberta ?? {});
    const without = (batch: Params): Params =>
      new Map([...batch].filter(([name]) => name !== "position_ids"));
    const states = async (batch: Params): Promise<number[]> => {
      const inputs = modelInputs(taskModel.model);
      const { states: value } = taskOutput(taskModel, adaptedScope(adapterBase(taskModel)), inputs);
      return (await evaluate({ value }, new Map([...weights, ...batch]))).value ?? [];
    };
    const alone = await states(without(row(text)));
    const padded = await states(without(row(text, 3, 1)));
    expect(farthest(padded.slice(-alone.length), alone)).toBeLessThan(1e-5);
    expect(taskModel.config.maxPositions).toBe(14);
  });
});

describe("images", () => {
  it("are needed with their size", () => {
    const { model, config } = describeModel(familyJsons.vit ?? {});
    expect(() => modelInputs(model)).toThrow(/vit: reads images; give modelInputs their size/);
    expect(config.image).toEqual({ channels: 2, height: 8, width: 11 });
  });

  it("are read by checkpoints in the names of Transformers 5 too", async () => {
    const json = familyJsons.vit ?? {};
    const { taskModel, weights } = tinyModel(json);
    const { loadedName } = taskModel.model;
    const stored = new Map([...weights].map(([name, value]) => [loadedName?.(name) ?? name, value]));
    expect(stored.has("vit.layers.1.mlp.fc2.bias")).toBe(true);
    expect(stored.has("vit.layers.0.layernorm_before.weight")).toBe(true);
    expect((await loadModel(folderOf(json, stored))).weights).toEqual(weights);
  });
});
