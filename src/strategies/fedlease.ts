import { expertNames, loraMoe, routerName } from "../adapters/lora-moe.ts";
import { deviationOfMean } from "../federation/deviation.ts";
import { floats, isFactor, likeTensor, loraModules, loraPair, replaced } from "../federation/low-rank.ts";
import type { StateTree, Strategy, Update } from "../federation/strategy.ts";
import { weightsOf } from "../federation/weights.ts";
import { averageLinkage, type Clusters, silhouette } from "../tensor/clustering.ts";
import { type Matrix, matrix } from "../tensor/matrix.ts";
import { type Params, select, weightedMean } from "../tensor/params.ts";
import { stream } from "../tensor/random.ts";
import type { Tensor } from "../tensor/tensor.ts";

/** Options of FedLEASE. */
export interface FedleaseOptions {
  /** Rounds that clients train alone before they are clustered, at least 1. Default: 5. */
  readonly warmupRounds?: number;
  /** Most experts. Default: 4. */
  readonly maxExperts?: number;
}

/** State of FedLEASE. */
export interface FedleaseState {
  readonly [key: string]: StateTree;
  /** The parameters before round 1. */
  readonly initial: Params;
  /** Which expert each client trains, once it has been clustered. */
  readonly clusters: { readonly [client: string]: number };
  /** The pairs of each expert, and what its cluster trains beside them. */
  readonly experts: readonly Params[];
  /** The router of each cluster. */
  readonly routers: readonly Params[];
}

/** Keeps the cosine of a zero vector finite. */
const EPSILON = 1e-8;

/**
 * FedLEASE: after some rounds alone clients are clustered by the directions of their B; each cluster trains one LoRA
 * expert, which is averaged inside it. A client holds all experts and a router that weighs them for each token, and
 * trains its cluster's expert and router. Whoever was absent when clusters were made trains alone once more and joins
 * the nearest. What is trained beside the pairs belongs to the cluster, too.
 *
 * Wang et al., NeurIPS 2025, section 3. https://arxiv.org/abs/2509.15087
 */
export function fedlease({
  warmupRounds = 5,
  maxExperts = 4,
}: FedleaseOptions = {}): Strategy<FedleaseState> {
  if (!(warmupRounds >= 1)) {
    throw new RangeError(
      `fedlease: warmupRounds is ${warmupRounds}, expected at least 1: clusters need trained B`,
    );
  }
  return {
    name: "FedLEASE",
    paper: "Wang et al., NeurIPS 2025, section 3, https://arxiv.org/abs/2509.15087",
    declares: {
      personal: true,
      clientState: true,
      needsLowRank: true,
      uniformWeights: true,
    },
    adapters: (options) => [loraMoe(options)],
    init: (initial) => ({ initial, clusters: {}, experts: [], routers: [] }),
    broadcast({ clusters, experts, routers }, { id }) {
      const own = clusters[id];
      if (own === undefined) return { params: new Map(), stage: "alone" };
      const foreign = experts.filter((_, expert) => expert !== own);
      const placed = foreign.flatMap((expert, i) => [...atPlace(expert, i + 1)]);
      return {
        params: new Map([...(experts[own] ?? []), ...placed, ...(routers[own] ?? [])]),
        stage: "experts",
      };
    },
    stages: {
      alone: {
        start: ({ initial, memory }) => ({ params: replaced(initial, memory) }),
        upload: ({ params, context }) => ({
          params: context.round < warmupRounds ? new Map() : params,
          memory: params,
        }),
      },
      experts: {
        trainable: isOwn,
        upload: ({ params }) => ({ params: select(params, isOwn), memory: new Map() }),
      },
    },
    aggregate(state, updates, { seed }) {
      weightsOf("FedLEASE", updates, "uniform");
      const { initial, clusters } = state;
      const fresh = updates
        .filter(({ client, params }) => clusters[client.id] === undefined && params.size > 0)
        .sort((a, b) => (a.client.id < b.client.id ? -1 : 1));
      if (state.experts.length === 0) {
        if (fresh.length === 0) return { state };
        const chosen = chooseClusters(expertDistances(fresh.map(({ params }) => params)), maxExperts);
        const experts = Math.max(...chosen.clusters) + 1; // M
        const members = Array.from({ length: experts }, (_, m) =>
          fresh.filter((_, i) => chosen.clusters[i] === m),
        );
        const means = members.map(mean);
        const router = startRouter(initial, experts, seed);
        return {
          state: {
            initial,
            clusters: Object.fromEntries(fresh.map(({ client }, i) => [client.id, chosen.clusters[i] ?? 0])),
            experts: means,
            routers: means.map(() => router),
          },
          measurements: {
            ...clusterMeasurements(members, means),
            ...Object.fromEntries(chosen.silhouettes.map((score, i) => [`silhouette/${i + 2}`, score])),
          },
        };
      }
      const members = state.experts.map((_, m) => updates.filter(({ client }) => clusters[client.id] === m));
      const means = members.map((group) => (group.length > 0 ? mean(group) : new Map()));
      const experts = state.experts.map((expert, m) => replaced(expert, means[m] ?? new Map()));
      return {
        state: {
          initial,
          clusters: {
            ...clusters,
            ...Object.fromEntries(
              fresh.map(({ client, params }) => [client.id, nearest(params, state.experts)]),
            ),
          },
          experts,
          routers: state.routers.map((router, m) => replaced(router, means[m] ?? new Map())),
        },
        measurements: clusterMeasurements(members, experts),
      };
    },
    global: ({ initial, clusters, experts }, client) => experts[clusters[client?.id ?? ""] ?? -1] ?? initial,
  };
}

