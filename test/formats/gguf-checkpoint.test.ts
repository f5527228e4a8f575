import { describe, expect, it } from "vitest";
import { bytesSource } from "../../src/formats/byte-source.ts";
import { ggufCheckpoint } from "../../src/formats/gguf/checkpoint.ts";
import { type GgufFloat, ggufAdapter, ggufModel } from "../../src/formats/gguf/export.ts";
import { openGguf } from "../../src/formats/gguf/gguf.ts";
import type { GgufValue } from "../../src/formats/gguf/metadata.ts";
import { ropeFactors, scalingOfFactors } from "../../src/formats/gguf/rope-factors.ts";
import { type GgufFile, ggufPieces } from "../../src/formats/gguf/write.ts";
import { parseJsonObject } from "../../src/formats/json.ts";
import { checkpointTensors } from "../../src/models/checkpoint.ts";
import { loadModel } from "../../src/models/load.ts";
import { ropeFrequencies } from "../../src/nn/rope.ts";
import { decodeBlocks } from "../../src/tensor/quant/blocks.ts";
import { float32 } from "../../src/tensor/tensor.ts";
import { bertJson, familyJsons, llamaJson, tinyModel } from "../models/tiny.ts";
import { farthest } from "../nn/evaluate.ts";

type Json = Readonly<Record<string, unknown>>;

const asJson = (json: Json) => parseJsonObject(new TextEncoder().encode(JSON.stringify(json)), "config.json");

function fileOf(json: Json, type: GgufFloat = "F32"): GgufFile {
  const { taskModel, weights } = tinyModel(json);
  return ggufModel({
    json: asJson(json),
    weights: checkpointTensors(taskModel, weights),
    tokenizer: new Map(),
    type,
    name: "tiny",
  });
}

async function bytesOf(file: GgufFile): Promise<Uint8Array> {
  const pieces: Uint8Array[] = [];
  for await (const piece of ggufPieces(file)) pieces.push(piece);
  return new Uint8Array(Buffer.concat(pieces));
}

async function opened(file: GgufFile) {
  return openGguf(bytesSource(await bytesOf(file)), "tiny.gguf");
}

/** A file with some of its metadata in another way; undefined takes a key out. */
function withValues(file: GgufFile, values: Readonly<Record<string, GgufValue | undefined>>): GgufFile {
  const metadata = new Map(file.metadata);
  for (const [key, value] of Object.entries(values)) {
    if (value === undefined) metadata.delete(key);
    else metadata.set(key, value);
  }
  return { ...file, metadata };
}

const gemma3: Json = { ...familyJsons.gemma3_text, query_pre_attn_scalar: 6 };

const uint = (value: number): GgufValue => ({ type: "uint32", value });

/** What each family can say in GGUF. */
const jsons: Readonly<Record<string, Json>> = {
  llama: { ...llamaJson, attention_bias: true },
  "llama, tied, scaled": {
    ...llamaJson,
    tie_word_embeddings: true,
    head_dim: 16,
    rope_scaling: {
      rope_type: "llama3",
      factor: 4,
      low_freq_factor: 1,
      high_freq_factor: 4,
      original_max_position_embeddings: 20,
    },
  },
  "llama, linear": { ...llamaJson, rope_scaling: { type: "linear", factor: 2.5 } },
  qwen2: { ...familyJsons.qwen2, hidden_size: 24, use_sliding_window: false },
  gemma: { ...familyJsons.gemma },
  gemma2: { ...familyJsons.gemma2, query_pre_attn_scalar: 6 },
  gemma3: { ...familyJsons.gemma3_text, query_pre_attn_scalar: 6 },
  "gemma3, all layers see everything": {
    ...familyJsons.gemma3_text,
    query_pre_attn_scalar: 6,
    layer_types: Array(3).fill("full_attention"),
    sliding_window: null,
    final_logit_softcapping: 7.5,
  },
  "gemma3 as of Transformers 5": {
    ...familyJsons.gemma3_text,
    query_pre_attn_scalar: 6,
    num_hidden_layers: 7,
    layer_types: Array.from({ length: 7 }, (_, i) => (i === 5 ? "full_attention" : "sliding_attention")),
    rope_parameters: {
      full_attention: { rope_type: "linear", rope_theta: 50_000, factor: 8 },
      sliding_attention: { rope_type: "default", rope_theta: 10_000 },
    },
  },
  phi3: { ...familyJsons.phi3, hidden_size: 32 },
  "phi3, longrope": {
    ...familyJsons.phi3,
    hidden_size: 32,
    max_position_embeddings: 96,
    original_max_position_embeddings: 24,
    rope_scaling: { type: "longrope", short_factor: [1.05, 1.5], long_factor: [1.25, 24.75] },
  },
  "phi3, longrope with a factor": {
    ...familyJsons.phi3,
    hidden_size: 32,
    max_position_embeddings: 96,
    original_max_position_embeddings: 24,
    rope_scaling: { type: "su", short_factor: [1, 2], long_factor: [4, 9], attention_factor: 1.5 },
  },
  gpt2: { ...familyJsons.gpt2 },
  bert: { ...bertJson, architectures: ["BertModel"] },
};

