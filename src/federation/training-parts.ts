import type { Params } from "../tensor/params.ts";
import type { LocalOutcome, LocalTask, RunLocalOptions } from "../train/local.ts";
import type { Env } from "./env.ts";

/** How far the training of an assignment has come: enough to go on to the same bytes. */
export interface TrainingPart {
  readonly assignment: string;
  readonly phase: number;
  /** Steps of the phase that are done. */
  readonly step: number;
  /** All parameters. */
  readonly params: Params;
  /** State of the optimizer, of phases before and of this one. */
  readonly optimizerState: Params;
  readonly phaseState: Params;
  /** Sums over the steps so far. */
  readonly sums: TrainingSums;
}

/** What is reported of steps, summed. */
export interface TrainingSums {
  readonly loss: number;
  readonly norm: number;
  readonly labels: number;
}

/** Where a machine keeps how far it has come. */
export interface TrainingParts {
  /** The last part of this assignment that was kept. */
  load(assignment: string): Promise<TrainingPart | undefined>;
  /** Durable on return. */
  save(part: TrainingPart): Promise<void>;
  /** Milliseconds of training between two parts. */
  readonly everyMs: number;
  readonly env: Pick<Env, "monotonic">;
}

/** What a task is made of as far as it is cut here. */
type Steps = Omit<LocalTask, "base">;

/** Trains a task, or what is left of it. */
export type Train<Task extends Steps> = (task: Task, options: RunLocalOptions) => Promise<LocalOutcome>;

/**
 * Trains a task in parts of about `everyMs`, from step `from` on, and hands each part to `keep`. A step reads nothing but
 * parameters, optimizer state and its own batches, so parts end with the bytes of the whole.
 */
export async function trainInParts<Task extends Steps>(
  train: Train<Task>,
  task: Task,
  {
    from,
    onStep,
    signal,
    everyMs,
    env,
    keep,
  }: RunLocalOptions & {
    readonly from: number;
    readonly everyMs: number;
    readonly env: Pick<Env, "monotonic">;
    keep(done: number, outcome: LocalOutcome): Promise<void>;
  },
): Promise<LocalOutcome> {
  let outcome: LocalOutcome = { params: task.start, optimizerState: task.optimizerState, steps: [] };
  // How long a step takes is not known before the first.
  let most = everyMs === Number.POSITIVE_INFINITY ? task.steps.length : 1;
  for (let done = from; done < task.steps.length; ) {
    const end = Math.min(task.steps.length, done + most);
    const began = env.monotonic();
    const part = await train(
      {
        ...task,
        start: outcome.params,
        optimizerState: outcome.optimizerState,
        steps: task.steps.slice(done, end),
        scalars: task.scalars.slice(done, end),
        ...(task.refresh && { refresh: { ...task.refresh, stepsBefore: task.refresh.stepsBefore + done } }),
      },
      {
        ...(signal && { signal }),
        onStep: (record) => onStep?.({ ...record, step: done + record.step }),
      },
    );
    const steps = part.steps.map((record) => ({ ...record, step: done + record.step }));
    outcome = { ...part, steps: [...outcome.steps, ...steps] };
    most = Math.max(1, Math.round((everyMs * (end - done)) / Math.max(1, env.monotonic() - began)));
    done = end;
    if (done < task.steps.length) await keep(done, outcome);
  }
  return outcome;
}
