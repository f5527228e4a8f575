import { measurements } from "../federation/deviation.ts";
import {
  factorMatrix,
  factorOf,
  isFactor,
  type LoraPair,
  likeTensor,
  loraModules,
  loraPair,
  meanOfOthers,
  productChange,
  replaced,
  restarted,
  withoutProducts,
} from "../federation/low-rank.ts";
import type { BaseChange, StateTree, Strategy, Update } from "../federation/strategy.ts";
import { commonScaling, normalized, type Weighting, weightsOf } from "../federation/weights.ts";
import {
  type LowRankTerm,
  type PartialSvd,
  productInner,
  productNormSquared,
  type Svd,
  sumInner,
  svdOfSum,
  truncate,
} from "../tensor/linalg.ts";
import { type Factor, type Matrix, matmul, matrix } from "../tensor/matrix.ts";
import { type Params, select, weightedMean } from "../tensor/params.ts";
import type { Tensor } from "../tensor/tensor.ts";

const paper = "Singhal et al., ACL 2025, https://arxiv.org/abs/2410.09432";

/** Options of FedEx-LoRA. */
export interface FedexLoraOptions {
  /** The paper counts clients alike. Default: "samples". */
  readonly weighting?: Weighting;
  /** Rank q of the residual that is sent; 0 is FedIT. Default: all of it, which makes the aggregate exact. */
  readonly residualRank?: number;
}

/**
 * FedEx-LoRA: averages A and B, then adds what that average got wrong, R = Σ p_k B_k A_k − B̄Ā, to the frozen weights:
 * the global model is the mean of the clients' models although the adapter keeps its rank. With `residualRank`, the
 * best approximation of R of that rank.
 *
 * Singhal et al., ACL 2025, equations 5 to 16. https://arxiv.org/abs/2410.09432
 */
export function fedexLora({
  weighting = "samples",
  residualRank = Number.POSITIVE_INFINITY,
}: FedexLoraOptions = {}): Strategy<Params> {
  return {
    name: "FedEx-LoRA",
    paper: `${paper}, equations 5 to 16`,
    declares: {
      moduleWise: true,
      changesBase: true,
      needsLowRank: true,
      uniformWeights: weighting === "uniform",
    },
    init: (adapter) => adapter,
    broadcast: (adapter) => ({ params: adapter }),
    aggregate(_, updates) {
      const weights = weightsOf("FedEx-LoRA", updates, weighting); // n_k
      const adapter = weightedMean(
        updates.map(({ params }) => params),
        weights,
      ); // B̄, Ā
      const corrections = loraModules(adapter).map((module) => ({
        module,
        change: residual(updates, weights, module, adapter), // R
        idealSquared: squaredWith(loraPair(adapter, module)), // ‖R + B̄Ā‖²
      }));
      return { state: adapter, ...intoBase("FedEx-LoRA", updates, corrections, residualRank) };
    },
    global: (adapter) => adapter,
  };
}

/** State of `fedexLoraReinit`. */
export interface FedexReinitState {
  readonly [key: string]: StateTree;
  /** The parameters before round 1. */
  readonly initial: Params;
  /** Means of what is trained beside the factors. */
  readonly others: Params;
}

/**
 * FedEx-LoRA, assignment "re-initialize": the whole mean product goes into the frozen weights, and all clients restart
 * from B = 0 and one fresh A, drawn from (seed, round).
 *
 * Singhal et al., ACL 2025, section 6. https://arxiv.org/abs/2410.09432
 */
export function fedexLoraReinit({
  weighting = "samples",
}: Pick<FedexLoraOptions, "weighting"> = {}): Strategy<FedexReinitState> {
  return {
    name: "FedEx-LoRA, re-initialized",
    paper: `${paper}, section 6`,
    declares: {
      moduleWise: true,
      changesBase: true,
      needsLowRank: true,
      uniformWeights: weighting === "uniform",
    },
    init: (initial) => ({ initial, others: select(initial, (name) => !isFactor(name)) }),
    broadcast: ({ others }) => ({ params: others }),
    local: {
      start: ({ initial, received, context: { seed, round } }) => ({
        params: replaced(
          round === 1 ? initial : restarted(initial, { seed, round, purpose: "fedex-lora restart" }),
          received.params,
        ),
      }),
    },
    aggregate({ initial }, updates) {
      const weights = weightsOf("FedEx-LoRA", updates, weighting);
      const corrections = loraModules(initial).map((module): Correction => {
        const change = products(updates, weights, module); // T = Σ p_k B_k A_k
        return { module, change, idealSquared: (_, changeSquared) => changeSquared };
      });
      return {
        state: { initial, others: meanOfOthers(updates, weights) },
        ...intoBase("FedEx-LoRA", updates, corrections),
      };
    },
    global: ({ initial, others }) => replaced(initial, others),
  };
}

