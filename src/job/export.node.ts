import { readdir, stat } from "node:fs/promises";
import { join } from "node:path";
import { runtime } from "#ort";
import { type AttachedAdapter, adapterBase } from "../adapters/adapter.ts";
import { inPeftNames } from "../adapters/peft-names.ts";
import { plainProcessorConfig } from "../data/images/processor.ts";
import { TributaryError } from "../errors.ts";
import { readAll } from "../formats/byte-source.ts";
import { openFolder, writeFileAtomic } from "../formats/files.node.ts";
import { openGgufOf } from "../formats/gguf/folder.ts";
import { ggufTokenizer } from "../formats/gguf/tokenizer.ts";
import { writePeftAdapter } from "../formats/peft.ts";
import { writeSafetensors } from "../formats/safetensors.ts";
import { checkpointTensors } from "../models/checkpoint.ts";
import type { TaskModel } from "../models/task.ts";
import type { Params } from "../tensor/params.ts";
import { decode, traceDecoder } from "../train/generate.ts";
import { openCache } from "../train/key-value-cache.ts";
import { isRunFolder, runFiles } from "./run-files.node.ts";
import { mergedWeights, type OpenTunedOptions, openTuned, type TunedModel } from "./tuned.ts";

/** What an export wrote. */
export interface Exported {
  readonly folder: string;
  readonly files: readonly string[];
  /** What the reader should know, such as that the base was changed too. */
  readonly notes: readonly string[];
  /** Largest difference of a logit between adapter and merged model on a probe; undefined where none was taken. */
  readonly largestDifference?: number;
}

/** Whose model is exported, where each client of a run has one of its own. */
export type ExportOptions = Pick<OpenTunedOptions, "client">;

/** How images are prepared. */
const processorFile = "preprocessor_config.json";

/** What goes along with weights: the files of the tokenizer, and how images are prepared. */
const companionFiles: ReadonlySet<string> = new Set([
  "tokenizer.json",
  "tokenizer_config.json",
  "special_tokens_map.json",
  "vocab.txt",
  "chat_template.jinja",
  "generation_config.json",
  processorFile,
]);

