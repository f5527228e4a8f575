import { type AttachedAdapter, adapterBase } from "../adapters/adapter.ts";
import { mergeAdapters } from "../adapters/merge.ts";
import type { Tokenizer } from "../data/tokenizer.ts";
import { TributaryError } from "../errors.ts";
import { openFolder } from "../formats/files.node.ts";
import type { PeftAdapter } from "../formats/peft.ts";
import { repositoryOf } from "../hub/reference.ts";
import { type LoadedModel, loadModel } from "../models/load.ts";
import { type BasePrecision, floatWeight, floatWeights } from "../models/precision.ts";
import { strategyOf } from "../strategies/catalogue/entries.ts";
import type { Params } from "../tensor/params.ts";
import { initialParams, type JobAdapter, jobAdapter, withOffset } from "./adapter.ts";
import { readAdapterFrom } from "./adapter-from.node.ts";
import { localModel } from "./hub.node.ts";
import type { Job } from "./job.ts";
import { readResolvedJob } from "./load.node.ts";
import { loadJobModel, readModelTokenizer } from "./model.node.ts";
import { namedClient, readPersonalModel } from "./personal.node.ts";
import { isRunFolder, readTrained } from "./run-files.node.ts";
import { jobStrategy } from "./updates.ts";

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
  /** What was trained as PEFT writes it; absent where that is no adapter of PEFT. */
  readonly adapter?: PeftAdapter;
  /** Folder of the base model. */
  readonly path: string;
  /** The job of the run that trained it. */
  readonly job?: Job;
}

export interface OpenTunedOptions {
  /** How the weights of a model folder are held; a run has its own. Default: "float32". */
  readonly precision?: BasePrecision | undefined;
  /** Whose model, where each client of the run has one of its own. */
  readonly client?: string | undefined;
}

/**
 * Opens the model of a run folder, or a model folder as it is. Throws TributaryError `client` where each client of the run
 * has a model and none of them is named, or one is named and there is one model.
 */
export async function openTuned(
  folder: string,
  { precision = "float32", client: id }: OpenTunedOptions = {},
): Promise<TunedModel> {
  if (!(await isRunFolder(folder))) {
    if (id !== undefined) throw oneModel(folder, id);
    const model = await loadModel(await openFolder(folder), { precision });
    const tokenizer = await readModelTokenizer(folder);
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
  const strategy = jobStrategy(job);
  const personal = strategy.declares.personal === true;
  if (!personal && id !== undefined) throw oneModel(folder, id);
  const client = personal ? await namedClient(folder, id) : undefined;
  const { model, tokenizer } = await loadJobModel(job);
  const adapter = jobAdapter(job.adapter, model, strategyOf(job.strategy));
  const rank = client?.rank ?? adapter.rank;
  const { params, offset, ...trained } =
    client === undefined
      ? await readTrained(folder)
      : await readPersonalModel(folder, client, {
          strategy,
          initial: await startOfRun(job, { model, adapter }),
        });
  const config =
    client === undefined || strategy.adapters ? undefined : adapter.config(rank, repositoryOf(job.model));
  return {
    model,
    tokenizer,
    attached: adapter.attach(rank),
    params,
    offset,
    ...(config !== undefined && { adapter: { config, params } }),
    ...trained,
    base: withOffset(model.weights, offset),
    path: await localModel(job.model),
    job,
  };
}

/** The parameters that a run has before round 1. */
export async function startOfRun(
  job: Job,
  { model, adapter }: { readonly model: LoadedModel; readonly adapter: JobAdapter },
): Promise<Params> {
  const floats = { get: (name: string) => floatWeight(model.weights, name) };
  return initialParams(adapter, floats, job.seed, await readAdapterFrom(job, model));
}

function oneModel(folder: string, id: string): TributaryError {
  return new TributaryError(
    "client",
    `${folder}: got the client ${JSON.stringify(id)}, but there is one model for all; leave --client out`,
  );
}

/** All weights with what was trained folded in, in float32. */
export function mergedWeights({ model, base, attached, params }: TunedModel): Params {
  const { parameters } = adapterBase(model);
  const floats = floatWeights(base, parameters.keys());
  const changed = mergeAdapters(floats, attached, params);
  return new Map([...floats, ...changed].filter(([name]) => parameters.has(name)));
}