/** State of `fedexLoraKeepLocal`. */
export interface FedexKeepLocalState {
  readonly [key: string]: StateTree;
  /** The parameters before round 1: the factors of a client that has never taken part. */
  readonly initial: Params;
  /** Means of what is trained beside the factors. */
  readonly others: Params;
  /** The factors B_k, A_k that each client trained last. */
  readonly factors: { readonly [client: string]: Params };
}

/**
 * FedEx-LoRA, assignment "keep local": every client goes on from its own factors, on a base of its own
 * W⁽ᵏ⁾ = W̄ − s B_k A_k, so that all effective weights are the mean W̄; W̄ changes by s Σ p_k (B′_k A′_k − B_k A_k), primes
 * after training. The paper leaves open what absent clients do: they keep their factors and rebuild their base.
 *
 * Singhal et al., ACL 2025, section 6. https://arxiv.org/abs/2410.09432
 */
export function fedexLoraKeepLocal({
  weighting = "samples",
}: Pick<FedexLoraOptions, "weighting"> = {}): Strategy<FedexKeepLocalState> {
  return {
    name: "FedEx-LoRA, local factors kept",
    paper: `${paper}, section 6`,
    declares: {
      moduleWise: true,
      changesBase: true,
      needsLowRank: true,
      clientState: true,
      uniformWeights: weighting === "uniform",
    },
    init: (initial) => ({ initial, others: select(initial, (name) => !isFactor(name)), factors: {} }),
    broadcast: ({ others }) => ({ params: others }),
    local: {
      remember: (_, initial) => select(initial, isFactor),
      start: ({ initial, memory, received }) => ({
        params: replaced(replaced(initial, memory), received.params),
      }),
      personalBase: ({ memory, client }) => [productChange(memory, -client.scaling)], // −s B_k A_k
      upload: ({ params }) => ({ params, memory: select(params, isFactor) }),
    },
    aggregate({ initial, factors }, updates) {
      const weights = weightsOf("FedEx-LoRA", updates, weighting);
      const p = normalized(weights);
      const corrections = loraModules(initial).map((module) => {
        const change = updates.flatMap(({ params, client }, k) => [
          term(p[k] ?? 0, params, module), // p_k B′_k A′_k
          term(-(p[k] ?? 0), factors[client.id] ?? initial, module), // − p_k B_k A_k
        ]);
        const ideal = products(updates, weights, module);
        return { module, change, idealSquared: () => productNormSquared(ideal) };
      });
      const trained = updates.map(({ client, params }) => [client.id, select(params, isFactor)]);
      return {
        state: {
          initial,
          others: meanOfOthers(updates, weights),
          factors: { ...factors, ...Object.fromEntries(trained) },
        },
        ...intoBase("FedEx-LoRA", updates, corrections),
      };
    },
    global: ({ initial, others }) => replaced(withoutProducts(initial), others),
  };
}

/** The terms of T = Σ p_k B_k A_k. */
export function products(
  updates: readonly Update[],
  weights: readonly number[],
  module: string,
): LowRankTerm[] {
  const p = normalized(weights);
  return updates.map(({ params }, k) => term(p[k] ?? 0, params, module));
}

/**
 * The terms of R = Σ p_k B_k A_k − B̄Ā, centred: R = Σ_{k<K} p_k (B_k − B̄)(A_k − A_K). There are (K − 1) r columns, and
 * no two large products cancel.
 */
export function residual(
  updates: readonly Update[],
  weights: readonly number[],
  module: string,
  mean: Params,
): LowRankTerm[] {
  const p = normalized(weights);
  const center = factorMatrix(loraPair(mean, module).loraB); // B̄
  const last = updates.at(-1)?.params ?? mean;
  const anchor = factorMatrix(loraPair(last, module).loraA); // A_K
  return updates.slice(0, -1).map(({ params }, k) => {
    const { left, right } = term(p[k] ?? 0, params, module);
    return { coefficient: p[k] ?? 0, left: minus(left, center), right: minus(right, anchor) };
  });
}

