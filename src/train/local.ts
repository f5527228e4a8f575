import { TributaryError } from "../errors.ts";
import type { Projection } from "../optim/optimizer.ts";
import { refreshedProjectors } from "../optim/projector.ts";
import type { Session } from "../runtime/session.ts";
import type { Params } from "../tensor/params.ts";
import { type StreamKey, stream } from "../tensor/random.ts";
import { type Tensor, tensor, zeros } from "../tensor/tensor.ts";
import { feedNames } from "./step.ts";

/** A step that is ready to run. The parts of an accumulated or projected step are opened only when they are needed. */
export interface CompiledStep {
  readonly step: Session;
  accumulate(): Promise<Session>;
  apply(): Promise<Session>;
  /** Needed by a task that refreshes projectors. */
  projected?(): Promise<Session>;
}

/** When and how the projectors of the optimizer state are refreshed. */
export interface Refresh extends Projection {
  /** Steps since the first refresh that earlier tasks took. */
  readonly stepsBefore: number;
  /** What the randomized decomposition is drawn by. */
  readonly key: Omit<StreamKey, "purpose">;
}

export interface LocalTask {
  /** Frozen weights by name. */
  readonly base: Params;
  /** Parameters that are trained, at their start. */
  readonly start: Params;
  /** Optimizer state at the start (`initialState`, or what an earlier task kept). */
  readonly optimizerState: Params;
  /** Further feeds: `received/…`, `extra/…`, `memory/…`. */
  readonly feeds?: Params;
  /** The batches of each step; several are one step by accumulation. */
  readonly steps: readonly (readonly Params[])[];
  /** Optimizer numbers of each step. */
  readonly scalars: readonly Readonly<Record<string, number>>[];
  /** Where the optimizer keeps projectors. */
  readonly refresh?: Refresh;
}

/** One step as it ends. */
export interface StepRecord {
  /** From 1. */
  readonly step: number;
  /** Mean loss before the step. */
  readonly loss: number;
  /** What the loss is a mean over: labelled tokens or rows. */
  readonly count: number;
  /** Gradient norm before clipping. */
  readonly norm: number;
}

export interface LocalOutcome {
  readonly params: Params;
  readonly optimizerState: Params;
  readonly steps: readonly StepRecord[];
}

export interface RunLocalOptions {
  readonly signal?: AbortSignal;
  readonly onStep?: (record: StepRecord) => void;
}

/**
 * Runs the steps of one client. Throws TributaryError `loss-not-finite` at the first loss or gradient that is no number,
 * before anything of it is kept.
 */
export async function runLocal(
  compiled: CompiledStep,
  task: LocalTask,
  { signal, onStep }: RunLocalOptions = {},
): Promise<LocalOutcome> {
  let params = task.start;
  let state = task.optimizerState;
  const records: StepRecord[] = [];
  for (const [i, batches] of task.steps.entries()) {
    signal?.throwIfAborted();
    const scalars = scalarFeeds(task.scalars[i] ?? {}, params);
    const feeds = new Map([...task.base, ...params, ...state, ...(task.feeds ?? []), ...scalars]);
    const { outputs, loss, count, projectors } = await oneStep(
      compiled,
      feeds,
      batches,
      params,
      due(task, i),
    );
    const norm = scalarOf(outputs, "norm");
    if (!(Number.isFinite(loss) && Number.isFinite(norm))) {
      const what = Number.isFinite(loss) ? `gradient norm is ${norm}` : `loss is ${loss}`;
      throw new TributaryError(
        "loss-not-finite",
        `training: step ${i + 1} of ${task.steps.length}: the ${what}; lower the learning rate, or look for broken examples`,
      );
    }
    params = following(params, outputs);
    state = followingState(new Map([...state, ...projectors]), outputs);
    const record = { step: i + 1, loss: loss / count, count, norm };
    records.push(record);
    onStep?.(record);
    // Messages such as an abort are read between steps.
    await new Promise((resolve) => setTimeout(resolve, 0));
  }
  return { params, optimizerState: state, steps: records };
}

/** The refresh that comes before step i, where one does. */
function due({ refresh }: LocalTask, i: number): Refresh | undefined {
  if (!refresh) return undefined;
  const stepsBefore = refresh.stepsBefore + i;
  return stepsBefore % refresh.gap === 0 ? { ...refresh, stepsBefore } : undefined;
}