/** Copies the adapter of a run with the tokenizer of its base, as PEFT, vLLM and llama.cpp read it. */
export async function exportAdapter(
  run: string,
  out: string,
  options: ExportOptions = {},
): Promise<Exported> {
  await refuseFilled(out);
  if (!(await isRunFolder(run)))
    throw new TributaryError(
      "missing-file",
      `${run}: is no run folder; give one that tributary run has written`,
    );
  const { model, offset, path, job, adapter } = await openTuned(run, options);
  if (job?.adapter.kind !== "lora" || adapter === undefined) throw noAdapter(run);
  const files = writePeftAdapter(inPeftNames(adapterBase(model), adapter));
  for (const [name, bytes] of files) await writeFileAtomic(join(out, name), bytes);
  const card = (await openFolder(join(run, runFiles.adapter)).catch(() => undefined))?.get("README.md");
  if (card !== undefined) await writeFileAtomic(join(out, "README.md"), await readAll(card));
  await copyCompanions(path, out);
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
export async function exportMerged(run: string, out: string, options: ExportOptions = {}): Promise<Exported> {
  await refuseFilled(out);
  const tuned = await openTuned(run, options);
  const merged = mergedWeights(tuned);
  await writeFileAtomic(
    join(out, "model.safetensors"),
    writeSafetensors(checkpointTensors(tuned.model, merged), new Map([["format", "pt"]])),
  );
  const { torch_dtype: _, dtype: __, ...config } = tuned.model.json;
  const labels = tuned.model.task === "causal-lm" ? {} : headConfig(tuned);
  const json = { ...config, ...labels, torch_dtype: "float32" };
  await writeFileAtomic(
    join(out, "config.json"),
    new TextEncoder().encode(`${JSON.stringify(json, undefined, 2)}\n`),
  );
  await copyCompanions(tuned.path, out);
  await writeImageProcessor(tuned, out);
  const difference = tuned.model.task === "causal-lm" ? await probe(tuned, merged) : undefined;
  return {
    folder: out,
    files: await readdir(out),
    notes: [],
    ...(difference === undefined ? {} : { largestDifference: difference }),
  };
}

/** The refusal of a run whose trained parameters PEFT has no adapter for. */
export function noAdapter(run: string): TributaryError {
  return new TributaryError(
    "no-adapter",
    `${run}: trained whole weights or factors that PEFT does not know, not an adapter; use tributary export merged`,
  );
}

function headConfig({ model }: TunedModel): Readonly<Record<string, unknown>> {
  const { numLabels } = model.config;
  const names = Array.from({ length: numLabels }, (_, i) => `LABEL_${i}`);
  return {
    architectures: [
      `${model.model.className}For${model.task === "image-classification" ? "Image" : "Sequence"}Classification`,
    ],
    id2label: Object.fromEntries(names.map((name, i) => [i, name])),
    label2id: Object.fromEntries(names.map((name, i) => [name, i])),
    ...(model.task === "regression" ? { problem_type: "regression" } : {}),
  };
}

/** Largest difference of the next-token logits, adapter against merged, after a few tokens. */
async function probe({ model, attached, base, params }: TunedModel, merged: Params): Promise<number> {
  const tokens = Array.from({ length: 8 }, (_, i) => (i * 97 + 11) % model.config.vocabSize);
  const { held: _, ...wide } = model;
  const apart = await logitsOf(model, attached, new Map([...base, ...params]));
  const folded = await logitsOf(wide, [], merged);
  return apart.reduce((most, value, i) => Math.max(most, Math.abs(value - (folded[i] ?? Number.NaN))), 0);

  async function logitsOf(
    traced: TaskModel,
    adapters: readonly AttachedAdapter[],
    weights: Params,
  ): Promise<readonly number[]> {
    const { graph, cache } = traceDecoder(traced, adapters);
    const session = await runtime.openSession(graph);
    try {
      const empty = openCache(cache, { rows: 1, expected: tokens.length });
      const rows = await decode(session, weights, empty, [tokens]);
      return rows.flatMap((row) => Array.from(row));
    } finally {
      await session.dispose();
    }
  }
}

/** Copies the files that go along with weights, or writes the tokenizer of a GGUF file as such files. */
async function copyCompanions(from: string, to: string): Promise<void> {
  const folder = await openFolder(from);
  for (const [name, source] of folder)
    if (companionFiles.has(name)) await writeFileAtomic(join(to, name), await readAll(source));
  const gguf = folder.has("tokenizer.json") ? undefined : await openGgufOf(folder);
  if (gguf === undefined) return;
  const { json, config } = ggufTokenizer(gguf.metadata, gguf.file);
  for (const [name, value] of [
    ["tokenizer.json", json],
    ["tokenizer_config.json", config],
  ] as const)
    await writeFileAtomic(
      join(to, name),
      new TextEncoder().encode(`${JSON.stringify(value, undefined, 2)}\n`),
    );
}

/** Says how a model's images are prepared, where its base says nothing. */
async function writeImageProcessor({ model }: TunedModel, folder: string): Promise<void> {
  const { image } = model.config;
  const path = join(folder, processorFile);
  const there = await stat(path).catch(() => undefined);
  if (image === undefined || there !== undefined) return;
  const text = `${JSON.stringify(plainProcessorConfig(image), undefined, 2)}\n`;
  await writeFileAtomic(path, new TextEncoder().encode(text));
}

async function refuseFilled(folder: string): Promise<void> {
  const found = await stat(folder).catch(() => undefined);
  if (found === undefined) return;
  if (found.isDirectory() && (await readdir(folder)).length === 0) return;
  throw new TributaryError("folder-in-use", `${folder}: exists already; give --out a new or empty folder`);
}
