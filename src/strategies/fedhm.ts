import { factorized } from "../adapters/factorized.ts";
import { measurements } from "../federation/deviation.ts";
import {
  factorMatrix,
  factorOf,
  floats,
  floatTensor,
  isFactor,
  likeTensor,
  loraModules,
  loraPair,
  meanOfOthers,
  pairEntries,
  scaledB,
} from "../federation/low-rank.ts";
import type { ClientRef, StateTree, Strategy } from "../federation/strategy.ts";
import { normalized, type Weighting, weightsOf } from "../federation/weights.ts";
import { type Svd, svd, svdOfSum } from "../tensor/linalg.ts";
import { firstColumns, firstRows, type Matrix, matmul, matrix, matrixOf } from "../tensor/matrix.ts";
import { mapParams, type Params, select } from "../tensor/params.ts";
import type { Tensor } from "../tensor/tensor.ts";
import { tail } from "./flexlora.ts";

/** Options of FedHM. */
export interface FedHmOptions {
  /** γ of each client: dealt in turn, or by name. Width q = out / γ, rounded, at most out and in. Default: [1]. */
  readonly ratios?: readonly number[] | Readonly<Record<string, number>>;
  /** Endings of the names of matrices that stay whole. Default: the heads of classifiers and of language models. */
  readonly whole?: readonly string[];
  /** The release counts clients alike. Default: "uniform". */
  readonly weighting?: Weighting;
}

/** State of FedHM. */
export interface FedHmState {
  readonly [key: string]: StateTree;
  /** UΣ^½ and Σ^½Vᵀ of every factorized weight, at full width; other tensors as they are. */
  readonly params: Params;
  /** γ_k */
  readonly ratios: { readonly [client: string]: number };
}

/**
 * FedHM: clients train whole weights as products of factors as wide as they can afford; the server averages the products
 * and cuts the mean to each client's width again. The factors stand for the weight itself, not for its change, so a
 * narrow client holds a poor copy of a pretrained model.
 *
 * Yao et al., 2021, Algorithm 1. https://arxiv.org/abs/2111.14655
 */
export function fedHm({
  ratios = [1],
  whole = ["classifier.weight", "score.weight", "lm_head.weight"],
  weighting = "uniform",
}: FedHmOptions = {}): Strategy<FedHmState> {
  const isFactorized = (name: string, { shape }: Tensor): boolean =>
    shape.length === 2 && name.endsWith(".weight") && !whole.some((ending) => name.endsWith(ending));
  return {
    name: "FedHM",
    paper: "Yao et al., 2021, Algorithm 1, https://arxiv.org/abs/2111.14655",
    declares: { unequalRanks: true, uniformWeights: weighting === "uniform" },
    adapters: (options) => [factorized(options)],
    init(initial, clients) {
      const params = [...initial].flatMap(([name, tensor]): [string, Tensor][] => {
        if (!isFactorized(name, tensor)) return [[name, tensor]];
        return balanced(moduleOf(name), svd(matrixOf(tensor)), tensor);
      });
      const ratioOf = ({ id }: ClientRef, k: number): [string, number] => {
        const ratio = (isList(ratios) ? ratios[k % ratios.length] : ratios[id]) ?? Number.NaN;
        if (!(ratio >= 1))
          throw new RangeError(`fedHm: the ratio of ${id} is ${ratio}, expected a number >= 1`);
        return [id, ratio];
      };
      return { params: new Map(params), ratios: Object.fromEntries(clients.map(ratioOf)) };
    },
    broadcast: ({ params, ratios: all }, { id, scaling }) => ({
      params: scaledB(cut(params, all[id] ?? 1), 1 / scaling),
    }),
    local: {
      // The factors are the weight: what is frozen below them is taken away.
      personalBase: ({ initial }) => [
        { kind: "dense", difference: mapParams(select(initial, isFactorized), negated) },
      ],
    },
    aggregate({ params: before, ratios: all }, updates) {
      const weights = weightsOf("FedHM", updates, weighting);
      const p = normalized(weights);
      const next = new Map([...before, ...meanOfOthers(updates, weights)]);
      const measured: { module: string; deviation: number; ideal: number }[] = [];
      for (const module of loraModules(before)) {
        const terms = updates.map(({ params, client }, k) => {
          const { loraA, loraB } = loraPair(params, module);
          const coefficient = (p[k] ?? 0) * client.scaling;
          return { coefficient, left: factorOf(loraB), right: factorOf(loraA) };
        });
        const mean = svdOfSum(terms); // Σ p_k B_k A_k
        const { loraB, loraA } = loraPair(before, module);
        for (const [name, tensor] of balanced(module, mean, loraB)) next.set(name, tensor);
        measured.push({ module, deviation: 0, ideal: tail(mean, 0) });
        for (const ratio of new Set(Object.values(all))) {
          const width = widthOf(ratio, loraB.shape[0] ?? 0, loraA.shape[1] ?? 0);
          measured.push({
            module: `${module}/ratio-${ratio}`,
            deviation: tail(mean, width),
            ideal: tail(mean, 0),
          });
        }
      }
      return { state: { params: next, ratios: all }, measurements: measurements(measured) };
    },
    global: ({ params, ratios: all }, client) => merged(client ? cut(params, all[client.id] ?? 1) : params),
  };
}

