import type { Value } from "../graph/value.ts";

/** A number, or a number for each step (from 1). */
export type Rate = number | ((step: number) => number);

/** One tensor of optimizer state: its shape and the number it starts from. */
export interface StateSpec {
  readonly shape: readonly number[];
  readonly fill: number;
}

/**
 * Singular vectors of the gradient, which a graph cannot compute: the host refreshes the state tensors `leftProjector`
 * [out, rank] and `rightProjector` [rank, in] of a parameter between steps. Plain data, for it travels to workers.
 */
export interface Projection {
  /** Steps between two refreshes; the first refresh is before the first step. */
  readonly gap: number;
  /** Exact, by the randomized range finder, or exact up to 512 rows or columns. */
  readonly decomposition: "auto" | "exact" | "randomized";
}

/**
 * An optimizer as a pure update rule over graph values: it is traced into the training step, once per parameter.
 * Numbers that change from step to step are computed on the host in float64 and enter the graph as scalars.
 */
export interface Optimizer {
  readonly name: string;
  /** Whether an element's next value and state depend on its own gradient and state alone, shaped as the parameter. */
  readonly elementwise: boolean;
  /** Present where the state holds projectors, which the host refreshes. */
  readonly projection?: Projection;
  /** State tensors of a parameter of this shape and name, by name of the state. */
  state(shape: readonly number[], parameter?: string): Readonly<Record<string, StateSpec>>;
  /** Host numbers of a step, counted from 1. `learningRate` is always among them. */
  scalars(step: number): Readonly<Record<string, number>>;
  /** The next value of the parameter and of its state; projectors are read and not returned. */
  update(u: UpdateInput): UpdateResult;
}

export interface UpdateInput {
  readonly parameter: Value;
  readonly gradient: Value;
  readonly state: Readonly<Record<string, Value>>;
  /** The numbers of `scalars`, as graph values. */
  readonly scalars: Readonly<Record<string, Value>>;
}

export interface UpdateResult {
  readonly parameter: Value;
  readonly state: Readonly<Record<string, Value>>;
}

/** The value of a rate at a step. */
export function rateAt(rate: Rate, step: number): number {
  return typeof rate === "number" ? rate : rate(step);
}

/** Member `name` of a record of values; throws where the optimizer did not declare it. */
export function take(values: Readonly<Record<string, Value>>, name: string): Value {
  const value = values[name];
  if (!value)
    throw new Error(
      `optimizer: no value named "${name}"; declared are ${Object.keys(values).join(", ") || "none"}`,
    );
  return value;
}
