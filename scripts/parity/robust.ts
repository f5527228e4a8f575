import type { StateTree, Strategy, Update } from "../../src/federation/strategy.ts";
import { coordinateMedian } from "../../src/strategies/coordinate-median.ts";
import { fedAvg } from "../../src/strategies/fedavg.ts";
import { geometricMedian } from "../../src/strategies/geometric-median.ts";
import { krumScores, multiKrum } from "../../src/strategies/krum.ts";
import { trimmedMean, trimmedPerEnd } from "../../src/strategies/trimmed-mean.ts";
import { norm, type Params, squaredDistance, sub } from "../../src/tensor/params.ts";
import { clipped } from "../../src/wrappers/clipped.ts";
import { type Check, type Golden, named, type Observe, type Precision, replay, weighting } from "./replay.ts";

/** Steps after which Weiszfeld's algorithm stands still. */
const CONVERGED = 100_000;

const byClient = <T>(updates: readonly Update[], of: (update: Update, k: number) => T): Record<string, T> =>
  Object.fromEntries(updates.map((update, k) => [update.client.id, of(update, k)]));

type Compare = (golden: Golden, precision: Precision, check: Check) => void;

/** Replays a rule; what it adds to the observations is compared too. */
function rule<State extends StateTree>(
  make: (golden: Golden) => Strategy<State>,
  observe: (golden: Golden) => Observe<State> = () => () => ({}),
  further: readonly string[] = [],
): Compare {
  return (golden, precision, check) => {
    const compare = { unique: [...golden.compare.unique, ...further] };
    replay({ ...golden, compare }, precision, check, make(golden), observe(golden));
  };
}

/** The robust rules. */
export const robustRules: Readonly<Record<string, Compare>> = {
  median: rule(() => coordinateMedian()),
  "trimmed-mean": rule(
    ({ config }) => trimmedMean({ beta: Number(config.beta) }),
    ({ config }) =>
      (_, __, { updates }) => ({ trimmedPerEnd: trimmedPerEnd(Number(config.beta), updates.length) }),
    ["trimmedPerEnd"],
  ),
  krum: rule(krumOf, krumScored),
  "multi-krum": rule(krumOf, krumScored),
  "geometric-median": rule(
    (golden) => geometricMedian({ ...weighting(golden), nu: Number(golden.config.nu), steps: CONVERGED }),
    (golden) =>
      (_, round, { updates, weights, before, result }) => {
        const total = weights.reduce((a, b) => a + b, 0);
        const early = geometricMedian({
          ...weighting(golden),
          nu: Number(golden.config.nu),
          steps: Number(golden.config.earlySteps),
        });
        const context = { round: round.round, seed: 1, numClients: updates.length };
        return {
          objective: updates.reduce(
            (sum, { params }, k) =>
              sum + ((weights[k] ?? 0) / total) * Math.sqrt(squaredDistance(result.state, params)),
            0,
          ),
          afterEarlySteps: named(early.aggregate(before, updates, context).state),
        };
      },
    ["afterEarlySteps"],
  ),
  "norm-clipping": rule(
    (golden) => clipped(fedAvg(weighting(golden)), { norm: Number(golden.config.clip) }),
    ({ config }) =>
      (_, __, { updates, before }) => ({
        norms: byClient(updates, ({ params }) => moved(params, before)),
        factors: byClient(updates, ({ params }) => Math.min(1, Number(config.clip) / moved(params, before))),
      }),
  ),
};

function moved(params: Params, before: Params): number {
  return norm(sub(params, before));
}

function krumOf({ config }: Golden): Strategy<Params> {
  return multiKrum({ byzantine: Number(config.byzantine), keep: Number(config.keep) });
}

function krumScored({ config }: Golden): Observe<Params> {
  return (_, __, { updates }) => {
    const scores = krumScores(updates, Number(config.byzantine));
    const order = updates.map((_, k) => k).sort((a, b) => (scores[a] ?? 0) - (scores[b] ?? 0) || a - b);
    return {
      scores: byClient(updates, (_, k) => scores[k]),
      selected: order
        .slice(0, Number(config.keep))
        .sort((a, b) => a - b)
        .map((k) => updates[k]?.client.id),
    };
  };
}
