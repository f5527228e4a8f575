import { triLora } from "../adapters/tri-lora.ts";
import { TributaryError } from "../errors.ts";
import { factorMatrix, replaced } from "../federation/low-rank.ts";
import type { StateTree, Strategy } from "../federation/strategy.ts";
import { weightsOf } from "../federation/weights.ts";
import { exp } from "../tensor/elementary.ts";
import { type Matrix, matmul, matrix } from "../tensor/matrix.ts";
import { type Component, mixtureDistance } from "../tensor/mixture.ts";
import { type Params, select, sortedNames, weightedMean } from "../tensor/params.ts";

/** A client's embeddings, class by class: the class's share of its examples, and a mixture of normals fitted to it. */
export interface DataSketch {
  readonly [label: string]: { readonly prior: number; readonly components: readonly Component[] };
}

/** Options of CE-LoRA. */
export interface CeLoraOptions {
  /** λ, how much the similarity of the data counts beside that of the cores. Default: 0.5. */
  readonly dataShare?: number;
  /** What is known of the clients' data, by client. Default: nothing, and the cores decide alone. */
  readonly data?: { readonly [client: string]: DataSketch };
  /**
   * Rows w_i of the mixing matrix from the similarities of the clients, in their order. Default: the rows of
   * λ S_data + (1 − λ) S_model divided by their sums.
   */
  readonly mix?: (similarities: Similarities) => Matrix;
}

/** How alike clients are, entry by entry in [0, 1]. A matrix is absent where it says nothing. */
export interface Similarities {
  readonly clients: readonly string[];
  readonly data?: Matrix;
  readonly model?: Matrix;
}

/** State of CE-LoRA. */
export interface CeLoraState {
  readonly [key: string]: StateTree;
  /** The parameters before round 1. */
  readonly initial: Params;
  /** C_j as each client uploaded it last. */
  readonly cores: { readonly [client: string]: Params };
  /** C̄_i = Σ_j w_ij C_j of each of them. */
  readonly mixed: { readonly [client: string]: Params };
}

/**
 * CE-LoRA: the update is factored in three, B C A; only the small core C travels, and the server gives each client a
 * mixture of all cores of its own, by how alike clients are in their data and in their cores. A, B and head stay.
 *
 * Li et al., 2025, Algorithm 1. https://arxiv.org/abs/2503.23869. The paper's server is not public; the rule of the
 * mixture here is our reading of it.
 */
export function ceLora({
  dataShare = 0.5,
  data = {},
  mix = (similarities) => shareOut(similarities, dataShare),
}: CeLoraOptions = {}): Strategy<CeLoraState> {
  const known = Object.keys(data).sort();
  const dataSimilarity = similarityOfData(known.map((client) => data[client] ?? {}));
  return {
    name: "CE-LoRA",
    paper: "Li et al., 2025, Algorithm 1, https://arxiv.org/abs/2503.23869",
    declares: { personal: true, clientState: true, needsLowRank: true },
    adapters: (options) => [triLora(options)],
    init(initial) {
      if (![...initial.keys()].some(isCore)) {
        throw new TributaryError(
          "adapter-mismatch",
          "CE-LoRA: the adapter has no core lora_C; take the adapter tri-lora",
        );
      }
      return { initial, cores: {}, mixed: {} };
    },
    broadcast: ({ initial, mixed }, { id }) => ({ params: mixed[id] ?? select(initial, isCore) }), // C̄_i
    local: {
      remember: (_, initial) => select(initial, (name) => !isCore(name)),
      start: ({ initial, received, memory }) => ({
        params: replaced(replaced(initial, memory), received.params), // A_i, B_i with C̄_i
      }),
      upload: ({ params }) => ({
        params: select(params, isCore),
        memory: select(params, (name) => !isCore(name)),
      }),
    },
    aggregate(state, updates) {
      weightsOf("CE-LoRA", updates, "uniform");
      const cores = {
        ...state.cores,
        ...Object.fromEntries(updates.map(({ client, params }) => [client.id, params])),
      };
      const clients = Object.keys(cores).sort();
      const list = clients.map((client) => cores[client] ?? state.initial);
      const model = similarityOfCores(list);
      const rows = mix({
        clients,
        ...(model && { model }),
        ...(dataSimilarity && { data: chosen(dataSimilarity, known, clients) }),
      });
      const mixed = Object.fromEntries(
        clients.map((client, i) => {
          const row = rows.data.subarray(i * rows.cols, (i + 1) * rows.cols);
          return [client, weightedMean(list, [...row])]; // C̄_i = Σ_j w_ij C_j
        }),
      );
      return { state: { initial: state.initial, cores, mixed } };
    },
    global: ({ initial, mixed }, client) => replaced(initial, mixed[client?.id ?? ""] ?? new Map()),
  };
}

const isCore = (name: string): boolean => name.endsWith(".lora_C.weight");

