import { deviationOfMean } from "../federation/deviation.ts";
import {
  factorMatrix,
  floats,
  likeTensor,
  loraModules,
  loraPair,
  meanOfOthers,
  padded,
  pairEntries,
  prefix,
  scaledB,
} from "../federation/low-rank.ts";
import type { StateTree, Strategy, Update, Values } from "../federation/strategy.ts";
import { normalized, type Weighting, weightsOf } from "../federation/weights.ts";
import { add, mul, reduceSum, slice, sqrt } from "../graph/ops.ts";
import type { Value } from "../graph/value.ts";
import { productNormSquared } from "../tensor/linalg.ts";
import { matrix } from "../tensor/matrix.ts";
import type { Params } from "../tensor/params.ts";
import { float32 } from "../tensor/tensor.ts";

/** Options of HetLoRA. */
export interface HetLoraOptions {
  /** Share γ of its components that a client keeps when it prunes itself, rounded down; 1 prunes nothing. Default: 0.99. */
  readonly gamma?: number;
  /** Weight λ of the penalty on the components that would be pruned. Default: 1e-3. */
  readonly lambda?: number;
  /** No client shrinks below this rank. Default: 1. */
  readonly minRank?: number;
  /** Whether a client counts by the norm of its product in each module, or over all modules. Default: "module". */
  readonly normOver?: "module" | "client";
  /** How clients count in the mean of what is trained beside the factors. Default: "samples". */
  readonly weighting?: Weighting;
}

/** State of HetLoRA. */
export interface HetLoraState {
  readonly [key: string]: StateTree;
  /** B̄ and Ā at the largest rank, for its scaling. */
  readonly params: Params;
  /** s of the clients of the largest rank, which the factors of all are brought to. */
  readonly scaling: number;
  /** r_k */
  readonly ranks: { readonly [client: string]: number };
}

/**
 * HetLoRA: clients hold the first components of one pair, as many as they can afford, and drop the last ones where
 * training has shrunk them; the server pads with zeros and weights each client by the norm of its product.
 *
 * Cho et al., EMNLP 2024, section 3. https://arxiv.org/abs/2401.06432
 */
export function hetLora({
  gamma = 0.99,
  lambda = 1e-3,
  minRank = 1,
  normOver = "module",
  weighting = "samples",
}: HetLoraOptions = {}): Strategy<HetLoraState> {
  if (!(gamma > 0 && gamma <= 1))
    throw new RangeError(`hetLora: gamma is ${gamma}, expected a number in (0, 1]`);
  if (!(lambda >= 0)) throw new RangeError(`hetLora: lambda is ${lambda}, expected a number >= 0`);
  return {
    name: "HetLoRA",
    paper: "Cho et al., EMNLP 2024, section 3, https://arxiv.org/abs/2401.06432",
    declares: { unequalRanks: true, needsLowRank: true, uniformWeights: weighting === "uniform" },
    init(params, clients) {
      const largest = Math.max(...clients.map(({ rank }) => rank));
      return {
        params,
        scaling: clients.find(({ rank }) => rank === largest)?.scaling ?? 1,
        ranks: Object.fromEntries(clients.map(({ id, rank }) => [id, rank])),
      };
    },
    broadcast: ({ params, scaling, ranks }, { id, rank, scaling: own }) => ({
      params: scaledB(prefix(params, ranks[id] ?? rank), scaling / own), // B̄[:, :r_k], Ā[:r_k]
    }),
    local: {
      ...(lambda > 0 && gamma < 1 && { penalty: (w) => mul(tailPenalty(w, gamma), lambda) }),
      upload({ received, params }) {
        const rank = rankOf(received.params);
        const keep = Math.floor(gamma * rank);
        const shrank = tailNorm(params, keep) < tailNorm(received.params, keep);
        const left = shrank ? Math.min(rank, Math.max(minRank, keep)) : rank;
        return {
          params: padded(prefix(params, left), rank), // what is pruned goes as zeros: shapes are agreed on before
          extra: new Map([["rank", float32([1], [left])]]),
        };
      },
    },
    aggregate({ params: before, scaling, ranks }, updates) {
      const examples = weightsOf("HetLoRA", updates, weighting);
      const largest = rankOf(before);
      const shared = updates.map(
        ({ client, params, ...rest }): Update => ({
          ...rest,
          client: { ...client, rank: largest, scaling },
          params: padded(scaledB(params, client.scaling / scaling), largest),
        }),
      );
      const norms = productNorms(shared, loraModules(before));
      const next = new Map([...before, ...meanOfOthers(updates, examples)]);
      const measurements: Record<string, number> = {};
      for (const module of loraModules(before)) {
        const weights = shares(normOver === "module" ? (norms.get(module) ?? []) : overAll(norms)); // w_k
        const entries = meanPair(shared, weights, module);
        for (const [name, tensor] of entries) next.set(name, tensor);
        const after = new Map(entries);
        Object.assign(
          measurements,
          deviationOfMean({ who: "HetLoRA", updates: shared, weights, before, after }),
        );
      }
      const shrunk = updates.map(({ client, params, extra }) => [
        client.id,
        Number(extra?.get("rank")?.data[0] ?? rankOf(params)),
      ]);
      return {
        state: { params: next, scaling, ranks: { ...ranks, ...Object.fromEntries(shrunk) } },
        measurements,
      };
    },
    global: ({ params, scaling, ranks }, client) =>
      client ? scaledB(prefix(params, ranks[client.id] ?? client.rank), scaling / client.scaling) : params,
  };
}

