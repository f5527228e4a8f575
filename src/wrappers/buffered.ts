import { TributaryError } from "../errors.ts";
import type {
  Aggregate,
  ClientRef,
  Payload,
  RoundContext,
  StateTree,
  Strategy,
} from "../federation/strategy.ts";
import { weightsOf } from "../federation/weights.ts";
import { addScaled, select, sub } from "../tensor/params.ts";
import { stream } from "../tensor/random.ts";
import { measuredFromSent } from "./measured.ts";

/** Options of buffered rounds. */
export interface BufferedOptions {
  /** η, the factor of the mean change. Default: 1. */
  readonly serverLearningRate?: number;
  /** Weight s(τ) of a change that is τ aggregations late. Default: 1 / √(1 + τ). */
  readonly weight?: (staleness: number) => number;
  /** What the sum of the weighted changes is divided by: the number of updates, as in the paper, or the sum of s. Default: "updates". */
  readonly divideBy?: "updates" | "weights";
  /**
   * Largest staleness that is simulated: a client trains from the model of 0 to so many aggregations ago, drawn by seed,
   * round and client. 0 for rounds whose updates say themselves what they started from. Default: 0.
   */
  readonly maxStaleness?: number;
}

/** State of buffered rounds. */
export interface BufferedState<State extends StateTree> {
  readonly [key: string]: StateTree;
  readonly current: State;
  /** The states before it, the latest first; as many as a simulated client may be late. */
  readonly earlier: readonly State[];
}

/** s(τ) = 1 / √(1 + τ). Nguyen et al., section 5.1. */
export const stalenessWeight = (staleness: number): number => 1 / Math.sqrt(1 + staleness);

/**
 * Buffered asynchronous rounds: clients do not wait for each other, so an update may have been trained from an older
 * model. Its change Δ_i from what its client received is weighted by s(τ_i) and added to the current model before the
 * inner strategy takes its mean: with FedAvg over uniform weights θ ← θ + (η/K) Σ s(τ_i) Δ_i.
 *
 * Nguyen et al., AISTATS 2022, Algorithm 1. https://arxiv.org/abs/2106.06639
 */
export function buffered<State extends StateTree>(
  inner: Strategy<State>,
  {
    serverLearningRate = 1,
    weight = stalenessWeight,
    divideBy = "updates",
    maxStaleness = 0,
  }: BufferedOptions = {},
): Strategy<BufferedState<State>> {
  assertBufferable(inner);
  if (!(serverLearningRate > 0))
    throw new RangeError(`buffered: serverLearningRate is ${serverLearningRate}, expected a number > 0`);
  if (!(Number.isInteger(maxStaleness) && maxStaleness >= 0))
    throw new RangeError(`buffered: maxStaleness is ${maxStaleness}, expected an integer of at least 0`);
  const { local, adapters } = inner;
  const started = ({ current, earlier }: BufferedState<State>, client: ClientRef, context: RoundContext) => {
    const late = Math.min(drawnStaleness(client, context, maxStaleness), earlier.length);
    return { staleness: late, state: late === 0 ? current : (earlier[late - 1] ?? current) };
  };
  return {
    name: `${inner.name}, buffered${maxStaleness > 0 ? ` up to ${maxStaleness} late` : ""}`,
    paper: `${inner.paper}; Nguyen et al., AISTATS 2022, Algorithm 1, https://arxiv.org/abs/2106.06639`,
    // Late updates have to be told from others, so they are no longer one sum.
    declares: { ...inner.declares, weightedSum: false, moduleWise: false },
    ...(local && { local }),
    ...(adapters && { adapters }),
    init: (initial, clients) => ({ current: inner.init(initial, clients), earlier: [] }),
    broadcast: (state, client, context) =>
      inner.broadcast(started(state, client, context).state, client, context),
    aggregate(before, updates, context) {
      const { current, earlier } = before;
      const weights = weightsOf(inner.name, updates, inner.declares.uniformWeights ? "uniform" : "samples");
      const late = updates.map(
        ({ client, staleness }) => staleness ?? started(before, client, context).staleness,
      );
      const s = late.map(weight); // s(τ_i)
      const total = weights.reduce((sum, w) => sum + w, 0);
      const mean = weights.reduce((sum, w, i) => sum + (w / total) * (s[i] ?? 0), 0);
      const factor = serverLearningRate / (divideBy === "weights" ? mean : 1);
      const moved = updates.map((update, i) => {
        const { client, params } = update;
        const from =
          update.received ?? inner.broadcast(started(before, client, context).state, client, context).params;
        const now: Payload = inner.broadcast(current, client, context);
        const own = (name: string): boolean => params.has(name);
        const delta = sub(params, select(from, own)); // Δ_i
        return { ...update, params: addScaled(select(now.params, own), factor * (s[i] ?? 0), delta) };
      });
      const result = inner.aggregate(current, moved, context);
      return {
        ...result,
        state: { current: result.state, earlier: [current, ...earlier].slice(0, maxStaleness) },
        measurements: {
          ...measuredFromSent(inner, current, updates, result),
          staleness: late.reduce((sum, tau) => sum + tau, 0) / late.length,
        },
      } satisfies Aggregate<BufferedState<State>>;
    },
    global: ({ current }, client) => inner.global(current, client),
  };
}

/** τ of a client in a simulated round. */
function drawnStaleness({ id }: ClientRef, { seed, round }: RoundContext, maxStaleness: number): number {
  return maxStaleness === 0
    ? 0
    : stream({ seed, round, client: id, purpose: "staleness" }).integer(maxStaleness + 1);
}

/** Throws TributaryError (code `not-bufferable`) that says why a strategy cannot take late updates. */
export function assertBufferable({
  name,
  declares,
  stages,
}: Pick<Strategy, "name" | "declares" | "stages">): void {
  const reasons = [
    [declares.isolated, "its clients exchange nothing"],
    [declares.centralized, "it has one client, which waits for nobody"],
    [declares.changesBase, "it changes the base, so that a late update was trained on another one"],
    [declares.clientState, "what its clients remember belongs to the round that they were trained in"],
    [declares.personal, "each client has a model of its own"],
    [stages !== undefined, "its stages train different tensors"],
    [
      !declares.weightedSum,
      "it needs the updates of one round: the change that a late one adds means something else by then",
    ],
  ] as const;
  const found = reasons.find(([holds]) => holds === true);
  if (!found) return;
  throw new TributaryError(
    "not-bufferable",
    `buffered: ${name} cannot take late updates: ${found[1]}; use rounds that wait, or FedAvg, FedProx, FedIT, FFA-LoRA or FedAdam`,
  );
}
