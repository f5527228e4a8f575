import { createHash } from "node:crypto";
import { createReadStream } from "node:fs";
import { readdir } from "node:fs/promises";
import { join } from "node:path";
import { readTokenizer } from "../data/files.node.ts";
import type { Tokenizer } from "../data/tokenizer.ts";
import { TributaryError } from "../errors.ts";
import { openFolder } from "../formats/files.node.ts";
import { type LoadedModel, loadModel } from "../models/load.ts";
import type { Job } from "./job.ts";

/** Classes of the head that a job asks for; undefined where the model decides. */
export function numLabelsOf({ task, data }: Pick<Job, "task" | "data">): number | undefined {
  if (task === "regression") return 1;
  if (task !== "sequence-classification" || data.classes === undefined) return undefined;
  return typeof data.classes === "number" ? data.classes : data.classes.length;
}

/** The base model of a job, with its tokenizer. Throws TributaryError where the folder holds no model that is known. */
export async function loadJobModel(
  job: Pick<Job, "model" | "task" | "data" | "seed">,
): Promise<{ readonly model: LoadedModel; readonly tokenizer: Tokenizer }> {
  const { model: folder, task, seed } = job;
  const files = await openFolder(folder);
  const loaded = await loadModel(files, { task, numLabels: numLabelsOf(job), seed }).catch(
    (cause: unknown) => {
      if (!(cause instanceof TributaryError)) throw cause;
      throw new TributaryError(cause.code, `${folder}: ${cause.message}`, { cause });
    },
  );
  return { model: loaded, tokenizer: await readTokenizer(folder) };
}

/** SHA-256 over config.json and the weight files of a model folder, in the order of their names. */
export async function modelDigest(folder: string): Promise<string> {
  const hash = createHash("sha256");
  const names = (await readdir(folder)).filter(
    (name) => name === "config.json" || name.endsWith(".safetensors"),
  );
  for (const name of names.sort()) {
    hash.update(`${name}\n`);
    for await (const chunk of createReadStream(join(folder, name))) hash.update(chunk);
  }
  return hash.digest("hex");
}
