import { createHash } from "node:crypto";
import { createReadStream } from "node:fs";
import { readdir } from "node:fs/promises";
import { join } from "node:path";
import { readTokenizer } from "../data/files.node.ts";
import { noTokenizer, type Tokenizer } from "../data/tokenizer.ts";
import { TributaryError } from "../errors.ts";
import { openFolder } from "../formats/files.node.ts";
import { isGgufName } from "../formats/gguf/gguf.ts";
import { type FoundModel, findModel, type LoadedModel } from "../models/load.ts";
import type { Params } from "../tensor/params.ts";
import { localModel } from "./hub.node.ts";
import { imageSizeOf } from "./images.node.ts";
import type { Job } from "./job.ts";
import { hasClasses } from "./task.ts";

/** Classes of the head that a job asks for; undefined where the model decides. */
export function numLabelsOf({ task, data }: Pick<Job, "task" | "data">): number | undefined {
  if (task === "regression") return 1;
  if (!hasClasses(task) || data.classes === undefined) return undefined;
  return typeof data.classes === "number" ? data.classes : data.classes.length;
}

type ModelJob = Pick<Job, "model" | "task" | "data" | "seed" | "basePrecision" | "weights">;

/**
 * The base model of a job, with its tokenizer; its weights are read once, when they are asked for. Throws TributaryError
 * where the folder holds no model that is known.
 */
export async function findJobModel(job: ModelJob): Promise<{
  readonly model: FoundModel;
  readonly tokenizer: Tokenizer;
  readonly weights: () => Promise<Params>;
}> {
  const { task, seed, basePrecision: precision = "float32", weights: start = "pretrained" } = job;
  const folder = await localModel(job.model);
  const files = await openFolder(folder);
  const options = { task, numLabels: numLabelsOf(job), seed, precision, weights: start };
  const found = await findModel(files, options).catch((cause: unknown) => {
    if (!(cause instanceof TributaryError)) throw cause;
    throw new TributaryError(cause.code, `${folder}: ${cause.message}`, { cause });
  });
  let read: Promise<Params> | undefined;
  return {
    model: found.model,
    tokenizer: await readModelTokenizer(folder),
    weights() {
      read ??= found.read();
      return read;
    },
  };
}

/** The base model of a job with its weights, and its tokenizer. */
export async function loadJobModel(
  job: ModelJob,
): Promise<{ readonly model: LoadedModel; readonly tokenizer: Tokenizer }> {
  const { model, tokenizer, weights } = await findJobModel(job);
  return { model: { ...model, weights: await weights() }, tokenizer };
}

/** The tokenizer of a model, in place of which there is an empty one where the model reads images. */
export async function readModelTokenizer(model: string): Promise<Tokenizer> {
  const folder = await localModel(model);
  return (await imageSizeOf(folder)) === undefined ? readTokenizer(folder) : noTokenizer;
}

/**
 * SHA-256 over config.json and the weight files of a model folder, in the order of their names; or over a GGUF file. Of
 * random weights, over config.json and the seed.
 */
export async function modelDigest(
  path: string,
  { weights: start = "pretrained", seed = 0 }: Partial<Pick<Job, "weights" | "seed">> = {},
): Promise<string> {
  const hash = createHash("sha256");
  const update = async (file: string): Promise<void> => {
    for await (const chunk of createReadStream(file)) hash.update(chunk);
  };
  if (isGgufName(path)) {
    await update(path);
    return hash.digest("hex");
  }
  const names = await readdir(path);
  if (start === "random" && names.includes("config.json")) {
    hash.update(`random weights of seed ${seed}
`);
    await update(join(path, "config.json"));
    return hash.digest("hex");
  }
  const weights = names.filter((name) => name.endsWith(".safetensors"));
  const read = weights.length > 0 ? weights : names.filter(isGgufName);
  for (const name of [...read, ...names.filter((each) => each === "config.json")].sort()) {
    hash.update(`${name}\n`);
    await update(join(path, name));
  }
  return hash.digest("hex");
}