interface Correction {
  readonly module: string;
  /** Terms of the change of the base, unscaled. */
  readonly change: readonly LowRankTerm[];
  /** ‖T‖², unscaled, from the change and its ‖·‖². */
  idealSquared(change: readonly LowRankTerm[], changeSquared: number): number;
}

/** ‖X + BA‖² = ‖X‖² + 2⟨X, BA⟩ + ‖BA‖² */
function squaredWith({ loraA, loraB }: LoraPair): Correction["idealSquared"] {
  const pair = { left: factorOf(loraB), right: factorOf(loraA) };
  return (change, changeSquared) => {
    const inner = change.length > 0 ? sumInner(change, pair) : 0;
    return Math.max(0, changeSquared + 2 * inner + productInner(pair, pair));
  };
}

function squares(values: Float64Array): number {
  return values.reduce((sum, sigma) => sum + sigma * sigma, 0);
}

/** W ← W + s·change at rank q at most, in factors or, where that is cheaper, dense; and what was cut off. */
function intoBase(
  who: string,
  updates: readonly Update[],
  corrections: readonly Correction[],
  q: number = Number.POSITIVE_INFINITY,
): { readonly base: readonly BaseChange[]; readonly measurements: Readonly<Record<string, number>> } {
  const scale = commonScaling(who, updates); // s = α / r
  const left = new Map<string, Tensor>();
  const right = new Map<string, Tensor>();
  const difference = new Map<string, Tensor>();
  const measured: { module: string; deviation: number; ideal: number }[] = [];
  for (const { module, change, idealSquared } of corrections) {
    const like = loraPair(updates[0]?.params ?? new Map(), module).loraB;
    const svd = change.length > 0 ? svdOfSum(change, q) : undefined;
    const norm = Math.sqrt(idealSquared(change, svd ? squares(svd.singularValues) : 0)); // ‖T‖
    const sent = svd && aboveNoise(svd, norm, q);
    const cut = sent ? squares(sent.rest) : 0;
    measured.push({ module, deviation: scale * Math.sqrt(cut), ideal: scale * norm });
    if (!sent || sent.singularValues.length === 0) continue;
    const factor = scaledColumns(sent); // UΣ
    const name = `${module}.weight`;
    if (factor.cols * (factor.rows + sent.vt.cols) < factor.rows * sent.vt.cols) {
      left.set(name, likeTensor(like, factor));
      right.set(name, likeTensor(like, sent.vt));
    } else {
      const dense = matmul(factor, sent.vt);
      difference.set(name, likeTensor(like, { ...dense, data: dense.data.map((x) => scale * x) }));
    }
  }
  const base: BaseChange[] = [];
  if (left.size > 0) base.push({ kind: "factors", left, right, scale });
  if (difference.size > 0) base.push({ kind: "dense", difference });
  return { base, measurements: measurements(measured) };
}

/**
 * The q leading components and the singular values of the rest, without what rounding leaves of a sum that is zero:
 * components below the last bit of the ideal product.
 */
function aboveNoise(svd: PartialSvd, norm: number, q: number): Svd & { readonly rest: Float64Array } {
  const noise = 2 ** -52 * Math.max(svd.u.rows, svd.vt.cols) * norm;
  const real = svd.singularValues.filter((sigma) => sigma > noise);
  return { ...truncate(svd, Math.min(q, real.length)), rest: real.slice(q) };
}

function scaledColumns({ u, singularValues }: Svd): Matrix {
  const scaled = matrix(u.rows, u.cols);
  for (let i = 0; i < scaled.data.length; i++) scaled.data[i] = u.data[i]! * singularValues[i % u.cols]!;
  return scaled;
}

function term(coefficient: number, params: Params, module: string): LowRankTerm {
  const { loraA, loraB } = loraPair(params, module);
  return { coefficient, left: factorOf(loraB), right: factorOf(loraA) };
}

function minus(x: Factor, y: Matrix): Matrix {
  const data = y.data.slice();
  for (let i = 0; i < data.length; i++) data[i] = x.data[i]! - data[i]!;
  return { rows: y.rows, cols: y.cols, data };
}
