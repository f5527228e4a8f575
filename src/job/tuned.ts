import { type AttachedAdapter, adapterBase } from "../adapters/adapter.ts";
import { mergeAdapters } from "../adapters/merge.ts";
import { readTokenizer } from "../data/files.node.ts";
import type { Tokenizer } from "../data/tokenizer.ts";
import { TributaryError } from "../errors.ts";
import { openFolder } from "../formats/files.node.ts";
import { type LoadedModel, loadModel } from "../models/load.ts";
import { floatWeights } from "../models/precision.ts";
import { strategyOf } from "../strategies/catalogue/entries.ts";
import type { Params } from "../tensor/params.ts";
import { jobAdapter, withOffset } from "./adapter.ts";
import { localModel } from "./hub.node.ts";
import type { Job } from "./job.ts";
import { readResolvedJob } from "./load.node.ts";
import { loadJobModel } from "./model.node.ts";
import { isRunFolder, readTrained } from "./run-files.node.ts";

/** A model that can be asked: a base with what was trained on it, or a base alone. */
export interface TunedModel {
  readonly model: LoadedModel;
  readonly tokenizer: Tokenizer;
  readonly attached: readonly AttachedAdapter[];
  /** What was trained; empty for a base alone. */
  readonly params: Params;
  /** Offset of the base that the strategy changed; empty where it did not. */
  readonly offset: Params;
  /** The base weights with the offset. */
  readonly base: Params;
  /** Folder of the base model. */
  readonly path: string;
  /** The job of the run that trained it. */
  readonly job?: Job;
}

/** Opens the model of a run folder, or a model folder as it is. */
export async function openTuned(folder: string): Promise<TunedModel> {
  if (!(await isRunFolder(folder))) {
    const model = await loadModel(await openFolder(folder));
    const tokenizer = await readTokenizer(folder);
    return {
      model,
      tokenizer,
      attached: [],
      params: new Map(),
      offset: new Map(),
      base: model.weights,
      path: folder,
    };
  }
  const job = await readResolvedJob(folder);
  if (job === undefined)
    throw new TributaryError("missing-file", `${folder}: holds no job; give a run folder or a model folder`);
  const trained = await readTrained(folder);
  const { model, tokenizer } = await loadJobModel(job);
  const adapter = jobAdapter(job.adapter, model, strategyOf(job.strategy));
  return {
    model,
    tokenizer,
    attached: adapter.attach(adapter.rank),
    params: trained.params,
    offset: trained.offset,
    base: withOffset(model.weights, trained.offset),
    path: await localModel(job.model),
    job,
  };
}

/** All weights with what was trained folded in, in float32. */
export function mergedWeights({ model, base, attached, params }: TunedModel): Params {
  const { parameters } = adapterBase(model);
  const floats = floatWeights(base, parameters.keys());
  const changed = mergeAdapters(floats, attached, params);
  return new Map([...floats, ...changed].filter(([name]) => parameters.has(name)));
}
