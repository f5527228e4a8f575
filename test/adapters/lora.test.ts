import { describe, expect, it } from "vitest";
import { adaptedScope, adapterBase, startParams, trainableNames } from "../../src/adapters/adapter.ts";
import { denseSubset } from "../../src/adapters/dense-subset.ts";
import { type LoraOptions, lora, loraModules, loraScaling } from "../../src/adapters/lora.ts";
import { mergeAdapters } from "../../src/adapters/merge.ts";
import { fittingParams, loraOptionsOf, peftConfigOf } from "../../src/adapters/peft.ts";
import { chooseModules, matches, patternValue } from "../../src/adapters/target.ts";
import { gradients } from "../../src/graph/gradients.ts";
import { modelInputs, taskLoss, taskOutput } from "../../src/models/task.ts";
import type { Params } from "../../src/tensor/params.ts";
import { stream } from "../../src/tensor/random.ts";
import { float32, type Tensor, tensor } from "../../src/tensor/tensor.ts";
import { bertJson, llamaJson, tinyModel } from "../models/tiny.ts";
import { evaluate, farthest } from "../nn/evaluate.ts";

const llama = tinyModel(llamaJson);
const bert = tinyModel(bertJson);
const llamaBase = adapterBase(llama.taskModel);
const bertBase = adapterBase(bert.taskModel);

const int64 = (shape: readonly number[], values: readonly number[]): Tensor =>
  tensor("int64", shape, BigInt64Array.from(values, BigInt));
const tokens = new Map([
  ["input_ids", int64([2, 4], [3, 9, 27, 1, 8, 8, 2, 0])],
  ["attention_mask", int64([2, 4], [1, 1, 1, 1, 1, 1, 1, 0])],
]);

/** Parameters that differ from any start, so that B counts. */
function disturbed(params: Params): Params {
  return new Map(
    [...params].map(([name, { shape, data }]) => {
      const values = new Float32Array(data.length);
      stream({ seed: 11, purpose: name }).fillNormal(values, 0, 0.3);
      return [name, float32(shape, values)] as const;
    }),
  );
}

