import { TributaryError } from "../errors.ts";
import type { StateTree, Strategy } from "../federation/strategy.ts";
import { addScaled, norm, scale, select, sub } from "../tensor/params.ts";
import { measuredFromSent } from "./measured.ts";

/** Options of norm clipping. */
export interface ClippedOptions {
  /** Largest Euclidean norm C of a client's change over all its tensors; infinity clips nothing. */
  readonly norm: number;
}

/**
 * Norm clipping: every update is brought to at most norm C from what the client had received, before it is aggregated.
 * It needs single updates, so the clipped strategy no longer declares a weighted sum or modules apart.
 *
 * Sun et al., "Can You Really Backdoor Federated Learning?", 2019, section 4. https://arxiv.org/abs/1911.07963
 */
export function clipped<State extends StateTree>(
  inner: Strategy<State>,
  { norm: bound }: ClippedOptions,
): Strategy<State> {
  if (!(bound > 0)) throw new RangeError(`clipped: the norm is ${bound}, expected a number > 0`);
  return {
    ...inner,
    name: `${inner.name}, clipped to ${bound}`,
    declares: { ...inner.declares, weightedSum: false, moduleWise: false },
    aggregate(state, updates, context) {
      if (bound === Number.POSITIVE_INFINITY) return inner.aggregate(state, updates, context);
      const within = updates.map((update) => {
        if (inner.declares.sendsDeltas) {
          const length = norm(update.params);
          return length <= bound ? update : { ...update, params: scale(update.params, bound / length) };
        }
        const received = update.received ?? inner.broadcast(state, update.client, context).params;
        const unknown = [...update.params.keys()].find((name) => !received.has(name));
        if (unknown !== undefined) {
          throw new TributaryError(
            "not-clippable",
            `clipped: ${inner.name} never sends ${unknown}, so how far a client moved it is unknown; clip on the client`,
          );
        }
        const start = select(received, (name) => update.params.has(name));
        const delta = sub(update.params, start); // Δ_k
        const length = norm(delta);
        return length <= bound ? update : { ...update, params: addScaled(start, bound / length, delta) };
      });
      const result = inner.aggregate(state, within, context);
      return { ...result, measurements: measuredFromSent(inner, state, updates, result) };
    },
  };
}
