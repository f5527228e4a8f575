import { TributaryError } from "../errors.ts";
import { measurements } from "../federation/deviation.ts";
import {
  factorMatrix,
  isFactor,
  type LoraPair,
  likeTensor,
  loraModules,
  loraPair,
  pairEntries,
} from "../federation/low-rank.ts";
import type { ClientRef, RoundContext, StateTree, Strategy, Update } from "../federation/strategy.ts";
import { weightsOf } from "../federation/weights.ts";
import { type LowRankTerm, productNormSquared, svdOfSum } from "../tensor/linalg.ts";
import { type Matrix, matrix } from "../tensor/matrix.ts";
import { mapParams, type Params, select, weightedMean } from "../tensor/params.ts";
import { stream } from "../tensor/random.ts";
import type { Tensor } from "../tensor/tensor.ts";

/** Options of FSLoRA. */
export interface FsLoraOptions {
  /**
   * I_i, the components that a client trains in a round, as many as its rank. Default: drawn without replacement from a
   * stream keyed by (seed, round, client).
   */
  readonly sketch?: (client: ClientRef, rank: number, context: RoundContext) => readonly number[];
}

/** State of FSLoRA. */
export interface FsLoraState {
  readonly [key: string]: StateTree;
  /** B̄, Ā at the largest rank, and what is trained beside them. */
  readonly params: Params;
  /** α: a client of rank k scales by α / k = (α / r)(r / k). */
  readonly alpha: number;
}

/**
 * FSLoRA: the server keeps a pair of rank r; in each round a client trains k_i of its components, drawn afresh and scaled
 * by r / k_i so that the sketched product B S_i A is BA in expectation. The mean of all moves, 0 where a client did not
 * train, is added to the pair. A sketched pair is the slice of the components at the scaling of its own rank.
 *
 * Fang et al., 2025, Algorithm 1 and equations 4 and 5. https://arxiv.org/abs/2501.19389
 */
export function fsLora({ sketch = drawn }: FsLoraOptions = {}): Strategy<FsLoraState> {
  return {
    name: "FSLoRA",
    paper: "Fang et al., 2025, Algorithm 1, https://arxiv.org/abs/2501.19389",
    declares: { moduleWise: true, unequalRanks: true, needsLowRank: true, uniformWeights: true },
    init: (params, clients) => ({ params, alpha: commonAlpha(clients) }),
    broadcast({ params }, client, context) {
      return { params: sliced(params, sketch(client, rankOf(params), context)) };
    },
    aggregate({ params, alpha }, updates, context) {
      weightsOf("FSLoRA", updates, "uniform");
      const rank = rankOf(params);
      const next = new Map(params);
      const others = updates.map((update) => select(update.params, (name) => !isFactor(name)));
      for (const [name, tensor] of weightedMean(
        others,
        updates.map(() => 1),
      ))
        next.set(name, tensor);
      const measured: { module: string; deviation: number; ideal: number }[] = [];
      for (const module of loraModules(params)) {
        const received = loraPair(params, module);
        const [a, b] = [factorMatrix(received.loraA), factorMatrix(received.loraB)];
        for (const { client, params: trained } of updates) {
          const pair = loraPair(trained, module);
          // B̄ + (1/K) Σ ΔB_i and Ā + (1/K) Σ ΔA_i, divided by all participants, not by those who hold a component
          addMoves({ a, b }, received, pair, sketch(client, rank, context), 1 / updates.length);
        }
        const after = { loraA: likeTensor(received.loraA, a), loraB: likeTensor(received.loraB, b) };
        for (const [name, tensor] of pairEntries(module, after)) next.set(name, tensor);
        measured.push({ module, ...distanceOf(updates, module, { a, b, scaling: alpha / rank }) });
      }
      return { state: { params: next, alpha }, measurements: measurements(measured) };
    },
    global: ({ params }) => params,
  };
}

function drawn({ id, rank: count }: ClientRef, rank: number, { seed, round }: RoundContext): number[] {
  if (count > rank) {
    throw new RangeError(`FSLoRA: client ${id} asks for ${count} components of a pair of rank ${rank}`);
  }
  const random = stream({ seed, round, client: id, purpose: "fslora sketch" });
  return random.sample(rank, count).sort((x, y) => x - y);
}