/** The rows of the mixture: w_ij = S_ij / Σ_l S_il with S = λ S_data + (1 − λ) S_model; of the two the one that says something; else all alike. */
export function shareOut({ clients, data, model }: Similarities, dataShare: number): Matrix {
  const size = clients.length;
  const share = model === undefined ? 1 : data === undefined ? 0 : dataShare;
  const rows = matrix(size, size);
  for (let i = 0; i < size; i++) {
    let sum = 0;
    for (let at = i * size; at < (i + 1) * size; at++) {
      rows.data[at] =
        data || model ? share * (data?.data[at] ?? 0) + (1 - share) * (model?.data[at] ?? 0) : 1;
      sum += rows.data[at] ?? 0;
    }
    for (let at = i * size; at < (i + 1) * size; at++) rows.data[at] = (rows.data[at] ?? 0) / sum;
  }
  return rows;
}

/** CKA of the cores of every two clients, averaged over modules; nothing at rank 1, where centring leaves 0. */
export function similarityOfCores(list: readonly Params[]): Matrix | undefined {
  const [first = new Map()] = list;
  const names = sortedNames(first).filter(isCore);
  const centred = list.map((params) =>
    names.flatMap((name) => {
      const core = params.get(name);
      return core ? [centredColumns(factorMatrix(core))] : [];
    }),
  );
  if (centred.every((cores) => cores.every(({ rows }) => rows === 1))) return undefined;
  return symmetric(list.length, (i, j) => {
    const values = names.map((_, m) =>
      linearCka(centred[i]?.[m] ?? matrix(0, 0), centred[j]?.[m] ?? matrix(0, 0)),
    );
    return values.reduce((sum, value) => sum + value, 0) / values.length;
  });
}

/**
 * Linear CKA of two matrices with centred columns: ‖YᵀX‖² / (‖XᵀX‖ ‖YᵀY‖), 0 where one of them is 0.
 *
 * Kornblith et al., ICML 2019, section 3. https://arxiv.org/abs/1905.00414
 */
export function linearCka(x: Matrix, y: Matrix): number {
  const norm = (product: Matrix): number =>
    Math.sqrt(product.data.reduce((sum, value) => sum + value * value, 0));
  const inner = (a: Matrix, b: Matrix): number => norm(matmul(a, b, { transposeA: true }));
  const scale = inner(x, x) * inner(y, y);
  return scale > 0 ? inner(y, x) ** 2 / scale : 0;
}

/** A matrix less the means of its columns; what rounding leaves of a constant column is 0. */
export function centredColumns({ rows, cols, data }: Matrix): Matrix {
  const means = new Float64Array(cols);
  const largest = new Float64Array(cols);
  for (let i = 0; i < data.length; i++) {
    const column = i % cols;
    means[column] = means[column]! + data[i]! / rows;
    largest[column] = Math.max(largest[column]!, Math.abs(data[i]!));
  }
  const centred = data.map((x, i) => {
    const difference = x - means[i % cols]!;
    return Math.abs(difference) > 2 ** -48 * largest[i % cols]! ? difference : 0;
  });
  return { rows, cols, data: centred };
}

/** exp(−d_ij / mean d) over pairs of clients, 1 on the diagonal, 0 where two share no class. */
export function similarityOfData(sketches: readonly DataSketch[]): Matrix | undefined {
  if (sketches.length === 0) return undefined;
  const distances = sketches.map((a, i) => sketches.map((b, j) => (j > i ? sketchDistance(a, b) : 0)));
  const pairs = distances.flatMap((row, i) => row.slice(i + 1)).filter((distance) => distance !== undefined);
  const mean = pairs.reduce((sum, distance) => sum + distance, 0) / Math.max(1, pairs.length);
  return symmetric(sketches.length, (i, j) => {
    const distance = distances[i]?.[j];
    if (distance === undefined) return 0;
    return mean > 0 ? exp(-distance / mean) : 1;
  });
}

/**
 * Distance of two clients' data: the optimal transport between their mixtures of a class, weighted by the mean of its
 * priors over the classes that both hold; undefined where there is none.
 */
export function sketchDistance(a: DataSketch, b: DataSketch): number | undefined {
  const shared = Object.keys(a).filter((label) => label in b);
  const terms = shared.map((label) => {
    const [one, other] = [a[label], b[label]];
    const weight = ((one?.prior ?? 0) + (other?.prior ?? 0)) / 2;
    return { weight, distance: mixtureDistance(one?.components ?? [], other?.components ?? []) };
  });
  const total = terms.reduce((sum, { weight }) => sum + weight, 0);
  if (total === 0) return undefined;
  return terms.reduce((sum, { weight, distance }) => sum + (weight / total) * distance, 0);
}

/** Ones on the diagonal, `value(i, j)` for i < j on both sides of it. */
function symmetric(size: number, value: (i: number, j: number) => number): Matrix {
  const out = matrix(size, size);
  for (let i = 0; i < size; i++) {
    out.data[i * size + i] = 1;
    for (let j = i + 1; j < size; j++) {
      out.data[i * size + j] = value(i, j);
      out.data[j * size + i] = out.data[i * size + j]!;
    }
  }
  return out;
}

/** The rows and columns of some clients; of a client that nothing is known of, only the diagonal. */
function chosen(all: Matrix, known: readonly string[], clients: readonly string[]): Matrix {
  return symmetric(clients.length, (i, j) => {
    const [row, column] = [known.indexOf(clients[i] ?? ""), known.indexOf(clients[j] ?? "")];
    return row < 0 || column < 0 ? 0 : (all.data[row * all.cols + column] ?? 0);
  });
}