describe("lora", () => {
  const options: LoraOptions = { rank: 3, alpha: 6, target: ["q_proj", "v_proj"] };

  it("starts with A uniform in ±1/sqrt(in) from streams of its own and B at 0", () => {
    const attached = lora({ rank: 64, alpha: 6, target: ["down_proj"] }).attach(llamaBase);
    const params = startParams([attached], { seed: 4, base: llama.weights });
    const a = params.get("model.layers.0.mlp.down_proj.lora_A.weight");
    expect(a?.shape).toEqual([64, 22]);
    const values = Array.from(a?.data ?? [], Number);
    const bound = 1 / Math.sqrt(22);
    expect(Math.max(...values.map(Math.abs))).toBeLessThanOrEqual(bound);
    expect(Math.max(...values)).toBeGreaterThan(0.99 * bound);
    // Variance of a uniform distribution: bound² / 3, here from 1,408 draws.
    expect(values.reduce((sum, x) => sum + x * x, 0) / values.length / (bound ** 2 / 3)).toBeCloseTo(1, 1);
    expect(params.get("model.layers.0.mlp.down_proj.lora_B.weight")?.data.every((x) => Number(x) === 0)).toBe(
      true,
    );
    expect(params.get("model.layers.1.mlp.down_proj.lora_A.weight")).not.toEqual(a);
    const alone = lora({ rank: 64, alpha: 6, target: ["layers.0.mlp.down_proj"] }).attach(llamaBase);
    expect(
      startParams([alone], { seed: 4, base: llama.weights }).get(
        "model.layers.0.mlp.down_proj.lora_A.weight",
      ),
    ).toEqual(a);
  });

  it("starts with a normal A of deviation 1/rank on demand", () => {
    const attached = lora({ rank: 50, alpha: 1, target: ["up_proj"], init: "gaussian" }).attach(llamaBase);
    const params = startParams([attached], { seed: 4, base: llama.weights });
    const values = Array.from(params.get("model.layers.0.mlp.up_proj.lora_A.weight")?.data ?? [], Number);
    expect(Math.sqrt(values.reduce((sum, x) => sum + x * x, 0) / values.length) * 50).toBeCloseTo(1, 1);
  });

  it("leaves the model as it is at the start", async () => {
    const attached = lora({ ...options, target: "all-linear" }).attach(llamaBase);
    const params = startParams([attached], { seed: 1, base: llama.weights });
    const run = (adapters: (typeof attached)[]) =>
      evaluate(
        {
          output: taskOutput(
            llama.taskModel,
            adaptedScope(llamaBase, adapters),
            modelInputs(llama.taskModel.model),
          ).output,
        },
        new Map([...llama.weights, ...params, ...tokens]),
      );
    expect(await run([attached])).toEqual(await run([]));
  });

  it("merged equals applied, dense heads included", async () => {
    for (const [tiny, base, modulesToSave] of [
      [llama, llamaBase, ["lm_head"]],
      [bert, bertBase, ["classifier"]],
    ] as const) {
      const attached = [lora({ ...options, target: "all-linear", rsLora: true, modulesToSave }).attach(base)];
      const params = disturbed(startParams(attached, { seed: 1, base: tiny.weights }));
      const merged = mergeAdapters(tiny.weights, attached, params);
      const inputs = modelInputs(tiny.taskModel.model);
      const applied = await evaluate(
        { output: taskOutput(tiny.taskModel, adaptedScope(base, attached), inputs).output },
        new Map([...tiny.weights, ...params, ...tokens]),
      );
      const plain = await evaluate(
        { output: taskOutput(tiny.taskModel, adaptedScope(base), inputs).output },
        new Map([...merged, ...tokens]),
      );
      const scale = Math.max(...(plain.output ?? []).map(Math.abs));
      expect(farthest(applied.output ?? [], plain.output ?? []) / scale).toBeLessThan(1e-5);
      expect([...merged.keys()]).toEqual([...tiny.weights.keys()]);
      expect(merged.get("model.norm.weight")).toBe(tiny.weights.get("model.norm.weight"));
    }
  });

  it("sends gradients to its factors and to saved modules only", async () => {
    const attached = [
      lora({ ...options, target: ["query"], modulesToSave: ["classifier", "score"] }).attach(bertBase),
    ];
    const names = trainableNames(attached);
    expect(names).toEqual([
      "bert.encoder.layer.0.attention.self.query.lora_A.weight",
      "bert.encoder.layer.0.attention.self.query.lora_B.weight",
      "bert.encoder.layer.1.attention.self.query.lora_A.weight",
      "bert.encoder.layer.1.attention.self.query.lora_B.weight",
      "classifier.weight",
      "classifier.bias",
    ]);
    const params = disturbed(startParams(attached, { seed: 1, base: bert.weights }));
    const w = adaptedScope(bertBase, attached);
    const { sum } = taskLoss(bert.taskModel, w, modelInputs(bert.taskModel.model));
    const found = gradients(
      sum,
      names.map((name) => w.get(name)),
    );
    const outputs = Object.fromEntries(names.map((name, i) => [`grad.${name}`, found[i] ?? sum]));
    const feeds = new Map([...bert.weights, ...params, ...tokens, ["labels", int64([2], [2, 0])] as const]);
    const got = await evaluate({ ...outputs, sum }, feeds);
    // Central difference along each gradient: the slope is its squared norm.
    for (const name of names) {
      const gradient = got[`grad.${name}`] ?? [];
      const squared = gradient.reduce((total, x) => total + x * x, 0);
      const step = 1e-2 / Math.sqrt(squared);
      const at = async (sign: number): Promise<number> => {
        const moved = params.get(name);
        const values = gradient.map((x, i) => Number(moved?.data[i]) + sign * step * x);
        const changed = new Map([...feeds, [name, float32(moved?.shape ?? [], values)] as const]);
        return (await evaluate({ sum }, changed)).sum?.[0] ?? Number.NaN;
      };
      expect(((await at(1)) - (await at(-1))) / (2 * step) / squared).toBeCloseTo(1, 1);
    }
  });

  it("reads ranks and alphas of single modules from patterns", () => {
    const modules = loraModules(llamaBase, {
      ...options,
      rankPattern: { "layers.1.self_attn.q_proj": 2, "q_.*": 5 },
      alphaPattern: { v_proj: 12 },
    });
    expect(
      modules.map(({ module, rank, scaling }) => [module.slice("model.layers.".length), rank, scaling]),
    ).toEqual([
      ["0.self_attn.q_proj", 5, 6 / 5],
      ["0.self_attn.v_proj", 3, 4],
      ["1.self_attn.q_proj", 2, 3],
      ["1.self_attn.v_proj", 3, 4],
    ]);
    expect(loraScaling(4, 8, true)).toBe(4);
  });

  it("leaves excluded modules alone", () => {
    const modules = loraModules(llamaBase, {
      ...options,
      target: "all-linear",
      exclude: ["o_proj", "down_proj"],
    });
    expect(new Set(modules.map(({ module }) => module.split(".").at(-1)))).toEqual(
      new Set(["q_proj", "k_proj", "v_proj", "gate_proj", "up_proj"]),
    );
  });

  it("refuses a target that is no linear layer, matches nothing, or has rank 0", () => {
    expect(() => lora({ ...options, target: ["embed_tokens"] }).attach(llamaBase)).toThrow(
      /embed_tokens.*not a linear layer/,
    );
    expect(() => lora({ ...options, target: ["query"] }).attach(llamaBase)).toThrow(
      /matches no module; modules end in .*q_proj/,
    );
    expect(() => lora({ ...options, target: "q_proj" }).attach(llamaBase)).toThrow(/matches no module/);
    expect(() => lora({ ...options, target: "(" }).attach(llamaBase)).toThrow(/not a regular expression/);
    expect(() => lora({ ...options, rank: 0 }).attach(llamaBase)).toThrow(/got rank 0/);
    expect(() => lora({ ...options, modulesToSave: ["score"] }).attach(llamaBase)).toThrow(/modulesToSave/);
  });

  it("trains a copy of a tied output layer, and refuses to merge factors into one", async () => {
    const tied = tinyModel({ ...llamaJson, tie_word_embeddings: true });
    const base = adapterBase(tied.taskModel);
    const saved = lora({ ...options, modulesToSave: ["lm_head"] }).attach(base);
    const params = startParams([saved], { seed: 1, base: tied.weights });
    expect(params.get("lm_head.weight")).toBe(tied.weights.get("model.embed_tokens.weight"));
    const factors = lora({ ...options, target: ["lm_head"] }).attach(base);
    const start = startParams([factors], { seed: 1, base: tied.weights });
    expect(start.get("lm_head.lora_A.weight")?.shape).toEqual([3, 20]);
    expect(() => mergeAdapters(tied.weights, [factors], start)).toThrow(/tied/);
  });
});

