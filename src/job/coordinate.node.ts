import { adapterBase } from "../adapters/adapter.ts";
import type { Strategy } from "../federation/strategy.ts";
import type { Params } from "../tensor/params.ts";
import { sizeOf } from "../tensor/tensor.ts";
import { type JobAdapter, jobAdapter, readInitialParams } from "./adapter.ts";
import { readAdapterFrom } from "./adapter-from.node.ts";
import { localModel } from "./hub.node.ts";
import type { Job } from "./job.ts";
import { findJobModel, modelDigest } from "./model.node.ts";
import { jobStrategy } from "./updates.ts";

/** The parts of a job that its coordinator needs: no data and no workers. */
export interface Coordination {
  readonly strategy: Strategy;
  readonly adapter: JobAdapter;
  /** The parameters before round 1. */
  readonly initial: Params;
  readonly base: { readonly root: string; readonly bytes: number };
}

/** Loads what the coordinator of a job needs. */
export async function coordinate(job: Job): Promise<Coordination> {
  const strategy = jobStrategy(job);
  const { model, weights } = await findJobModel(job);
  const adapter = jobAdapter(job.adapter, model, strategy);
  const from = await readAdapterFrom(job, model);
  const initial = await readInitialParams(adapter, weights, job.seed, from);
  const tensors = [...adapterBase(model).parameters.values()];
  const parameters = tensors.reduce((sum, { shape }) => sum + sizeOf(shape), 0);
  const root = await modelDigest(await localModel(job.model), job);
  return { strategy, adapter, initial, base: { root, bytes: 4 * parameters } };
}
