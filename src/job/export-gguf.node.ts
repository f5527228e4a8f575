import { stat } from "node:fs/promises";
import { basename } from "node:path";
import { TributaryError } from "../errors.ts";
import { type Folder, readAll } from "../formats/byte-source.ts";
import { openFolder, writeFileAtomic } from "../formats/files.node.ts";
import { type GgufFloat, ggufAdapter, ggufModel } from "../formats/gguf/export.ts";
import { openGgufOf } from "../formats/gguf/folder.ts";
import type { GgufMetadata } from "../formats/gguf/metadata.ts";
import { tokenizerMetadata } from "../formats/gguf/tokenizer-metadata.ts";
import { type GgufFile, ggufPieces } from "../formats/gguf/write.ts";
import { type JsonObject, parseJsonObject } from "../formats/json.ts";
import { scalingOf } from "../formats/peft.ts";
import { checkpointTensors } from "../models/checkpoint.ts";
import type { LoadedModel } from "../models/load.ts";
import { type ExportOptions, noAdapter } from "./export.node.ts";
import { isRunFolder } from "./run-files.node.ts";
import { mergedWeights, openTuned, type TunedModel } from "./tuned.ts";

export interface ExportGgufOptions<Type extends GgufFloat> extends ExportOptions {
  /** How matrices are stored. */
  readonly type: Type;
}

/** A GGUF file that was written. */
export interface ExportedGguf {
  readonly file: string;
  readonly bytes: number;
  readonly tensors: number;
  /** What the reader should know. */
  readonly notes: readonly string[];
}

/** Writes the model of a run, or a model folder, as one file for llama.cpp, with its tokenizer and chat template. */
export async function exportMergedGguf(
  run: string,
  out: string,
  { type, client }: ExportGgufOptions<GgufFloat>,
): Promise<ExportedGguf> {
  await refuseExisting(out);
  const tuned = await openTuned(run, { client });
  const { model, path, job } = tuned;
  if (model.task !== "causal-lm" && model.task !== "embeddings") {
    throw new TributaryError(
      "unsupported-model",
      `${run}: a model for ${model.task} has a head that GGUF does not hold; use tributary export merged --out DIR`,
    );
  }
  const file = ggufModel({
    json: configOf(model),
    weights: checkpointTensors(model, mergedWeights(tuned)),
    tokenizer: await tokenizerOf(path, model.config.vocabSize),
    type,
    name: job?.name ?? nameOf(path),
  });
  const coarse = file.tensors.filter((tensor) => type === "Q8_0" && tensor.type === "F16").length;
  const notes =
    coarse > 0 ? [`${coarse} matrices have rows that are no whole blocks of 32 and are float16`] : [];
  return write(file, out, notes);
}

/** Writes the adapter of a run as a file that llama.cpp lays over the base model in GGUF. */
export async function exportAdapterGguf(
  run: string,
  out: string,
  { type, client }: ExportGgufOptions<"F32" | "F16">,
): Promise<ExportedGguf> {
  await refuseExisting(out);
  if (!(await isRunFolder(run)))
    throw new TributaryError(
      "missing-file",
      `${run}: is no run folder; give one that tributary run has written`,
    );
  const { model, job, offset, adapter } = await openTuned(run, { client });
  if (job?.adapter.kind !== "lora" || adapter === undefined) throw noAdapter(run);
  const { config, params } = adapter;
  const whole = config.useDora === true ? ["DoRA magnitudes"] : config.modulesToSave;
  if (whole.length > 0) {
    throw new TributaryError(
      "no-adapter",
      `${run}: GGUF adapters hold no ${whole.join(", ")}; use tributary export merged`,
    );
  }
  const modules = [...params].flatMap(([name, a]) => {
    if (!name.endsWith(LORA_A)) return [];
    const module = name.slice(0, -LORA_A.length);
    const b = params.get(`${module}.lora_B.weight`);
    return b === undefined ? [] : [{ module, a, b, scaling: scalingOf(config, module) }];
  });
  const notes =
    offset.size > 0 ? ["the strategy changed the base too, so the adapter alone is not the whole model"] : [];
  return write(ggufAdapter({ json: configOf(model), modules, type, name: job.name }), out, notes);
}

const LORA_A = ".lora_A.weight";

/** `tokenizer.*` values: those of the GGUF file that the model came from, or made from its tokenizer.json. */
async function tokenizerOf(path: string, vocabSize: number): Promise<GgufMetadata> {
  const folder = await openFolder(path);
  const json = await jsonAt(folder, "tokenizer.json");
  if (json !== undefined) {
    const config = (await jsonAt(folder, "tokenizer_config.json")) ?? {};
    const template = folder.get("chat_template.jinja");
    const chat =
      template === undefined ? {} : { chat_template: new TextDecoder().decode(await readAll(template)) };
    return tokenizerMetadata({ json, config: { ...config, ...chat } }, vocabSize);
  }
  const stored = (await openGgufOf(folder))?.metadata ?? new Map();
  return new Map([...stored].filter(([key]) => key.startsWith("tokenizer.")));
}

async function jsonAt(folder: Folder, name: string): Promise<JsonObject | undefined> {
  const source = folder.get(name);
  return source === undefined ? undefined : parseJsonObject(await readAll(source), name);
}

function configOf({ json }: LoadedModel): JsonObject {
  return parseJsonObject(new TextEncoder().encode(JSON.stringify(json)), "config.json");
}

function nameOf(path: TunedModel["path"]): string {
  return basename(path).replace(/\.gguf$/i, "");
}

async function write(file: GgufFile, out: string, notes: readonly string[]): Promise<ExportedGguf> {
  await writeFileAtomic(out, ggufPieces(file));
  return { file: out, bytes: (await stat(out)).size, tensors: file.tensors.length, notes };
}

async function refuseExisting(file: string): Promise<void> {
  if ((await stat(file).catch(() => undefined)) === undefined) return;
  throw new TributaryError("file-in-use", `${file}: exists already; give --gguf another name`);
}
