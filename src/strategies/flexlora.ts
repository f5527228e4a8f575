import { measurements } from "../federation/deviation.ts";
import {
  factorOf,
  isFactor,
  type LoraPair,
  likeTensor,
  loraModules,
  loraPair,
  pairEntries,
  prefix,
  scaledB,
} from "../federation/low-rank.ts";
import type { ClientRef, StateTree, Strategy, Update } from "../federation/strategy.ts";
import { normalized, type Weighting, weightsOf } from "../federation/weights.ts";
import { type PartialSvd, type Svd, svdOfSum } from "../tensor/linalg.ts";
import { type Matrix, matrix } from "../tensor/matrix.ts";
import { mapParams, type Params, select, weightedMean } from "../tensor/params.ts";

/** Options of FlexLoRA. */
export interface FlexLoraOptions {
  /** Default: "samples", n_i. */
  readonly weighting?: Weighting;
}

/** State of FlexLoRA. */
export interface FlexLoraState {
  readonly [key: string]: StateTree;
  /** B = UΣ and A = Vᵀ of the mean product at the largest rank, with scaling 1; other tensors as they are. */
  readonly params: Params;
  /** The enrolled ranks r_i, largest first. */
  readonly ranks: readonly number[];
  /** s_i of the clients of the largest rank. */
  readonly scaling: number;
}

/**
 * FlexLoRA: the server averages the products of the clients' factors, takes one singular value decomposition of the
 * mean, and hands each client the best approximation at its own rank.
 *
 * Bai et al., NeurIPS 2024, section 3.2. https://arxiv.org/abs/2402.11505
 */
export function flexLora({ weighting = "samples" }: FlexLoraOptions = {}): Strategy<FlexLoraState> {
  return {
    name: "FlexLoRA",
    paper: "Bai et al., NeurIPS 2024, section 3.2, https://arxiv.org/abs/2402.11505",
    declares: {
      moduleWise: true,
      unequalRanks: true,
      needsLowRank: true,
      uniformWeights: weighting === "uniform",
    },
    init(initial, clients) {
      const ranks = [...new Set(clients.map(({ rank }) => rank))].sort((a, b) => b - a);
      const scaling = clients.find(({ rank }) => rank === ranks[0])?.scaling ?? 1;
      return { params: scaledB(initial, scaling), ranks, scaling };
    },
    broadcast: ({ params }, { rank, scaling }) => ({ params: heldBy(params, rank, scaling) }),
    aggregate(state, updates) {
      const weights = weightsOf("FlexLoRA", updates, weighting); // n_i
      const next = new Map(
        weightedMean(
          updates.map(({ params }) => select(params, (name) => !isFactor(name))),
          weights,
        ),
      );
      const measured: { module: string; deviation: number; ideal: number }[] = [];
      for (const module of loraModules(state.params)) {
        const svd = meanProduct(updates, weights, module, state.ranks[0]); // W_g = U Σ Vᵀ
        const received = loraPair(state.params, module);
        for (const [name, tensor] of pairEntries(module, leftHeavy(svd, received))) next.set(name, tensor);
        for (const rank of state.ranks) {
          const label = rank === state.ranks[0] ? module : `${module}/rank-${rank}`;
          measured.push({ module: label, deviation: tail(svd, rank), ideal: tail(svd, 0) });
        }
      }
      const params = mapParams(state.params, (tensor, name) => next.get(name) ?? tensor);
      return { state: { ...state, params }, measurements: measurements(measured) };
    },
    global: ({ params, ranks, scaling }, client?: ClientRef) =>
      heldBy(params, client?.rank ?? ranks[0] ?? 0, client?.scaling ?? scaling),
  };
}

/** The singular values of W_g = Σ p_i s_i B_i A_i and the vectors of the `kept` largest, without forming W_g. */
export function meanProduct(
  updates: readonly Update[],
  weights: readonly number[],
  module: string,
  kept: number = Number.POSITIVE_INFINITY,
): PartialSvd {
  const p = normalized(weights);
  return svdOfSum(
    updates.map(({ params, client }, i) => {
      const { loraA, loraB } = loraPair(params, module);
      return {
        coefficient: (p[i] ?? 0) * client.scaling,
        left: factorOf(loraB),
        right: factorOf(loraA),
      };
    }),
    kept,
  );
}

/** Error of the best approximation of a rank: sqrt(Σ_{j>rank} σ_j²) (Eckart and Young). */
export function tail({ singularValues }: Svd, rank: number): number {
  return Math.sqrt(singularValues.slice(rank).reduce((sum, sigma) => sum + sigma * sigma, 0));
}

/** B_i = U[:, :r_i] Σ[:r_i] / s_i and A_i = Vᵀ[:r_i] */
function heldBy(params: Params, rank: number, scaling: number): Params {
  return scaledB(prefix(params, rank), 1 / scaling);
}

/**
 * B = UΣ and A = Vᵀ with the shapes of `like`. Where the decomposition has fewer components, the surplus columns of B
 * are 0 and the surplus rows of A complete an orthonormal set: were both 0, no gradient would ever reach them.
 */
export function leftHeavy({ u, singularValues, vt }: Svd, like: LoraPair): LoraPair {
  const [rank = 0, width = 0] = like.loraA.shape;
  const kept = Math.min(rank, singularValues.length);
  const b = matrix(u.rows, rank);
  for (let i = 0; i < u.rows; i++) {
    for (let j = 0; j < kept; j++) b.data[i * rank + j] = u.data[i * u.cols + j]! * singularValues[j]!;
  }
  const a = matrix(rank, width);
  a.data.set(vt.data.subarray(0, kept * width));
  for (let row = kept; row < rank; row++) completeRow(a, row);
  return { loraA: likeTensor(like.loraA, a), loraB: likeTensor(like.loraB, b) };
}

/** Sets a row to the unit vector that the rows above cover least, made orthogonal to them; to a unit vector if they cover all. */
function completeRow({ cols, data }: Matrix, row: number): void {
  const covered = new Float64Array(cols); // squared length of each unit vector's projection
  for (let i = 0; i < row * cols; i++) covered[i % cols] = covered[i % cols]! + data[i]! ** 2;
  const pick = covered.indexOf(covered.reduce((least, x) => Math.min(least, x), Number.POSITIVE_INFINITY));
  const fresh = data.subarray(row * cols, (row + 1) * cols);
  fresh[pick] = 1;
  if (row >= cols) return;
  for (let pass = 0; pass < 2; pass++) {
    for (let i = 0; i < row; i++) {
      const other = data.subarray(i * cols, (i + 1) * cols);
      const along = fresh.reduce((sum, x, j) => sum + x * other[j]!, 0);
      for (let j = 0; j < cols; j++) fresh[j] = fresh[j]! - along * other[j]!;
    }
  }
  const length = Math.sqrt(fresh.reduce((sum, x) => sum + x * x, 0));
  for (let j = 0; j < cols; j++) fresh[j] = fresh[j]! / length;
}
