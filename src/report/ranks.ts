import { factorMatrix, isFactor, loraModules, loraPair } from "../federation/low-rank.ts";
import type { BaseChange } from "../federation/strategy.ts";
import { type LowRankTerm, numericalRank, svd, svdOfSum } from "../tensor/linalg.ts";
import { type Matrix, matmul } from "../tensor/matrix.ts";
import type { Params } from "../tensor/params.ts";

/** Ranks of the accumulated update over rounds. */
export interface RankHistory {
  /** Number of modules measured. */
  readonly modules: number;
  /** Number of modules left out to keep the cost down. */
  readonly skipped: number;
  readonly measured: readonly {
    readonly round: number;
    /** One entry a module. */
    readonly ranks: readonly UpdateRank[];
  }[];
}

/** Rank of one accumulated update. */
export interface UpdateRank {
  /** Number of singular values above rounding. */
  readonly rank: number;
  /** As `effectiveRank` gives it. */
  readonly effective: number;
}

/** A committed state of a run. */
export interface RankedState {
  /** 0 for the initial state. */
  readonly round: number;
  params(): Promise<Params>;
  /** What the round changed in the base. */
  changes(): Promise<readonly BaseChange[]>;
}

export interface RankOptions {
  /** Factor of B A in the effective weight. */
  readonly scaling: number;
  /** Multiplications that may be spent, about; where all modules cost more, evenly spread ones are measured. Default: 3e10. */
  readonly budget?: number;
}

/**
 * Measures what the rounds have added to every pretrained weight, over the states of a run, in order from round 0.
 * Low-rank pairs and changes of the base stay factors: the changes so far are kept as one compact SVD, and rank is counted
 * against float64. Where a weight is trained itself or its changes are dense, the difference is decomposed as it is, and
 * rank is counted against float32.
 */
export async function rankHistory(
  states: readonly RankedState[],
  { scaling, budget = 3e10 }: RankOptions,
): Promise<RankHistory> {
  const [start, ...later] = states;
  const first = (await start?.params()) ?? new Map();
  const costs = await costsOf(first, later);
  const chosen = withinBudget(costs, budget);
  const sums = new Map<string, Sum>();
  const measured: { round: number; ranks: UpdateRank[] }[] = [];
  for (const state of later) {
    const params = await state.params();
    const changes = await state.changes();
    const ranks = chosen.map((module) => {
      const sum = added(sums.get(module) ?? { factors: [] }, module, changes);
      sums.set(module, sum);
      return rankOf(module, { params, first, scaling, sum });
    });
    if (ranks.length > 0) measured.push({ round: state.round, ranks });
  }
  return { modules: chosen.length, skipped: costs.size - chosen.length, measured };
}

/** What the rounds have added to one base weight: a sum of products, and a dense part where there is one. */
interface Sum {
  readonly factors: readonly LowRankTerm[];
  readonly dense?: Matrix;
}

function added(sum: Sum, module: string, changes: readonly BaseChange[]): Sum {
  const name = `${module}.weight`;
  const factors = [...sum.factors];
  let { dense } = sum;
  for (const change of changes) {
    if (change.kind === "dense") {
      const difference = change.difference.get(name);
      if (difference !== undefined) dense = plus(dense, factorMatrix(difference));
      continue;
    }
    factors.push(...termsOf(change, name));
  }
  const compact = factors.length > 1 ? [compactTerm(factors)] : factors;
  return { factors: compact, ...(dense === undefined ? {} : { dense }) };
}

function rankOf(
  module: string,
  {
    params,
    first,
    scaling,
    sum,
  }: { readonly params: Params; readonly first: Params; readonly scaling: number; readonly sum: Sum },
): UpdateRank {
  const weight = params.get(`${module}.weight`);
  const before = first.get(`${module}.weight`);
  if (weight !== undefined && before !== undefined) {
    const [w, w0] = [factorMatrix(weight), factorMatrix(before)];
    return denseRank(minus(w, w0), rootMeanSquare(w.data));
  }
  const terms = [
    ...sum.factors,
    ...(params.has(`${module}.lora_B.weight`) ? [pairTerm(params, module, scaling)] : []),
  ];
  if (sum.dense !== undefined) {
    const all = terms.reduce((total, term) => plus(total, product(term)), sum.dense);
    return denseRank(all, rootMeanSquare(all.data));
  }
  if (terms.length === 0) return { rank: 0, effective: 0 };
  const { singularValues } = svdOfSum(terms, 0);
  return { rank: singularValues.length, effective: effectiveRank(singularValues) };
}

/**
 * Rank of a difference of stored float32 weights. Rounding adds a matrix with entries of about 2^-24 of theirs, whose norm
 * is about `(sqrt(out) + sqrt(in))` times that.
 */
function denseRank(difference: Matrix, size: number): UpdateRank {
  const { rows, cols } = difference;
  const { singularValues } = svd(difference);
  const noise = 2 ** -23 * size * (Math.sqrt(rows) + Math.sqrt(cols));
  const above = singularValues.filter((value) => value > noise);
  const rank = Math.min(above.length, numericalRank(singularValues, rows, cols, 2 ** -23));
  return { rank, effective: effectiveRank(singularValues) };
}

/** exp of the entropy of the singular values divided by their sum; 0 of zeros. Roy and Vetterli, EUSIPCO 2007. */
export function effectiveRank(singularValues: Float64Array): number {
  const total = singularValues.reduce((a, b) => a + b, 0);
  if (total === 0) return 0;
  let entropy = 0;
  for (const value of singularValues) if (value > 0) entropy -= (value / total) * Math.log(value / total);
  return Math.exp(entropy);
}