describe("target", () => {
  const candidates = new Map([
    ["a.q_proj", { linear: true, head: false }],
    ["a.norm", { linear: false, head: false }],
    ["b.my_q_proj", { linear: true, head: false }],
    ["lm_head", { linear: true, head: true }],
  ]);

  it("is a list of suffixes at dots, a whole-name expression, or every linear layer but the output", () => {
    expect(chooseModules(candidates, ["q_proj"])).toEqual(["a.q_proj"]);
    expect(chooseModules(candidates, ".*q_proj")).toEqual(["a.q_proj", "b.my_q_proj"]);
    expect(chooseModules(candidates, "all-linear")).toEqual(["a.q_proj", "b.my_q_proj"]);
    expect(matches("lm_head", ["lm_head"])).toBe(true);
  });

  it("takes the first pattern that matches a module or the end of its path", () => {
    expect(patternValue({ "x.q": 1, q: 2 }, "a.x.q", 9)).toBe(1);
    expect(patternValue({ q: 2 }, "a.x.q", 9)).toBe(2);
    expect(patternValue({ q: 2 }, "a.x.my_q", 9)).toBe(9);
  });
});

describe("dense subset", () => {
  it("trains chosen base tensors under their own names, from their base values", () => {
    const pick = (target: string | readonly string[]): string[] =>
      trainableNames([denseSubset({ target }).attach(bertBase)]);
    expect(pick("all")).toEqual([...bert.weights.keys()]);
    expect(pick(["classifier", "LayerNorm.bias"])).toHaveLength(7);
    expect(pick("bert\\.pooler\\..*")).toEqual(["bert.pooler.dense.weight", "bert.pooler.dense.bias"]);
    const attached = denseSubset({ target: ["pooler.dense"] }).attach(bertBase);
    const params = startParams([attached], { seed: 0, base: bert.weights });
    for (const [name, value] of params) expect(value).toBe(bert.weights.get(name));
    const moved = disturbed(params);
    expect(mergeAdapters(bert.weights, [attached], moved)).toEqual(new Map([...bert.weights, ...moved]));
    expect(() => pick(["nothing"])).toThrow(/matches none of 41/);
  });
});

describe("PEFT folders", () => {
  it("keep the options of an adapter; all-linear is written out as paths", () => {
    const options: LoraOptions = {
      rank: 4,
      alpha: 8,
      target: "all-linear",
      rsLora: true,
      rankPattern: { q_proj: 2 },
      alphaPattern: {},
      modulesToSave: ["lm_head"],
    };
    const back = loraOptionsOf(peftConfigOf(llamaBase, options, { taskType: "CAUSAL_LM" }));
    expect(back.target).toHaveLength(14);
    expect(loraModules(llamaBase, back)).toEqual(loraModules(llamaBase, options));
    expect({ ...back, target: "all-linear" }).toEqual(options);
  });

  it("must hold exactly the adapter's tensors", () => {
    const attached = lora({ rank: 2, alpha: 2, target: ["layers.0.self_attn.q_proj"] }).attach(llamaBase);
    const params = startParams([attached], { seed: 0, base: llama.weights });
    expect(fittingParams(attached, params)).toEqual(params);
    const [first] = params.keys();
    const broken = new Map([...params].filter(([name]) => name !== first));
    broken.set("model.layers.7.x.lora_A.weight", float32([1], [0]));
    expect(() => fittingParams(attached, broken)).toThrow(
      /q_proj\.lora_A\.weight: missing.*layers\.7.*not a parameter/s,
    );
  });
});