async function oneStep(
  compiled: CompiledStep,
  feeds: Params,
  batches: readonly Params[],
  params: Params,
  refresh: Refresh | undefined,
): Promise<{
  readonly outputs: Params;
  readonly loss: number;
  readonly count: number;
  /** Optimizer state that the host has made anew. */
  readonly projectors: Params;
}> {
  const [only] = batches;
  if (!only) throw new RangeError("training: a step without a batch");
  if (batches.length === 1 && !refresh) {
    const outputs = await compiled.step.run(new Map([...feeds, ...only]));
    const [loss, count] = [scalarOf(outputs, "loss"), scalarOf(outputs, "count")];
    return { outputs, loss, count, projectors: new Map() };
  }
  const accumulate = await compiled.accumulate();
  let sums: Params = new Map(
    [...params].map(([name, { dtype, shape }]) => [feedNames.gradient(name), zeros(dtype, shape)]),
  );
  let [loss, count] = [0, 0];
  for (const batch of batches) {
    const outputs = await accumulate.run(new Map([...feeds, ...sums, ...batch]));
    sums = following(sums, outputs);
    loss += scalarOf(outputs, "loss");
    count += scalarOf(outputs, "count");
  }
  const summed = new Map([...feeds, ...sums, ["count", scalarLike(params, count)] as const]);
  const projectors = refresh ? await refreshed(compiled, summed, refresh) : new Map<string, Tensor>();
  const apply = await compiled.apply();
  return { outputs: await apply.run(new Map([...summed, ...projectors])), loss, count, projectors };
}

/** Projectors of the gradients that the feeds of an accumulated step give, under the names of the optimizer state. */
async function refreshed(
  { projected }: CompiledStep,
  feeds: Params,
  { decomposition, key, stepsBefore }: Refresh,
): Promise<Params> {
  if (!projected)
    throw new RangeError("training: the projectors are due, but the step has no graph for them");
  const outputs = await (await projected()).run(feeds);
  const next = new Map<string, Tensor>();
  for (const [output, gradient] of outputs) {
    const name = output.slice(feedNames.next(feedNames.gradient("")).length);
    const [left, right] = ["leftProjector", "rightProjector"].map((kind) => feedNames.state(kind, name));
    const [leftProjector, rightProjector] = [feeds.get(left ?? ""), feeds.get(right ?? "")];
    const random = stream({ ...key, purpose: `projector/${name}/${stepsBefore}` });
    const found = refreshedProjectors(
      gradient,
      { ...(leftProjector && { leftProjector }), ...(rightProjector && { rightProjector }) },
      decomposition,
      random,
    );
    if (found.leftProjector) next.set(left ?? "", found.leftProjector);
    if (found.rightProjector) next.set(right ?? "", found.rightProjector);
  }
  return next;
}

/** The outputs that are fed under these names at the next step. */
function following(names: Params, outputs: Params): Params {
  const next = new Map<string, Tensor>();
  for (const name of names.keys()) {
    const value = outputs.get(feedNames.next(name));
    if (!value) throw new Error(`training: the step has no output for "${name}"`);
    next.set(name, value);
  }
  return next;
}

/** The optimizer state after a step; what a graph only reads, as projectors, stays. */
function followingState(state: Params, outputs: Params): Params {
  return new Map(
    [...state].map(([name, held]) => [name, outputs.get(feedNames.next(name)) ?? held] as const),
  );
}

function scalarFeeds(scalars: Readonly<Record<string, number>>, params: Params): Params {
  return new Map(
    Object.entries(scalars).map(([name, value]) => [feedNames.scalar(name), scalarLike(params, value)]),
  );
}

/** A scalar in the dtype of the parameters. */
function scalarLike(params: Params, value: number): Tensor {
  const [first] = params.values();
  return first?.dtype === "float64"
    ? tensor("float64", [], Float64Array.of(value))
    : tensor("float32", [], Float32Array.of(value));
}

function scalarOf(outputs: Params, name: string): number {
  const value = outputs.get(name)?.data[0];
  if (value === undefined) throw new Error(`training: the step has no output "${name}"`);
  return Number(value);
}