describe("a model from GGUF", () => {
  it.each(Object.entries(jsons))(
    "%s: has the weights and the configuration that were written",
    async (_, json) => {
      const { taskModel, weights } = tinyModel(json);
      const file = await bytesOf(fileOf(json));
      const loaded = await loadModel(new Map([["tiny.gguf", bytesSource(file)]]));
      expect(loaded.task).toBe(taskModel.task);
      expect(loaded.initialized).toEqual([]);
      expect(loaded.ignored).toEqual([]);
      expect([...loaded.weights.keys()].sort()).toEqual([...weights.keys()].sort());
      for (const [name, { shape, data }] of weights) {
        const got = loaded.weights.get(name);
        expect(got?.shape).toEqual(shape);
        // Norms that are stored with a 1 round once more.
        const slack = String(json.model_type).startsWith("gemma") ? 1e-7 : 0;
        expect(got?.data.length).toBe(data.length);
        const far = farthest(
          Array.from(got?.data ?? [], Number),
          Array.from<number | bigint, number>(data, Number),
        );
        expect(far).toBeLessThanOrEqual(slack);
      }
      const { initializerRange: _range, numLabels: _labels, ...expected } = taskModel.config;
      expect(loaded.config).toMatchObject(expected);
    },
  );

  it("q and k rows of Llama stand pair by pair in the file", async () => {
    const json = {
      ...llamaJson,
      num_attention_heads: 2,
      num_key_value_heads: 1,
      head_dim: 4,
      hidden_size: 8,
    };
    const { weights } = tinyModel(json);
    const name = "model.layers.0.self_attn.q_proj.weight";
    const gguf = await opened(fileOf(json));
    const row = (data: ArrayLike<number | bigint>, i: number) =>
      Array.from(data, Number).slice(8 * i, 8 * i + 8);
    const stored = (await gguf.tensor("blk.0.attn_q.weight")).data;
    const original = weights.get(name)?.data ?? [];
    const order = [0, 2, 1, 3, 4, 6, 5, 7]; // halves (0 1 | 2 3) of each head of 4, interleaved
    for (const [to, from] of order.entries()) expect(row(stored, to)).toEqual(row(original, from));
  });

  it("gives blocks undecoded, their rows in the order of the checkpoint", async () => {
    const json = {
      ...llamaJson,
      hidden_size: 64,
      num_attention_heads: 4,
      head_dim: 16,
      intermediate_size: 32,
    };
    const gguf = await opened(fileOf(json, "Q8_0"));
    const checkpoint = await ggufCheckpoint(gguf);
    for (const name of checkpoint.names) {
      const stored = await checkpoint.blocks(name);
      const { shape, data } = await checkpoint.tensor(name);
      expect(stored?.shape).toEqual(shape);
      expect(stored?.type).toBe(shape.length === 1 ? "F32" : "Q8_0");
      if (stored) expect(decodeBlocks(stored.type, stored.bytes)).toEqual(data);
    }
    const gpt2 = await ggufCheckpoint(await opened(fileOf(jsons.gpt2 ?? {})));
    expect(await gpt2.blocks("h.0.attn.c_attn.weight")).toBeUndefined();
    expect((await gpt2.blocks("wte.weight"))?.type).toBe("F32");
  });

  it("takes config.json beside the file before its own, and refuses two files", async () => {
    const source = bytesSource(await bytesOf(fileOf(llamaJson)));
    const config = bytesSource(
      new TextEncoder().encode(JSON.stringify({ ...llamaJson, rms_norm_eps: 0.25 })),
    );
    const loaded = await loadModel(
      new Map([
        ["config.json", config],
        ["a.gguf", source],
      ]),
    );
    expect(loaded.config).toMatchObject({ rmsNormEps: 0.25 });
    await expect(
      loadModel(
        new Map([
          ["a.gguf", source],
          ["b.gguf", source],
        ]),
      ),
    ).rejects.toThrow(/the folder holds a\.gguf and b\.gguf; give the path of one/);
  });

  it.each([
    [
      "another architecture",
      { "general.architecture": { type: "string", value: "mamba" } },
      /"mamba"; supported are llama, qwen2/,
    ],
    ["no architecture", { "general.architecture": undefined }, /general\.architecture is absent/],
    [
      "an adapter",
      { "general.type": { type: "string", value: "adapter" } },
      /general\.type is "adapter", expected a model/,
    ],
    ["no width", { "llama.embedding_length": undefined }, /has no "llama\.embedding_length"/],
    [
      "heads by layer",
      { "llama.attention.head_count": { type: "array", of: "int32", values: Int32Array.of(4, 4) } },
      /an array of 2 int32, expected a number/,
    ],
    ["experts", { "llama.expert_count": uint(8) }, /mixture of experts/],
    ["keys wider than values", { "llama.attention.value_length": uint(4) }, /values of 4 and keys of 6/],
    [
      "an unknown scaling",
      { "llama.rope.scaling.type": { type: "string", value: "yarn" } },
      /rotary scaling "yarn", supported are/,
    ],
    ["more layers than tensors", { "llama.block_count": uint(4_000_000_000) }, /claims 4000000000 layers/],
  ] as const)("refuses %s by name", async (_, values, message) => {
    const gguf = await opened(withValues(fileOf(llamaJson), values));
    await expect(ggufCheckpoint(gguf)).rejects.toThrow(message);
  });

  it("refuses divisors of long texts where only Phi-3 has them, and half of them there", async () => {
    const withTable = (file: GgufFile, name: string): GgufFile => ({
      ...file,
      tensors: [
        ...file.tensors,
        { name, type: "F32", shape: [2], encode: () => new Uint8Array(new Float32Array([1, 2]).buffer) },
      ],
    });
    const llama = await opened(withTable(fileOf(llamaJson), "rope_factors_long.weight"));
    await expect(ggufCheckpoint(llama)).rejects.toThrow(/rotary scaling "longrope", supported are/);
    const phi3 = await opened(withTable(fileOf(jsons.phi3 ?? {}), "rope_factors_long.weight"));
    await expect(ggufCheckpoint(phi3)).rejects.toThrow(
      /has rope_factors_long alone, expected those of short/,
    );
  });

  it("refuses heads that do not fit the rows", async () => {
    const gguf = await opened(withValues(fileOf(llamaJson), { "llama.attention.head_count": uint(5) }));
    const checkpoint = await ggufCheckpoint(gguf);
    await expect(checkpoint.tensor("model.layers.0.self_attn.q_proj.weight")).rejects.toThrow(
      /24 rows, which are no 5 heads of an even size/,
    );
  });
});