/** B[:, I] and A[I, :] of every pair; other tensors as they are. */
function sliced(params: Params, components: readonly number[]): Params {
  const slices = new Map<string, Tensor>();
  for (const module of loraModules(params)) {
    const { loraA, loraB } = loraPair(params, module);
    const [a, b] = [factorMatrix(loraA), factorMatrix(loraB)];
    const pair: LoraPair = {
      loraA: likeTensor(
        loraA,
        gather(components.length, a.cols, (i, j) => a.data[at(a, components, i, j)]),
      ),
      loraB: likeTensor(
        loraB,
        gather(b.rows, components.length, (i, j) => b.data[i * b.cols + (components[j] ?? 0)]),
      ),
    };
    for (const [name, tensor] of pairEntries(module, pair)) slices.set(name, tensor);
  }
  return mapParams(params, (tensor, name) => slices.get(name) ?? tensor);
}

const at = (a: Matrix, components: readonly number[], i: number, j: number): number =>
  (components[i] ?? 0) * a.cols + j;

function gather(rows: number, cols: number, of: (i: number, j: number) => number | undefined): Matrix {
  const out = matrix(rows, cols);
  for (let i = 0; i < rows; i++) for (let j = 0; j < cols; j++) out.data[i * cols + j] = of(i, j) ?? 0;
  return out;
}

/** Adds `share` times a client's moves to the components that it trained. */
function addMoves(
  { a, b }: { readonly a: Matrix; readonly b: Matrix },
  received: LoraPair,
  trained: LoraPair,
  components: readonly number[],
  share: number,
): void {
  const [oldA, oldB] = [factorMatrix(received.loraA), factorMatrix(received.loraB)];
  const [newA, newB] = [factorMatrix(trained.loraA), factorMatrix(trained.loraB)];
  components.forEach((component, k) => {
    for (let j = 0; j < a.cols; j++) {
      const to = component * a.cols + j;
      a.data[to] = a.data[to]! + share * (newA.data[k * a.cols + j]! - oldA.data[to]!);
    }
    for (let i = 0; i < b.rows; i++) {
      const to = i * b.cols + component;
      b.data[to] = b.data[to]! + share * (newB.data[i * newB.cols + k]! - oldB.data[to]!);
    }
  });
}

/** ‖(α/r) B̄Ā − mean of (α/k_i) B_i A_i‖ over the trained slices, and the norm of that mean. */
function distanceOf(
  updates: readonly Update[],
  module: string,
  { a, b, scaling }: { readonly a: Matrix; readonly b: Matrix; readonly scaling: number },
): { readonly deviation: number; readonly ideal: number } {
  const trained = updates.map(({ params, client }): LowRankTerm => {
    const { loraA, loraB } = loraPair(params, module);
    return {
      coefficient: client.scaling / updates.length,
      left: factorMatrix(loraB),
      right: factorMatrix(loraA),
    };
  });
  // The difference is small beside its terms: its norm by singular values, which do not cancel.
  const { singularValues } = svdOfSum([...trained, { coefficient: -scaling, left: b, right: a }], 0);
  return {
    deviation: Math.sqrt(singularValues.reduce((sum, sigma) => sum + sigma * sigma, 0)),
    ideal: Math.sqrt(productNormSquared(trained)),
  };
}

/** r */
function rankOf(params: Params): number {
  const [module] = loraModules(params);
  return module === undefined ? 0 : (loraPair(params, module).loraA.shape[0] ?? 0);
}

function commonAlpha(clients: readonly ClientRef[]): number {
  const [first] = clients;
  const alpha = (first?.rank ?? 0) * (first?.scaling ?? 1);
  const other = clients.find(({ rank, scaling }) => Math.abs(rank * scaling - alpha) > 1e-9 * alpha);
  if (other) {
    throw new TributaryError(
      "unequal-scaling",
      `FSLoRA: client ${other.id} has scaling ${other.scaling} at rank ${other.rank}, expected ${alpha} / rank; scale by alpha / rank, not by its root`,
    );
  }
  return alpha;
}