/** q = min(round(out / γ), out, in), at least 1; a half rounds to the even neighbour, as in the release. */
function widthOf(ratio: number, out: number, width: number): number {
  const share = out / ratio;
  const below = Math.floor(share);
  const rounded = share - below === 0.5 ? below + (below % 2) : Math.round(share);
  return Math.max(1, Math.min(rounded, out, width));
}

/** UΣ^½ and Σ^½Vᵀ at full width, zeros where the decomposition has fewer components. */
function balanced(module: string, { u, singularValues, vt }: Svd, like: Tensor): [string, Tensor][] {
  const full = Math.min(u.rows, vt.cols);
  const [b, a] = [matrix(u.rows, full), matrix(full, vt.cols)];
  singularValues.forEach((sigma, j) => {
    const root = Math.sqrt(sigma);
    for (let i = 0; i < u.rows; i++) b.data[i * full + j] = root * u.data[i * u.cols + j]!;
    for (let i = 0; i < vt.cols; i++) a.data[j * vt.cols + i] = root * vt.data[j * vt.cols + i]!;
  });
  return pairEntries(module, { loraA: likeTensor(like, a), loraB: likeTensor(like, b) });
}

/** B[:, :q] and A[:q] of every pair. */
function cut(params: Params, ratio: number): Params {
  const narrow = new Map(params);
  for (const module of loraModules(params)) {
    const { loraA, loraB } = loraPair(params, module);
    const q = widthOf(ratio, loraB.shape[0] ?? 0, loraA.shape[1] ?? 0);
    const pair = {
      loraA: likeTensor(loraA, firstRows(factorMatrix(loraA), q)),
      loraB: likeTensor(loraB, firstColumns(factorMatrix(loraB), q)),
    };
    for (const [name, tensor] of pairEntries(module, pair)) narrow.set(name, tensor);
  }
  return narrow;
}

/** The weights that the factors stand for, in the place of the first of them. */
function merged(params: Params): Params {
  const modules = new Set(loraModules(params));
  const dense = new Map<string, Tensor>();
  for (const [name, tensor] of params) {
    if (!isFactor(name)) dense.set(name, tensor);
    const module = name.replace(/\.lora_[AB]\.weight$/, "");
    if (!isFactor(name) || !modules.delete(module)) continue;
    const { loraA, loraB } = loraPair(params, module);
    const product: Matrix = matmul(factorMatrix(loraB), factorMatrix(loraA));
    dense.set(`${module}.weight`, likeTensor(loraB, product));
  }
  return dense;
}

function negated(tensor: Tensor): Tensor {
  return floatTensor(
    tensor,
    tensor.shape,
    Float64Array.from(floats(tensor), (x) => -x),
  );
}

function moduleOf(name: string): string {
  return name.slice(0, -".weight".length);
}

function isList(ratios: NonNullable<FedHmOptions["ratios"]>): ratios is readonly number[] {
  return Array.isArray(ratios);
}
