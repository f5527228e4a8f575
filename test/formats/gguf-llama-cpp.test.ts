import { execFileSync, spawnSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import process from "node:process";
import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { runtime } from "#ort";
import { type AttachedAdapter, adaptedScope, adapterBase } from "../../src/adapters/adapter.ts";
import { lora, loraModules, loraNames } from "../../src/adapters/lora.ts";
import { writeFileAtomic } from "../../src/formats/files.node.ts";
import { ggufAdapter, ggufModel } from "../../src/formats/gguf/export.ts";
import type { GgufMetadata } from "../../src/formats/gguf/metadata.ts";
import { ggufPieces } from "../../src/formats/gguf/write.ts";
import { parseJsonObject } from "../../src/formats/json.ts";
import { checkpointTensors } from "../../src/models/checkpoint.ts";
import { modelInputs, type TaskModel, taskOutput } from "../../src/models/task.ts";
import type { Params } from "../../src/tensor/params.ts";
import { stream } from "../../src/tensor/random.ts";
import { float32, sizeOf, tensor } from "../../src/tensor/tensor.ts";
import { generate, traceDecoder } from "../../src/train/generate.ts";
import { encode } from "../../src/train/step.ts";
import { familyJsons, tinyModel } from "../models/tiny.ts";
import { farthest } from "../nn/evaluate.ts";

const python = process.env.TRIBUTARY_PYTHON ?? "python3";
const modules = ["gguf", "xllamacpp"];
const probe = `import importlib.util, sys; sys.exit(not all(importlib.util.find_spec(m) for m in ${JSON.stringify(modules)}))`;
const able = spawnSync(python, ["-c", probe]).status === 0;
const reason = able
  ? ""
  : ` (skipped: ${python} has not ${modules.join(", ")}; TRIBUTARY_PYTHON names another)`;

type Json = Readonly<Record<string, unknown>>;

/** The small models, with values that llama.cpp has no place for replaced, and of 32 wide rows so that they quantize. */
const jsons: Readonly<Record<string, Json>> = {
  llama: { ...familyJsons.llama, attention_bias: true },
  "llama3 scaling": {
    ...familyJsons.llama,
    head_dim: 16,
    tie_word_embeddings: true,
    rope_scaling: {
      rope_type: "llama3",
      factor: 8,
      low_freq_factor: 1,
      high_freq_factor: 4,
      original_max_position_embeddings: 16,
    },
  },
  "linear scaling": { ...familyJsons.llama, rope_scaling: { rope_type: "linear", factor: 3 } },
  mistral: { ...familyJsons.mistral, sliding_window: null },
  qwen2: { ...familyJsons.qwen2, hidden_size: 24, use_sliding_window: false },
  gemma: { ...familyJsons.gemma },
  gemma2: { ...familyJsons.gemma2, query_pre_attn_scalar: 6 },
  // Seven layers, so that the usual period of six has a layer that sees everything.
  gemma3: {
    ...familyJsons.gemma3_text,
    query_pre_attn_scalar: 6,
    num_hidden_layers: 7,
    sliding_window_pattern: 6,
    rope_local_base_freq: 10_000,
    rope_theta: 300,
    rope_scaling: { rope_type: "linear", factor: 4 },
  },
  "gemma3 with a period and a base of its own": { ...familyJsons.gemma3_text, query_pre_attn_scalar: 6 },
  phi3: { ...familyJsons.phi3, hidden_size: 32, sliding_window: null },
  // llama.cpp makes room for 256 positions at least; beyond the original context it turns by the long factors.
  "phi3 longrope": {
    ...familyJsons.phi3,
    hidden_size: 32,
    sliding_window: null,
    max_position_embeddings: 1024,
    original_max_position_embeddings: 256,
    rope_scaling: { type: "longrope", short_factor: [1.25, 2.5], long_factor: [4, 16] },
  },
  gpt2: { ...familyJsons.gpt2 },
  bert: { ...familyJsons.bert, architectures: ["BertModel"] },
};

const prompt = [3, 17, 8, 25, 11, 4];
const COUNT = 20;
/** llama.cpp takes BERT's gelu from a float16 table of its tanh form; embeddings have length 1. */
const EMBEDDING_TOLERANCE = 1e-3;

/** A tokenizer whose tokens spell their ids, so that text tells which tokens were made; `end` stops a text. */
function spelledIds(vocabSize: number, end: number): GgufMetadata {
  const tokens = Array.from({ length: vocabSize }, (_, id) => `t${id};`);
  return new Map([
    ["tokenizer.ggml.model", { type: "string", value: "gpt2" }],
    ["tokenizer.ggml.pre", { type: "string", value: "gpt-2" }],
    ["tokenizer.ggml.tokens", { type: "array", of: "string", values: tokens }],
    ["tokenizer.ggml.token_type", { type: "array", of: "int32", values: new Int32Array(vocabSize).fill(1) }],
    ["tokenizer.ggml.merges", { type: "array", of: "string", values: ["t 1"] }],
    ["tokenizer.ggml.bos_token_id", { type: "uint32", value: 0 }],
    ["tokenizer.ggml.eos_token_id", { type: "uint32", value: end }],
    ["tokenizer.ggml.add_bos_token", { type: "bool", value: false }],
  ]);
}

const asJson = (json: Json) => parseJsonObject(new TextEncoder().encode(JSON.stringify(json)), "config.json");

async function greedy(
  taskModel: TaskModel,
  weights: Params,
  attached: readonly AttachedAdapter[] = [],
): Promise<number[]> {
  const { graph, ...decoder } = traceDecoder(taskModel, attached);
  const session = await runtime.openSession(graph);
  const ids: number[] = [];
  const options = { prompt, maxTokens: COUNT };
  for await (const { id } of generate(decoder, session, weights, options)) ids.push(id);
  await session.dispose();
  return ids;
}

async function embedding(taskModel: TaskModel, weights: Params): Promise<number[]> {
  const { output } = taskOutput(
    taskModel,
    adaptedScope(adapterBase(taskModel)),
    modelInputs(taskModel.model),
  );
  const session = await runtime.openSession(encode(new Map([["output", output]])));
  const row = (values: readonly number[]) =>
    tensor("int64", [1, values.length], BigInt64Array.from(values, BigInt));
  const feeds = new Map([
    ["input_ids", row(prompt)],
    ["attention_mask", row(prompt.map(() => 1))],
  ]);
  const outputs = await session.run(new Map([...weights, ...feeds]));
  await session.dispose();
  return Array.from(outputs.get("output")?.data ?? [], Number);
}

/** An adapter large enough to change what is written, with ranks that differ. */
function randomAdapter(taskModel: TaskModel, purpose: string) {
  const base = adapterBase(taskModel);
  const options = { rank: 3, alpha: 12, target: "all-linear", rankPattern: { o_proj: 5 } } as const;
  const attached = lora(options).attach(base);
  const random = stream({ seed: 9, purpose });
  const params = new Map(
    [...attached.parameters].map(([name, { shape }]) => {
      const values = new Float32Array(sizeOf(shape));
      random.fillNormal(values, 0, 0.3);
      return [name, float32(shape, values)] as const;
    }),
  );
  const pairs = loraModules(base, options).flatMap(({ module, scaling }) => {
    const { loraA, loraB } = loraNames(module);
    const [a, b] = [params.get(loraA), params.get(loraB)];
    return a && b ? [{ module, a, b, scaling }] : [];
  });
  return { attached, params, pairs };
}

interface Case {
  readonly title: string;
  readonly model: string;
  readonly adapter?: string;
  readonly embedding: boolean;
  readonly prompt: readonly number[];
  readonly count: number;
}

interface Answer {
  readonly text?: string;
  readonly embedding?: readonly number[];
  readonly tensors: Readonly<Record<string, readonly number[]>>;
}

const cases: Case[] = Object.keys(jsons).flatMap((family, i) => {
  const plain = { title: family, model: `${i}.gguf`, embedding: family === "bert", prompt, count: COUNT };
  return family === "bert"
    ? [plain]
    : [plain, { ...plain, title: `${family} with an adapter`, adapter: `${i}-adapter.gguf` }];
});

describe.skipIf(!able)(`GGUF files in llama.cpp${reason}`, () => {
  const folder = mkdtempSync(join(tmpdir(), "tributary-gguf-"));
  afterAll(() => rmSync(folder, { recursive: true, force: true }));
  const ours: (readonly number[])[] = [];
  let theirs: readonly Answer[] = [];

  beforeAll(async () => {
    for (const [i, [family, raw]] of Object.entries(jsons).entries()) {
      const json = asJson(raw);
      const { taskModel, weights } = tinyModel(raw);
      const texts = family === "bert" ? [] : [await greedy(taskModel, weights)];
      if (family === "bert") ours.push(await embedding(taskModel, weights));
      else {
        const { attached, params, pairs } = randomAdapter(taskModel, family);
        const file = ggufAdapter({ json, modules: pairs, type: "F32", name: "tiny" });
        await writeFileAtomic(join(folder, `${i}-adapter.gguf`), ggufPieces(file));
        texts.push(await greedy(taskModel, new Map([...weights, ...params]), [attached]));
        ours.push(...texts);
      }
      const ids = Array.from({ length: taskModel.config.vocabSize }, (_, id) => id);
      const end = ids.find((id) => !texts.flat().includes(id)) ?? 0; // no text stops early
      const file = ggufModel({
        json,
        weights: checkpointTensors(taskModel, weights),
        tokenizer: spelledIds(ids.length, end),
        type: "F32",
        name: "tiny",
      });
      await writeFileAtomic(join(folder, `${i}.gguf`), ggufPieces(file));
    }
    writeFileSync(join(folder, "cases.json"), JSON.stringify(cases));
    const script = fileURLToPath(new URL("llama_cpp_answers.py", import.meta.url));
    execFileSync(python, [script, folder], { stdio: ["ignore", "ignore", "pipe"] });
    theirs = JSON.parse(readFileSync(join(folder, "answers.json"), "utf8"));
  }, 240_000);

  it.each(cases.map(({ title }, i) => [title, i] as const))("%s: llama.cpp computes the same", (_, i) => {
    const expected = theirs[i];
    if (expected?.embedding !== undefined) {
      expect(farthest(ours[i] ?? [], expected.embedding)).toBeLessThan(EMBEDDING_TOLERANCE);
    } else {
      const ids = (expected?.text ?? "").split(";").flatMap((part) => /t(\d+)/.exec(part)?.slice(1) ?? []);
      expect(ids.map(Number)).toEqual(ours[i]);
      expect(ids.length).toBe(COUNT);
    }
  });

  it("adapters change what llama.cpp writes", () => {
    const texts = new Map(cases.map(({ title }, i) => [title, theirs[i]?.text]));
    for (const [title, text] of texts) {
      const adapted = texts.get(`${title} with an adapter`);
      if (adapted !== undefined) expect(adapted).not.toBe(text);
    }
  });

  it("the reader of gguf finds every tensor, innermost dimension first", () => {
    const i = cases.findIndex(({ title }) => title === "gpt2");
    expect(theirs[i]?.tensors).toMatchObject({
      "token_embd.weight": [20, 31],
      "blk.1.attn_qkv.weight": [20, 60],
      "blk.1.ffn_down.weight": [80, 20],
    });
  });
});
