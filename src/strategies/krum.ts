import { TributaryError } from "../errors.ts";
import { deviationOfMean } from "../federation/deviation.ts";
import type { Strategy, Update } from "../federation/strategy.ts";
import { weightsOf } from "../federation/weights.ts";
import { type Params, squaredDistance, weightedMean } from "../tensor/params.ts";
import { fedAvg } from "./fedavg.ts";

/** Options of Krum. */
export interface KrumOptions {
  /** Clients f that may send anything; a round needs more than 2 f + 2. Default: 0. */
  readonly byzantine?: number;
}

/** Options of Multi-Krum. */
export interface MultiKrumOptions extends KrumOptions {
  /** Updates m of the best scores that are averaged. Default: 3. */
  readonly keep?: number;
}

/**
 * Krum: the next model is that client's whose nearest others are nearest. Examples do not count.
 *
 * Blanchard et al., NeurIPS 2017, section 4. https://arxiv.org/abs/1703.02757
 */
export function krum(options: KrumOptions = {}): Strategy<Params> {
  return {
    ...multiKrum({ ...options, keep: 1 }),
    name: "Krum",
    paper: "Blanchard et al., NeurIPS 2017, section 4, https://arxiv.org/abs/1703.02757",
  };
}

/**
 * Multi-Krum: the next model is the plain mean of the m clients with the best Krum scores, all taken at once.
 *
 * Blanchard et al., NeurIPS 2017, section 5. https://arxiv.org/abs/1703.02757
 */
export function multiKrum({ byzantine = 0, keep = 3 }: MultiKrumOptions = {}): Strategy<Params> {
  for (const [option, value, least] of [
    ["byzantine", byzantine, 0],
    ["keep", keep, 1],
  ] as const) {
    if (!(Number.isInteger(value) && value >= least))
      throw new RangeError(`krum: ${option} is ${value}, expected an integer of at least ${least}`);
  }
  return {
    ...fedAvg(),
    name: "Multi-Krum",
    paper: "Blanchard et al., NeurIPS 2017, section 5, https://arxiv.org/abs/1703.02757",
    declares: {},
    aggregate(before, updates) {
      const weights = weightsOf("Krum", updates, "samples");
      const scores = krumScores(updates, byzantine);
      const best = updates
        .map(({ client, params }, k) => ({ id: client.id, params, score: scores[k] ?? 0 }))
        .sort((a, b) => a.score - b.score || (a.id < b.id ? -1 : 1)) // two that are nearest to each other tie
        .slice(0, keep);
      const state = weightedMean(
        best.map(({ params }) => params),
        best.map(() => 1),
      );
      return {
        state,
        measurements: deviationOfMean({ who: "Krum", updates, weights, before, after: state }),
      };
    },
  };
}

/**
 * For each client the sum of the K − f − 2 smallest squared distances to the others, over all tensors. Throws
 * TributaryError (code `too-few-updates`) where f clients of so many could decide.
 */
export function krumScores(updates: readonly Update[], byzantine: number): number[] {
  const count = updates.length; // K
  if (byzantine > 0 && count <= 2 * byzantine + 2) {
    throw new TributaryError(
      "too-few-updates",
      `krum: ${count} updates, expected more than ${2 * byzantine + 2} to withstand ${byzantine} clients; ask more clients a round`,
    );
  }
  const distances = updates.map(() => new Array<number>(count).fill(0));
  updates.forEach((one, i) => {
    updates.slice(0, i).forEach((other, j) => {
      const squared = squaredDistance(one.params, other.params);
      for (const [row, column] of [
        [i, j],
        [j, i],
      ] as const) {
        const at = distances[row];
        if (at) at[column] = squared;
      }
    });
  });
  return distances.map((row, i) =>
    row
      .filter((_, j) => j !== i)
      .sort((a, b) => a - b)
      .slice(0, Math.max(0, count - byzantine - 2))
      .reduce((sum, squared) => sum + squared, 0),
  );
}
