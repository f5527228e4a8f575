import { type ExactSum, exactSum } from "../tensor/exact-sum.ts";
import type { Params } from "../tensor/params.ts";
import type { RoundOpened } from "./journal.ts";
import { joinUpdate, splitUpdate } from "./manifest.ts";
import type { PlanEntry } from "./plan.ts";
import type { Aggregate, ClientRef, RoundContext, StateTree, Strategy, Update } from "./strategy.ts";

/** Takes in the accepted updates of a round, in any order, and gives the next state. */
export interface Fold<State extends StateTree> {
  add(update: Update): void;
  /** The server step over all that was added; the same bits whatever the order. */
  finish(state: State, context: RoundContext): Aggregate<State>;
}

/** How the updates of a round are folded: kept until the end, or streamed into one exact weighted sum. */
export function foldFor<State extends StateTree>(
  strategy: Strategy<State>,
  how: RoundOpened["fold"],
  plan: readonly PlanEntry[],
): Fold<State> {
  if (how.kind === "all") {
    const updates = new Map<string, Update>();
    return {
      add: (update) => {
        updates.set(update.client.id, update);
      },
      finish: (state, context) => {
        const ids = [...updates.keys()].sort();
        const sorted = ids.flatMap((id) => updates.get(id) ?? []);
        return strategy.aggregate(state, sorted, context);
      },
    };
  }
  const sum: ExactSum = exactSum({
    shapes: new Map(plan.map(({ name, shape }) => [name, shape])),
    bound: how.bound,
    maxWeight: how.maxWeight,
  });
  let first: ClientRef | undefined;
  let numExamples = 0;
  let folded = 0;
  return {
    add: (update) => {
      sum.fold(joinUpdate(update), strategy.declares.uniformWeights ? 1 : update.numExamples);
      if (!first || update.client.id < first.id) first = update.client;
      numExamples += update.numExamples;
      folded++;
    },
    finish: (state, context) => {
      const mean: Params = first ? sum.mean() : new Map();
      const merged = first ? [{ client: first, numExamples, folded, ...splitUpdate(mean) }] : [];
      return strategy.aggregate(state, merged, context);
    },
  };
}