function rankOf(params: Params): number {
  const [module] = loraModules(params);
  return module === undefined ? 0 : (loraPair(params, module).loraA.shape[0] ?? 0);
}

/** Σ over modules of ‖B[:, keep:]‖ ‖A[keep:]‖ */
export function tailNorm(params: Params, keep: number): number {
  return loraModules(params).reduce((sum, module) => {
    const { loraA, loraB } = loraPair(params, module);
    const [rank = 0, width = 1] = loraA.shape;
    let [a, b] = [0, 0];
    const [ofA, ofB] = [floats(loraA), floats(loraB)];
    for (let i = keep * width; i < ofA.length; i++) a += ofA[i]! ** 2;
    for (let i = 0; i < ofB.length; i++) if (i % rank >= keep) b += ofB[i]! ** 2;
    return sum + Math.sqrt(a * b);
  }, 0);
}

/** The same as a graph, for the last r_k − ⌊γ r_k⌋ components. */
function tailPenalty(w: Values, gamma: number): Value {
  const terms = [...w].flatMap(([name, b]) => {
    if (!name.endsWith(".lora_B.weight")) return [];
    const loraA = name.replace(/lora_B\.weight$/, "lora_A.weight");
    const a = w.get(loraA);
    if (!a) throw new RangeError(`hetLora: ${name} is trained without ${loraA}`);
    const rank = Number(a.shape[0]);
    const keep = Math.floor(gamma * rank);
    return [mul(length(slice(b, 1, keep, rank)), length(slice(a, 0, keep, rank)))];
  });
  return terms.reduce((sum, term) => add(sum, term));
}

/** ‖x‖, whose gradient at 0 is 0. */
function length(x: Value): Value {
  return sqrt(add(reduceSum(mul(x, x)), 1e-30));
}

/** ‖S_k‖ = ‖B_k A_k‖ of every client, for every module. */
export function productNorms(
  updates: readonly Update[],
  modules: readonly string[],
): ReadonlyMap<string, readonly number[]> {
  return new Map(
    modules.map((module) => [
      module,
      updates.map(({ params }) => {
        const { loraA, loraB } = loraPair(params, module);
        const term = { coefficient: 1, left: factorMatrix(loraB), right: factorMatrix(loraA) };
        return Math.sqrt(productNormSquared([term]));
      }),
    ]),
  );
}

function overAll(norms: ReadonlyMap<string, readonly number[]>): number[] {
  const [first = []] = norms.values();
  return first.map((_, k) => Math.hypot(...[...norms.values()].map((ofModule) => ofModule[k] ?? 0)));
}

/** Norms as weights; all alike where all are 0. */
function shares(norms: readonly number[]): number[] {
  return normalized(norms.some((norm) => norm > 0) ? norms : norms.map(() => 1));
}

/** Σ w_k B_k and Σ w_k A_k of the padded factors. */
function meanPair(updates: readonly Update[], weights: readonly number[], module: string) {
  const like = loraPair(updates[0]?.params ?? new Map(), module);
  const [a, b] = [factorMatrix(like.loraA), factorMatrix(like.loraB)].map((x) => matrix(x.rows, x.cols));
  if (!a || !b) throw new RangeError(`hetLora: ${module} has no pair`);
  updates.forEach(({ params }, k) => {
    const { loraA, loraB } = loraPair(params, module);
    const weight = weights[k] ?? 0;
    const [x, y] = [floats(loraA), floats(loraB)];
    for (let i = 0; i < a.data.length; i++) a.data[i] = a.data[i]! + weight * x[i]!;
    for (let i = 0; i < b.data.length; i++) b.data[i] = b.data[i]! + weight * y[i]!;
  });
  return pairEntries(module, { loraA: likeTensor(like.loraA, a), loraB: likeTensor(like.loraB, b) });
}
