import { copyFile, cp, readdir, stat } from "node:fs/promises";
import { join } from "node:path";
import { runtime } from "#ort";
import type { AttachedAdapter } from "../adapters/adapter.ts";
import { TributaryError } from "../errors.ts";
import { writeFileAtomic } from "../formats/files.node.ts";
import { writeSafetensors } from "../formats/safetensors.ts";
import type { Params } from "../tensor/params.ts";
import { tensor } from "../tensor/tensor.ts";
import { traceDecoder } from "../train/generate.ts";
import { isRunFolder, runFiles } from "./run-files.node.ts";
import { mergedWeights, openTuned, type TunedModel } from "./tuned.ts";

/** What an export wrote. */
export interface Exported {
  readonly folder: string;
  readonly files: readonly string[];
  /** What the reader should know, such as that the base was changed too. */
  readonly notes: readonly string[];
  /** Largest difference of a logit between adapter and merged model on a probe; undefined where none was taken. */
  readonly largestDifference?: number;
}

const tokenizerFiles: ReadonlySet<string> = new Set([
  "tokenizer.json",
  "tokenizer_config.json",
  "special_tokens_map.json",
  "vocab.txt",
  "chat_template.jinja",
  "generation_config.json",
]);

/** Copies the adapter of a run with the tokenizer of its base, as PEFT, vLLM and llama.cpp read it. */
export async function exportAdapter(run: string, out: string): Promise<Exported> {
  await refuseFilled(out);
  if (!(await isRunFolder(run)))
    throw new TributaryError(
      "missing-file",
      `${run}: is no run folder; give one that tributary run has written`,
    );
  const { offset, path, job } = await openTuned(run);
  if (job?.adapter.kind !== "lora") {
    throw new TributaryError(
      "no-adapter",
      `${run}: trained whole weights, not an adapter; use tributary export merged`,
    );
  }
  await cp(join(run, runFiles.adapter), out, { recursive: true });
  await copyFrom(path, out, (name) => tokenizerFiles.has(name));
  const notes = [
    ...(offset.size > 0
      ? [
          "the strategy changed the base too, so the adapter alone is not the whole model; export merged folds both",
        ]
      : []),
    ...(job.adapter.modulesToSave.length > 0 || job.task !== "causal-lm"
      ? ["modules trained whole are saved along (modules_to_save); vLLM and llama.cpp do not read them"]
      : []),
  ];
  return { folder: out, files: await readdir(out), notes };
}

/** Writes the model of a run as one folder in Hugging Face layout, what was trained folded into float32 weights. */
export async function exportMerged(run: string, out: string): Promise<Exported> {
  await refuseFilled(out);
  const tuned = await openTuned(run);
  const merged = mergedWeights(tuned);
  await writeFileAtomic(
    join(out, "model.safetensors"),
    writeSafetensors(merged, new Map([["format", "pt"]])),
  );
  const { torch_dtype: _, dtype: __, ...config } = tuned.model.json;
  const labels = tuned.model.task === "causal-lm" ? {} : headConfig(tuned);
  const json = { ...config, ...labels, torch_dtype: "float32" };
  await writeFileAtomic(
    join(out, "config.json"),
    new TextEncoder().encode(`${JSON.stringify(json, undefined, 2)}\n`),
  );
  await copyFrom(tuned.path, out, (name) => tokenizerFiles.has(name));
  const difference = tuned.model.task === "causal-lm" ? await probe(tuned, merged) : undefined;
  return {
    folder: out,
    files: await readdir(out),
    notes: [],
    ...(difference === undefined ? {} : { largestDifference: difference }),
  };
}

function headConfig({ model }: TunedModel): Readonly<Record<string, unknown>> {
  const { numLabels } = model.config;
  const names = Array.from({ length: numLabels }, (_, i) => `LABEL_${i}`);
  return {
    architectures: [`${model.model.type === "bert" ? "Bert" : "Llama"}ForSequenceClassification`],
    id2label: Object.fromEntries(names.map((name, i) => [i, name])),
    label2id: Object.fromEntries(names.map((name, i) => [name, i])),
    ...(model.task === "regression" ? { problem_type: "regression" } : {}),
  };
}

/** Largest difference of the next-token logits, adapter against merged, after a few tokens. */
async function probe({ model, attached, base, params }: TunedModel, merged: Params): Promise<number> {
  const tokens = Array.from({ length: 8 }, (_, i) => (i * 97 + 11) % model.config.vocabSize);
  const apart = await logitsOf(attached, new Map([...base, ...params]));
  const folded = await logitsOf([], merged);
  return apart.reduce((most, value, i) => Math.max(most, Math.abs(value - (folded[i] ?? Number.NaN))), 0);

  async function logitsOf(adapters: readonly AttachedAdapter[], weights: Params): Promise<number[]> {
    const { graph, cache } = traceDecoder(model, adapters);
    const session = await runtime.openSession(graph);
    try {
      const empty = tensor("float32", [1, cache.keyValueHeads, 0, cache.headDim], new Float32Array(0));
      const past = Array.from({ length: cache.layers }, (_, i) => [
        `past/${i}/key`,
        `past/${i}/value`,
      ]).flat();
      const row = (values: readonly number[]) =>
        tensor("int64", [1, values.length], BigInt64Array.from(values, BigInt));
      const outputs = await session.run(
        new Map([
          ...weights,
          ...past.map((name) => [name, empty] as const),
          ["input_ids", row(tokens)],
          ["attention_mask", row(tokens.map(() => 1))],
          ["position_ids", row(tokens.map((_, i) => i))],
        ]),
      );
      return Array.from(outputs.get("logits")?.data ?? [], Number);
    } finally {
      await session.dispose();
    }
  }
}

async function copyFrom(from: string, to: string, wanted: (name: string) => boolean): Promise<void> {
  for (const name of await readdir(from)) if (wanted(name)) await copyFile(join(from, name), join(to, name));
}

async function refuseFilled(folder: string): Promise<void> {
  const found = await stat(folder).catch(() => undefined);
  if (found === undefined) return;
  if (found.isDirectory() && (await readdir(folder)).length === 0) return;
  throw new TributaryError("folder-in-use", `${folder}: exists already; give --out a new or empty folder`);
}
