import { deviationOfMean } from "../federation/deviation.ts";
import { floats } from "../federation/low-rank.ts";
import type { StateTree, Strategy, Update } from "../federation/strategy.ts";
import { type Weighting, weightsOf } from "../federation/weights.ts";
import { type Clusters, kMeans } from "../tensor/clustering.ts";
import { type Matrix, matrix } from "../tensor/matrix.ts";
import { type Params, sortedNames, weightedMean } from "../tensor/params.ts";
import { stream } from "../tensor/random.ts";

/** Options of FL-TAC. */
export interface FlTacOptions {
  /** N, the number of tasks in the system, which has to be known; 1 is FedIT. */
  readonly tasks: number;
  /** How adapters count in the mean of their cluster. Default: "uniform", as in the paper. */
  readonly weighting?: Weighting;
}

/** State of FL-TAC. */
export interface FlTacState {
  readonly [key: string]: StateTree;
  /** v⁰, from which every adapter starts. */
  readonly initial: Params;
  /** v_n: the means of the clusters of this round, and older ones that somebody still holds. */
  readonly means: readonly Params[];
  /** Which mean each (client, task) holds. */
  readonly holds: { readonly [client: string]: number };
}

/**
 * FL-TAC: a client has one small adapter for each of its tasks and does not say which task it is; the server finds the
 * tasks by K-means over all adapters and averages inside the clusters. Here a client with several tasks takes part as
 * several clients, one a task.
 *
 * Ping et al., 2024, Algorithm 1. https://arxiv.org/abs/2404.15384
 */
export function flTac({ tasks, weighting = "uniform" }: FlTacOptions): Strategy<FlTacState> {
  if (!(Number.isInteger(tasks) && tasks >= 1))
    throw new RangeError(`flTac: tasks is ${tasks}, expected an integer of at least 1`);
  const heldBy = ({ initial, means, holds }: FlTacState, client: string): Params =>
    means[holds[client] ?? -1] ?? initial;
  return {
    name: "FL-TAC",
    paper: "Ping et al., 2024, Algorithm 1, https://arxiv.org/abs/2404.15384",
    declares: { personal: true, uniformWeights: weighting === "uniform" },
    init: (initial) => ({ initial, means: [], holds: {} }),
    broadcast: (state, { id }) => ({ params: heldBy(state, id) }), // v_{i,j}
    aggregate(state, updates, { seed, round }) {
      weightsOf("FL-TAC", updates, weighting);
      const clusters = kMeans(flattened(updates), tasks, stream({ seed, round, purpose: "fl-tac clusters" }));
      const groups = membersOf(updates, clusters);
      const means = groups.map((members) =>
        weightedMean(
          members.map(({ params }) => params),
          weightsOf("FL-TAC", members, weighting),
        ),
      ); // v_n = mean over V_n
      const submitted = new Map(updates.map(({ client }, i) => [client.id, clusters[i] ?? 0]));
      const absent = Object.entries(state.holds).filter(([id]) => !submitted.has(id));
      // Whoever did not take part keeps its adapter.
      const kept = [...new Set(absent.map(([, at]) => at))];
      const holds = {
        ...Object.fromEntries(absent.map(([id, at]) => [id, means.length + kept.indexOf(at)])),
        ...Object.fromEntries(submitted),
      };
      const older = kept.map((at) => state.means[at] ?? state.initial);
      return {
        state: { initial: state.initial, means: [...means, ...older], holds },
        measurements: Object.assign(
          {},
          ...groups.map((members, n) => clusterMeasurements(n, members, means[n] ?? state.initial)),
        ),
      };
    },
    global: (state, client) => heldBy(state, client?.id ?? ""),
  };

  /** Which cluster each member is in, and the distance of its mean from the mean of its members' weights. */
  function clusterMeasurements(n: number, members: readonly Update[], after: Params): Record<string, number> {
    const weights = weightsOf("FL-TAC", members, weighting);
    const deviations = deviationOfMean({ who: "FL-TAC", updates: members, weights, before: after, after });
    return Object.fromEntries([
      ...members.map(({ client }) => [`cluster/${client.id}`, n]),
      ...Object.entries(deviations).map(([key, value]) => [`${key}/cluster-${n}`, value]),
    ]);
  }
}

/** One row an adapter: all its tensors in order of name, neither scaled nor labelled. */
function flattened(updates: readonly Update[]): Matrix {
  const rows = updates.map(({ params }) =>
    sortedNames(params).flatMap((name) => {
      const tensor = params.get(name);
      return tensor ? [floats(tensor)] : [];
    }),
  );
  const length = rows[0]?.reduce((sum, part) => sum + part.length, 0) ?? 0;
  const points = matrix(updates.length, length);
  for (const [i, parts] of rows.entries()) {
    let at = i * length;
    for (const part of parts) {
      points.data.set(part, at);
      at += part.length;
    }
  }
  return points;
}

function membersOf(updates: readonly Update[], clusters: Clusters): Update[][] {
  const groups: Update[][] = [];
  for (const [i, update] of updates.entries()) {
    const cluster = clusters[i] ?? 0;
    groups[cluster] = [...(groups[cluster] ?? []), update];
  }
  return groups;
}
