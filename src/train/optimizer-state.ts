import type { WeightSpec } from "../nn/scope.ts";
import type { Optimizer } from "../optim/optimizer.ts";
import type { Params } from "../tensor/params.ts";
import { tensor } from "../tensor/tensor.ts";
import { initialState } from "./step.ts";

/**
 * How much of a client's optimizer outlives a round, when its parameters jump to the aggregate: nothing; the projectors
 * and the count of steps that their refresh goes by; or moments, projectors and counts.
 */
export type OptimizerMemory = "fresh" | "projectors" | "kept";

/** An optimizer at the start of a round. */
export interface ResumedOptimizer {
  readonly state: Params;
  /** Steps that its own numbers (bias correction, schedule) count from. */
  readonly stepsBefore: number;
  /** Steps that the refresh of projectors counts from. */
  readonly stepsInRun: number;
}

const COUNT = "optimizer/steps";

/** The optimizer of some parameters with what was kept of it. */
export function resumeOptimizer(
  optimizer: Optimizer,
  trainable: ReadonlyMap<string, WeightSpec>,
  kept: Params,
): ResumedOptimizer {
  const fresh = initialState(optimizer, trainable);
  const state = new Map([...fresh].map(([name, value]) => [name, kept.get(name) ?? value] as const));
  const stepsInRun = Number(kept.get(COUNT)?.data[0] ?? 0);
  // Where a moment is new, so is the count that corrects it.
  const whole = [...fresh.keys()].every((name) => kept.has(name));
  return { state, stepsBefore: whole ? stepsInRun : 0, stepsInRun };
}

/** What is kept of an optimizer after so many steps in all; an empty set where nothing is. */
export function suspendOptimizer(state: Params, stepsInRun: number, memory: OptimizerMemory): Params {
  if (memory === "fresh") return new Map();
  const kept = [...state].filter(
    ([name]) => memory === "kept" || /^optimizer\/(left|right)Projector\//.test(name),
  );
  return new Map([...kept, [COUNT, tensor("float64", [], Float64Array.of(stepsInRun))]]);
}