describe("rope_freqs", () => {
  const heads = { headDim: 64, theta: 500_000 };
  it.each([
    { factor: 8, lowFreqFactor: 1, highFreqFactor: 4, originalMaxPositionEmbeddings: 8192 },
    { factor: 32, lowFreqFactor: 1, highFreqFactor: 4, originalMaxPositionEmbeddings: 8192 },
    { factor: 3, lowFreqFactor: 1, highFreqFactor: 5.5, originalMaxPositionEmbeddings: 1234 },
  ])("the scaling is found again from its factors: %o", (scaling) => {
    const factors = ropeFactors(scaling, heads);
    expect(scalingOfFactors(factors, heads)).toEqual(scaling);
    const plain = ropeFrequencies({ ...heads, maxPositions: 1 });
    const scaled = ropeFrequencies({ ...heads, maxPositions: 1, scaling: { type: "llama3", ...scaling } });
    factors.forEach((factor, i) => {
      expect((plain[i] ?? 0) / (scaled[i] ?? 1)).toBeCloseTo(factor, 4);
    });
  });

  it("factors of another rule are not taken for it", () => {
    const factors = Float32Array.from({ length: 32 }, (_, i) => 1 + i / 8);
    expect(scalingOfFactors(factors, heads)).toBeUndefined();
  });
});