/** A sum of products as one, `U diag(s)` and `V^T`; its rank is at most the smaller side. */
function compactTerm(terms: readonly LowRankTerm[]): LowRankTerm {
  const { u, singularValues, vt } = svdOfSum(terms);
  const data = u.data.map((x, i) => x * (singularValues[i % u.cols] ?? 0));
  return { coefficient: 1, left: { ...u, data }, right: vt };
}

/** The factors of a change: `L R - L0 R0 = (L - L0) R + L0 (R - R0)`, exactly 0 where nothing moved. */
function termsOf(change: Extract<BaseChange, { kind: "factors" }>, name: string): LowRankTerm[] {
  const factors = (left?: Params, right?: Params): { left: Matrix; right: Matrix } | undefined => {
    const [l, r] = [left?.get(name), right?.get(name)];
    return l === undefined || r === undefined ? undefined : { left: factorMatrix(l), right: factorMatrix(r) };
  };
  const coefficient = change.scale;
  const now = factors(change.left, change.right);
  const known = factors(change.known?.left, change.known?.right);
  if (now === undefined) return [];
  if (known === undefined) return [{ coefficient, ...now }];
  return [
    { coefficient, left: minus(now.left, known.left), right: now.right },
    { coefficient, left: known.left, right: minus(now.right, known.right) },
  ];
}

function pairTerm(params: Params, module: string, coefficient: number): LowRankTerm {
  const { loraA, loraB } = loraPair(params, module);
  return { coefficient, left: factorMatrix(loraB), right: factorMatrix(loraA) };
}

function product({ coefficient, left, right }: LowRankTerm): Matrix {
  const all = matmul(left, right);
  return { ...all, data: all.data.map((x) => coefficient * x) };
}

function plus(a: Matrix | undefined, b: Matrix): Matrix {
  return a === undefined ? b : { ...a, data: a.data.map((x, i) => x + (b.data[i] ?? 0)) };
}

function minus(a: Matrix, b: Matrix): Matrix {
  return plus(a, { ...b, data: b.data.map((x) => -x) });
}

function rootMeanSquare(values: Float64Array): number {
  let sum = 0;
  for (const value of values) sum += value * value;
  return Math.sqrt(sum / values.length);
}

/**
 * What measuring each module costs, about: QR of both factors and an SVD of their triangles for every round, twice where
 * changes are added up; their columns grow by what rounds add.
 */
async function costsOf(first: Params, later: readonly RankedState[]): Promise<ReadonlyMap<string, number>> {
  let example: readonly BaseChange[] = [];
  for (const state of later) {
    example = await state.changes();
    if (example.length > 0) break;
  }
  const costs = new Map<string, number>();
  const pairs = loraModules(first);
  const cost = (module: string, out: number, width: number, held: number): void => {
    const side = Math.min(out, width);
    const grows = example.reduce((sum, change) => sum + columnsOf(change, `${module}.weight`, side), 0);
    let total = 0;
    for (let i = 1; i <= later.length; i++) {
      const columns = Math.min(side, held + i * grows);
      total += (grows > 0 ? 2 : 1) * (6 * (out + width) * columns ** 2 + 40 * columns ** 3);
    }
    costs.set(module, total);
  };
  for (const module of pairs) {
    const { loraA, loraB } = loraPair(first, module);
    cost(module, loraB.shape[0] ?? 0, loraA.shape[1] ?? 0, loraA.shape[0] ?? 0);
  }
  for (const [name, { shape }] of pairs.length > 0 ? [] : first) {
    const [out = 0, width = 0] = shape;
    if (shape.length === 2 && name.endsWith(".weight") && !isFactor(name))
      cost(name.slice(0, -".weight".length), out, width, Math.min(out, width));
  }
  for (const change of example) {
    for (const name of (change.kind === "dense" ? change.difference : change.left).keys()) {
      const module = name.replace(/\.weight$/, "");
      const shapes = shapeOf(change, name);
      if (!costs.has(module)) cost(module, ...shapes, 0);
    }
  }
  return costs;
}

function columnsOf(change: BaseChange, name: string, side: number): number {
  if (change.kind === "dense") return change.difference.has(name) ? side : 0;
  const columns = change.left.get(name)?.shape[1] ?? 0;
  return change.known === undefined ? columns : 2 * columns;
}

function shapeOf(change: BaseChange, name: string): [number, number] {
  if (change.kind === "dense") {
    const [out = 0, width = 0] = change.difference.get(name)?.shape ?? [];
    return [out, width];
  }
  return [change.left.get(name)?.shape[0] ?? 0, change.right.get(name)?.shape[1] ?? 0];
}

/** The most modules, evenly spread, that stay within the budget; at least the cheapest one unless it is far beyond. */
function withinBudget(costs: ReadonlyMap<string, number>, budget: number): string[] {
  const modules = [...costs.keys()];
  for (let most = modules.length; most >= 1; most--) {
    const chosen = Array.from(
      { length: most },
      (_, i) => modules[Math.floor((i * modules.length) / most)] ?? "",
    );
    const total = chosen.reduce((sum, module) => sum + (costs.get(module) ?? 0), 0);
    if (total <= budget) return chosen;
  }
  const [cheapest] = [...costs].sort((a, b) => a[1] - b[1]);
  return cheapest !== undefined && cheapest[1] <= 4 * budget ? [cheapest[0]] : [];
}