/** 1 − cos(vec B_i, vec B_j), averaged over modules. */
export function expertDistances(list: readonly Params[]): Matrix {
  const modules = loraModules(list[0] ?? new Map());
  const factors = list.map((params) => modules.map((module) => floats(loraPair(params, module).loraB)));
  const distances = matrix(list.length, list.length);
  for (let i = 0; i < list.length; i++) {
    for (let j = 0; j < list.length; j++) {
      if (i === j) continue;
      const cosines = modules.map((_, m) => cosine(factors[i]?.[m] ?? [], factors[j]?.[m] ?? []));
      distances.data[i * list.length + j] =
        1 - cosines.reduce((sum, value) => sum + value, 0) / Math.max(1, modules.length);
    }
  }
  return distances;
}

/** The clusters of best silhouette among 2 to `most`, of equal ones the fewest; and the silhouettes. One client is one cluster. */
export function chooseClusters(
  distances: Matrix,
  most: number,
): { readonly clusters: Clusters; readonly silhouettes: readonly number[] } {
  const options = Array.from({ length: Math.max(0, Math.min(most, distances.rows) - 1) }, (_, i) =>
    averageLinkage(distances, i + 2),
  );
  const silhouettes = options.map((clusters) => silhouette(distances, clusters));
  const best = silhouettes.indexOf(Math.max(...silhouettes));
  return { clusters: options[best] ?? Array.from({ length: distances.rows }, () => 0), silhouettes };
}

function cosine(x: ArrayLike<number>, y: ArrayLike<number>): number {
  let [xy, xx, yy] = [0, 0, 0];
  for (let i = 0; i < x.length; i++) {
    xy += x[i]! * y[i]!;
    xx += x[i]! * x[i]!;
    yy += y[i]! * y[i]!;
  }
  return xy / (Math.sqrt(xx) * Math.sqrt(yy) + EPSILON);
}

/** The expert whose B is nearest in direction. */
function nearest(params: Params, experts: readonly Params[]): number {
  const { data } = expertDistances([params, ...experts]);
  const row = [...data.subarray(1, experts.length + 1)];
  return row.indexOf(Math.min(...row));
}

/** The pairs of an expert at the m-th foreign place. */
function atPlace(expert: Params, m: number): Map<string, Tensor> {
  const placed = new Map<string, Tensor>();
  for (const module of loraModules(expert)) {
    const { loraA, loraB } = loraPair(expert, module);
    const names = expertNames(module, m);
    placed.set(names.loraA, loraA);
    placed.set(names.loraB, loraB);
  }
  return placed;
}

/** Whether a tensor is the client's to train: not of a foreign expert. */
function isOwn(name: string): boolean {
  return !/\.expert_\d+\.lora_[AB]\.weight$/.test(name);
}

/** Uniform in ±1/√in as a fresh linear layer, the same for all clusters. */
function startRouter(initial: Params, experts: number, seed: number): Params {
  return new Map(
    loraModules(initial).map((module): [string, Tensor] => {
      const { loraA } = loraPair(initial, module);
      const name = routerName(module);
      const width = loraA.shape[1] ?? 0;
      const router = matrix(2 * experts - 1, width);
      const bound = 1 / Math.sqrt(width);
      stream({ seed, purpose: `init/${name}` }).fillUniform(router.data, -bound, bound);
      return [name, likeTensor(loraA, router)];
    }),
  );
}

function mean(members: readonly Update[]): Params {
  return weightedMean(
    members.map(({ params }) => params),
    members.map(() => 1),
  );
}

/** The distance of each expert from the mean of its members' products. */
function clusterMeasurements(
  members: readonly (readonly Update[])[],
  experts: readonly Params[],
): Record<string, number> {
  const entries = members.flatMap((updates, m) => {
    if (updates.length === 0) return [];
    const after = select(experts[m] ?? new Map(), isFactor);
    const weights = updates.map(() => 1);
    const deviations = deviationOfMean({ who: "FedLEASE", updates, weights, before: after, after });
    return [
      ...Object.entries(deviations).map(([key, value]) => [`${key}/expert-${m}`, value] as const),
      ...updates.map(({ client }) => [`expert/${client.id}`, m] as const),
    ];
  });
  return Object.fromEntries(entries);
}