describe("writing a model", () => {
  it.each([
    [
      "a family without a place",
      { ...familyJsons.roberta },
      /got model_type "roberta"; models that can be written are llama, mistral/,
    ],
    ["a window", { ...familyJsons.mistral }, /sliding_window is below max_position_embeddings/],
    ["another activation", { ...llamaJson, hidden_act: "gelu" }, /hidden_act is "gelu", GGUF holds "silu"/],
    [
      "another query scale",
      { ...familyJsons.gemma2 },
      /no place for query_pre_attn_scalar 9; llama\.cpp takes 6/,
    ],
    [
      "another query scale of Gemma 3",
      { ...familyJsons.gemma3_text },
      /no place for query_pre_attn_scalar 9; llama\.cpp takes 6/,
    ],
    [
      "windows without a period",
      {
        ...gemma3,
        layer_types: ["full_attention", "sliding_attention", "sliding_attention"],
      },
      /GGUF holds windows of all layers but every so many; layer_types are others/,
    ],
    ["no window where there should be one", { ...gemma3, sliding_window: null }, /sliding_window is null/],
    [
      "Llama's scaling of Gemma 3",
      {
        ...gemma3,
        rope_scaling: {
          rope_type: "llama3",
          factor: 8,
          low_freq_factor: 1,
          high_freq_factor: 4,
          original_max_position_embeddings: 16,
        },
      },
      /no rotary scaling "llama3" of Gemma 3/,
    ],
    [
      "LongRoPE without its long factors",
      {
        ...familyJsons.phi3,
        hidden_size: 32,
        rope_scaling: { rope_type: "longrope", short_factor: [1, 1] },
        original_max_position_embeddings: 24,
      },
      /0 numbers in long_factor, expected 2/,
    ],
    ["narrow heads of Qwen2", { ...familyJsons.qwen2, use_sliding_window: false }, /takes heads of 5 here/],
    [
      "a head for classes",
      { ...llamaJson, architectures: ["LlamaForSequenceClassification"] },
      /no place in GGUF for score\.weight/,
    ],
  ] as const)("refuses %s by name", (_, json, message) => {
    expect(() => fileOf(json)).toThrow(message);
  });

  it("matrices take the asked type where their rows are whole blocks, vectors stay float32", () => {
    const { tensors, metadata } = fileOf({ ...llamaJson, hidden_size: 64 }, "Q8_0");
    const types = new Map(tensors.map(({ name, type }) => [name, type]));
    expect(types.get("blk.0.attn_q.weight")).toBe("Q8_0"); // rows of 64
    expect(types.get("blk.0.ffn_down.weight")).toBe("F16"); // rows of 22
    expect(types.get("output_norm.weight")).toBe("F32");
    expect(metadata.get("general.file_type")).toEqual(uint(7));
    const bert = fileOf(jsons.bert ?? {}, "F16").tensors;
    expect(bert.find(({ name }) => name === "position_embd.weight")?.type).toBe("F32");
  });

  it("an adapter scales each pair by alpha over its own rank, whatever rule it was trained with", async () => {
    const pair = (module: string, rank: number, scaling: number) => ({
      module,
      a: float32([rank, 20], new Float32Array(rank * 20).fill(1)),
      b: float32([20, rank], new Float32Array(20 * rank).fill(1)),
      scaling,
    });
    const file = ggufAdapter({
      json: asJson(llamaJson),
      modules: [pair("model.layers.0.self_attn.o_proj", 2, 3), pair("model.layers.1.self_attn.o_proj", 5, 4)],
      type: "F32",
      name: "tiny",
    });
    const gguf = await opened(file);
    const alpha = 6; // the scaling of the first pair times its rank
    for (const [layer, rank, scaling] of [
      [0, 2, 3],
      [1, 5, 4],
    ] as const) {
      const b = await gguf.tensor(`blk.${layer}.attn_output.weight.lora_b`);
      expect(b.shape).toEqual([20, rank]);
      expect((alpha / rank) * (b.data[0] ?? 0)).toBeCloseTo(scaling, 6);
    }
    expect(file.metadata.get("adapter.lora.alpha")).toEqual({ type: "float32", value: alpha });
    expect(() => ggufAdapter({ json: asJson(llamaJson), modules: [], type: "F32", name: "x" })).toThrow(
      /no low-rank module/,
    );
  });
});
