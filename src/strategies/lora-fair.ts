import { deviationOfMean } from "../federation/deviation.ts";
import { factorMatrix, likeTensor, loraModules, loraPair } from "../federation/low-rank.ts";
import type { Strategy, Update } from "../federation/strategy.ts";
import { type Weighting, weightsOf } from "../federation/weights.ts";
import { productNormSquared, symmetricEigen } from "../tensor/linalg.ts";
import { type Matrix, matmul, matrix } from "../tensor/matrix.ts";
import { type Params, weightedMean } from "../tensor/params.ts";
import { products, residual } from "./fedex-lora.ts";

/** Options of LoRA-FAIR. */
export interface LoraFairOptions {
  /** Default: "samples". */
  readonly weighting?: Weighting;
  /** Weight λ of ‖ΔB‖²; large values give FedIT. Default: 0.01. */
  readonly lambda?: number;
  /** Maximizes cos(T, X), as in the paper, by steps of gradient descent from ΔB = 0, instead of minimizing ‖T − X‖². */
  readonly cosine?: FairDescent;
}

/** How the cosine is maximized. */
export interface FairDescent {
  /** Default: 1000. */
  readonly steps?: number;
  /** Default: 0.01. */
  readonly learningRate?: number;
}

/**
 * LoRA-FAIR: the server keeps the mean Ā and corrects B̄ by ΔB, so that X = (B̄ + ΔB)Ā comes closer to the mean product
 * T = Σ p_k B_k A_k; clients start from the corrected pair, and the base never changes. The paper maximizes the cosine of
 * T and X, which does not see the scale of B; by default the squared distance is minimized, in closed form.
 *
 * Bian et al., ICCV 2025, section 3. https://arxiv.org/abs/2411.14961
 */
export function loraFair({
  weighting = "samples",
  lambda = 0.01,
  cosine,
}: LoraFairOptions = {}): Strategy<Params> {
  if (!(lambda >= 0)) throw new RangeError(`loraFair: lambda is ${lambda}, expected a number >= 0`);
  return {
    name: "LoRA-FAIR",
    paper: "Bian et al., ICCV 2025, section 3, https://arxiv.org/abs/2411.14961",
    declares: { moduleWise: true, needsLowRank: true, uniformWeights: weighting === "uniform" },
    init: (adapter) => adapter,
    broadcast: (adapter) => ({ params: adapter }),
    aggregate(before, updates) {
      const weights = weightsOf("LoRA-FAIR", updates, weighting); // n_k
      const average = weightedMean(
        updates.map(({ params }) => params),
        weights,
      ); // B̄, Ā
      const after = new Map(average);
      for (const module of loraModules(average)) {
        const fit = fairFit(updates, weights, module, average);
        const change = cosine ? descended(fit, lambda, cosine) : solved(fit, lambda); // ΔB
        const { loraB } = loraPair(average, module);
        const data = change.data.map((x, i) => x + fit.mean.data[i]!);
        after.set(`${module}.lora_B.weight`, likeTensor(loraB, { ...change, data }));
      }
      return {
        state: after,
        measurements: deviationOfMean({ who: "LoRA-FAIR", updates, weights, before, after }),
      };
    },
    global: (adapter) => adapter,
  };
}

/** What the correction of one module depends on; nothing of the size of the weight. */
export interface FairFit {
  /** B̄ [out, r] */
  readonly mean: Matrix;
  /** ĀĀᵀ [r, r] */
  readonly gram: Matrix;
  /** (T − B̄Ā)Āᵀ [out, r], from centred factors */
  readonly residual: Matrix;
  /** ‖T‖ */
  readonly idealNorm: number;
}

/** The numbers of one module's correction. */
export function fairFit(
  updates: readonly Update[],
  weights: readonly number[],
  module: string,
  average: Params,
): FairFit {
  const pair = loraPair(average, module);
  const [mean, a] = [factorMatrix(pair.loraB), factorMatrix(pair.loraA)];
  const sum = matrix(mean.rows, mean.cols);
  for (const { coefficient, left, right } of residual(updates, weights, module, average)) {
    const term = matmul(left, matmul(right, a, { transposeB: true }));
    for (let i = 0; i < sum.data.length; i++) sum.data[i] = sum.data[i]! + coefficient * term.data[i]!;
  }
  return {
    mean,
    gram: matmul(a, a, { transposeB: true }),
    residual: sum,
    idealNorm: Math.sqrt(productNormSquared(products(updates, weights, module))),
  };
}

/** 1 − cos(T, X) and its gradient −[TĀᵀ/(‖T‖‖X‖) − ⟨T, X⟩B′ĀĀᵀ/(‖T‖‖X‖³)] at B′ = B̄ + ΔB, X = B′Ā; 0 where a norm is 0. */
export function oneMinusCosine(
  { mean, gram, residual: r, idealNorm }: FairFit,
  change: Matrix,
): { readonly value: number; readonly gradient: Matrix } {
  const b = { ...mean, data: mean.data.map((x, i) => x + change.data[i]!) };
  const own = matmul(b, gram).data; // B′ĀĀᵀ
  const target = matmul(mean, gram).data.map((x, i) => x + r.data[i]!); // TĀᵀ
  let [inner, squared] = [0, 0];
  for (let i = 0; i < own.length; i++) {
    inner += target[i]! * b.data[i]!; // ⟨T, X⟩
    squared += own[i]! * b.data[i]!; // ‖X‖²
  }
  const norms = idealNorm * Math.sqrt(Math.max(0, squared));
  if (norms === 0) return { value: 1, gradient: matrix(mean.rows, mean.cols) };
  const gradient = own.map((x, i) => -(target[i]! - (inner / squared) * x) / norms);
  return { value: 1 - inner / norms, gradient: { ...mean, data: gradient } };
}

/** ΔB = (T − B̄Ā)Āᵀ(ĀĀᵀ + λI)⁻¹, by the pseudoinverse where that is singular. */
function solved({ gram, residual: r }: FairFit, lambda: number): Matrix {
  const { values, vectors } = symmetricEigen(gram);
  const noise = 2 ** -52 * gram.rows * ((values[0] ?? 0) + lambda);
  const along = matmul(r, vectors);
  for (let i = 0; i < along.data.length; i++) {
    const value = values[i % along.cols]! + lambda;
    along.data[i] = value > noise ? along.data[i]! / value : 0;
  }
  return matmul(along, vectors, { transposeB: true });
}

/** Gradient descent on 1 − cos(T, X) + λ‖ΔB‖². */
function descended(fit: FairFit, lambda: number, { steps = 1000, learningRate = 0.01 }: FairDescent): Matrix {
  const change = matrix(fit.mean.rows, fit.mean.cols);
  for (let step = 0; step < steps; step++) {
    const { gradient } = oneMinusCosine(fit, change);
    for (let i = 0; i < change.data.length; i++) {
      change.data[i] = change.data[i]! - learningRate * (gradient.data[i]! + 2 * lambda * change.data[i]!);
    }
  }
  return change;
}
