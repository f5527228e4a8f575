import { deviationOfMean } from "../federation/deviation.ts";
import type { Aggregate, StateTree, Strategy, Update } from "../federation/strategy.ts";
import { weightsOf } from "../federation/weights.ts";

/**
 * The measurements of an aggregation of changed updates: deviations are from the mean of what the clients sent, where the
 * parameters alone tell them, and otherwise absent.
 */
export function measuredFromSent<State extends StateTree>(
  { name, declares, global }: Strategy<State>,
  before: State,
  updates: readonly Update[],
  { state, measurements = {} }: Aggregate<State>,
): Record<string, number> {
  const others = Object.entries(measurements).filter(([key]) => !/^(relativeD|d)eviation\//.test(key));
  const { changesBase, unequalRanks, personal, sendsDeltas, uniformWeights } = declares;
  if (changesBase || unequalRanks || personal || sendsDeltas) return Object.fromEntries(others);
  const deviations = deviationOfMean({
    who: name,
    updates,
    weights: weightsOf(name, updates, uniformWeights ? "uniform" : "samples"),
    before: global(before),
    after: global(state),
  });
  return { ...Object.fromEntries(others), ...deviations };
}
