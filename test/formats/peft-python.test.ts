import { execFile, spawnSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import process from "node:process";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { runtime } from "#ort";
import { type Adapter, type AttachedAdapter, adaptedScope, adapterBase } from "../../src/adapters/adapter.ts";
import { dora } from "../../src/adapters/dora.ts";
import { type LoraOptions, lora } from "../../src/adapters/lora.ts";
import { loadPeftAdapter, peftConfigOf } from "../../src/adapters/peft.ts";
import { inPeftNames } from "../../src/adapters/peft-names.ts";
import { openFolder, writeFileAtomic } from "../../src/formats/files.node.ts";
import { writePeftAdapter } from "../../src/formats/peft.ts";
import { writeSafetensors } from "../../src/formats/safetensors.ts";
import { checkpointTensors } from "../../src/models/checkpoint.ts";
import { modelInputs, type TaskModel, taskOutput } from "../../src/models/task.ts";
import type { Params } from "../../src/tensor/params.ts";
import { stream } from "../../src/tensor/random.ts";
import { float32, sizeOf, type Tensor, tensor } from "../../src/tensor/tensor.ts";
import { encode } from "../../src/train/step.ts";
import { bertJson, familyJsons, llamaJson, tinyModel } from "../models/tiny.ts";
import { farthest } from "../nn/evaluate.ts";

const python = process.env.TRIBUTARY_PYTHON ?? "python3";
const modules = ["peft", "torch", "transformers"];
const probe = `import importlib.util, sys; sys.exit(not all(importlib.util.find_spec(m) for m in ${JSON.stringify(modules)}))`;
const able = spawnSync(python, ["-c", probe]).status === 0;
const reason = able
  ? ""
  : ` (skipped: ${python} has not ${modules.join(", ")}; TRIBUTARY_PYTHON names another)`;

/** Float32 against float32; the logits are about 1 in size. */
const TOLERANCE = 1e-4;

interface Case {
  readonly model: string;
  /** DoRA on both sides; the file of PEFT says so by `use_dora`. */
  readonly dora?: boolean;
  readonly json: Readonly<Record<string, unknown>>;
  /** Absent: images. */
  readonly task?: "CAUSAL_LM" | "SEQ_CLS";
  /** What is written here. */
  readonly ours: LoraOptions;
  /** What PEFT writes. */
  readonly theirs: Readonly<Record<string, unknown>>;
}

const cases: readonly Case[] = [
  {
    model: "llama",
    json: llamaJson,
    task: "CAUSAL_LM",
    ours: {
      rank: 3,
      alpha: 6,
      target: ["q_proj", "down_proj"],
      rankPattern: { "layers.1.self_attn.q_proj": 5 },
      alphaPattern: { down_proj: 9 },
    },
    theirs: { r: 4, lora_alpha: 12, target_modules: "all-linear", use_rslora: true },
  },
  {
    model: "bert",
    json: bertJson,
    task: "SEQ_CLS",
    ours: { rank: 2, alpha: 4, target: ["query", "value"], rsLora: true, modulesToSave: ["classifier"] },
    theirs: {
      r: 3,
      lora_alpha: 6,
      target_modules: ["key", "output.dense"],
      exclude_modules: ["layer.0.output.dense"],
    },
  },
  {
    model: "llama-dora",
    json: llamaJson,
    task: "CAUSAL_LM",
    dora: true,
    ours: { rank: 3, alpha: 6, target: ["k_proj", "up_proj"], rsLora: true },
    theirs: { r: 2, lora_alpha: 8, target_modules: ["q_proj", "down_proj"], use_dora: true },
  },
  {
    model: "gpt2",
    json: familyJsons.gpt2 ?? {},
    task: "CAUSAL_LM",
    ours: { rank: 3, alpha: 6, target: ["c_attn", "attn.c_proj"] },
    theirs: { r: 2, lora_alpha: 8, target_modules: ["c_proj", "c_fc"], fan_in_fan_out: true },
  },
  {
    model: "gpt2-dora",
    json: familyJsons.gpt2 ?? {},
    task: "CAUSAL_LM",
    dora: true,
    ours: { rank: 3, alpha: 6, target: ["c_attn"] },
    theirs: { r: 2, lora_alpha: 8, target_modules: ["c_fc"], fan_in_fan_out: true, use_dora: true },
  },
  {
    model: "roberta",
    json: familyJsons.roberta ?? {},
    task: "SEQ_CLS",
    ours: { rank: 2, alpha: 4, target: ["query", "value"], modulesToSave: ["classifier"] },
    theirs: { r: 3, lora_alpha: 6, target_modules: "all-linear" },
  },
  {
    model: "vit",
    json: familyJsons.vit ?? {},
    ours: {
      rank: 2,
      alpha: 4,
      target: ["query", "output.dense"],
      rankPattern: { "layer.1.attention.attention.query": 3 },
      modulesToSave: ["classifier", "layernorm_before"],
    },
    theirs: { r: 3, lora_alpha: 6, target_modules: "all-linear", modules_to_save: ["classifier"] },
  },
];

const adapterOf = ({ dora: magnitudes, ours }: Pick<Case, "dora" | "ours">): Adapter =>
  (magnitudes ? dora : lora)(ours);

const ids = [
  [3, 17, 9, 21, 5, 8],
  [11, 2, 26, 7, 19, 4],
];

const pixels = [0, 1].map((b) =>
  [0, 1].map((c) =>
    Array.from({ length: 8 }, (_, y) => Array.from({ length: 11 }, (_, x) => Math.sin(b + 3 * c + y * x))),
  ),
);

/** Numbers of a size that a trained adapter has, so that both factors count. */
function drawn({ parameters }: AttachedAdapter): Params {
  return new Map(
    [...parameters].map(([name, { shape }]): [string, Tensor] => {
      const values = new Float32Array(sizeOf(shape));
      stream({ seed: 11, purpose: name }).fillNormal(values, 0, 0.3);
      return [name, float32(shape, values)];
    }),
  );
}

async function logits(model: TaskModel, attached: AttachedAdapter, weights: Params): Promise<number[]> {
  const scope = adaptedScope(adapterBase(model), [attached]);
  const { image } = model.config;
  const { output } = taskOutput(model, scope, modelInputs(model.model, { image }));
  const session = await runtime.openSession(encode(new Map([["output", output]])));
  const int64 = (rows: readonly (readonly number[])[]): Tensor =>
    tensor("int64", [rows.length, rows[0]?.length ?? 0], BigInt64Array.from(rows.flat(), BigInt));
  const tokens = new Map([
    ["input_ids", int64(ids)],
    ["attention_mask", int64(ids.map((row) => row.map(() => 1)))],
  ]);
  const images = new Map([["pixel_values", float32([2, 2, 8, 11], pixels.flat(3))]]);
  const batch = image ? images : tokens;
  const got = await session.run(new Map([...weights, ...batch]));
  await session.dispose();
  return Array.from(got.get("output")?.data ?? [], Number);
}

describe.skipIf(!able)(`adapters and PEFT in Python${reason}`, () => {
  const folder = mkdtempSync(join(tmpdir(), "tributary-peft-"));
  let answers: readonly Readonly<Record<"written" | "saved" | "plain", number[]>>[] = [];

  beforeAll(async () => {
    for (const { model, json, task, ours, dora: useDora = false } of cases) {
      const { taskModel, weights } = tinyModel(json);
      await writeFileAtomic(
        join(folder, model, "config.json"),
        new TextEncoder().encode(JSON.stringify(json)),
      );
      await writeFileAtomic(
        join(folder, model, "model.safetensors"),
        writeSafetensors(checkpointTensors(taskModel, weights), new Map([["format", "pt"]])),
      );
      const base = adapterBase(taskModel);
      const labels = task === undefined ? {} : { taskType: task };
      const config = { ...peftConfigOf(base, ours, labels), useDora };
      const params = drawn(adapterOf({ ours, dora: useDora }).attach(base));
      for (const [name, bytes] of writePeftAdapter(inPeftNames(base, { config, params })))
        await writeFileAtomic(join(folder, `${model}-written`, name), bytes);
    }
    const described = cases.map(({ model, json, task, theirs: options }) => {
      const images = json.num_channels === undefined ? {} : { pixels };
      return { model, task, options, ids, ...images, written: `${model}-written`, saved: `${model}-saved` };
    });
    writeFileSync(join(folder, "cases.json"), JSON.stringify(described));
    const script = fileURLToPath(new URL("peft_logits.py", import.meta.url));
    await promisify(execFile)(python, [script, folder], { env: { ...process.env, HF_HUB_OFFLINE: "1" } });
    answers = JSON.parse(readFileSync(join(folder, "answers.json"), "utf8"));
  }, 180_000);
  afterAll(() => rmSync(folder, { recursive: true, force: true }));

  cases.forEach(({ model, json, ...options }, i) => {
    it(`PEFT loads what is written for ${model} and gives the same logits`, async () => {
      const { taskModel, weights } = tinyModel(json);
      const attached = adapterOf(options).attach(adapterBase(taskModel));
      const got = await logits(taskModel, attached, new Map([...weights, ...drawn(attached)]));
      expect(farthest(got, answers[i]?.written ?? [])).toBeLessThan(TOLERANCE);
      expect(farthest(got, answers[i]?.plain ?? [])).toBeGreaterThan(100 * TOLERANCE);
    });

    it(`what PEFT saved for ${model} loads and gives the same logits`, async () => {
      const { taskModel, weights } = tinyModel(json);
      const saved = await openFolder(join(folder, `${model}-saved`));
      const { attached, params } = await loadPeftAdapter(saved, adapterBase(taskModel));
      const got = await logits(taskModel, attached, new Map([...weights, ...params]));
      expect(farthest(got, answers[i]?.saved ?? [])).toBeLessThan(TOLERANCE);
      expect(farthest(got, answers[i]?.plain ?? [])).toBeGreaterThan(100 * TOLERANCE);
    });
  });
});
