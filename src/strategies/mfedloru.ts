import { innerNames, nestedLora } from "../adapters/nested-lora.ts";
import {
  factorMatrix,
  isFactor,
  likeTensor,
  loraModules,
  loraPair,
  pairEntries,
  restarted,
} from "../federation/low-rank.ts";
import type { LocalStart, StateTree, Strategy, Update } from "../federation/strategy.ts";
import { type Matrix, matmul, matrix } from "../tensor/matrix.ts";
import { type Params, select } from "../tensor/params.ts";
import { stream } from "../tensor/random.ts";
import { float32, type Tensor } from "../tensor/tensor.ts";
import { type FedLoruOptions, fedLoru } from "./fedloru.ts";

/** Options of mFedLoRU. */
export interface MFedLoruOptions extends FedLoruOptions {
  /** r_k of each client: dealt in turn, or by name. Default: half the outer rank, rounded up, for all. */
  readonly innerRanks?: readonly number[] | Readonly<Record<string, number>>;
  /** α_A and α_B, factors of the inner products. Default: 1. */
  readonly alphaA?: number;
  readonly alphaB?: number;
}

/** State of mFedLoRU: that of FedLoRU, and r_k of every client. */
export interface MFedLoruState {
  readonly [key: string]: StateTree;
  readonly params: Params;
  readonly fresh: boolean;
  /** r_k */
  readonly innerRanks: { readonly [client: string]: number };
}

/**
 * mFedLoRU: FedLoRU whose clients keep the pair that they received fixed and train factors of it, as wide as they can
 * afford: `W + s (B + α_B B_d B_u)(A + α_A A_d A_u)`. The server rebuilds each client's pair and goes on as in FedLoRU.
 * The inner factors are the parameters `….lora_Bd.weight` [out, r_k], `….lora_Bu.weight` [r_k, r], `….lora_Ad.weight`
 * [r, r_k] and `….lora_Au.weight` [r_k, in]; B_d and A_d start at 0.
 *
 * Park and Klabjan, 2024, section 4.3. https://arxiv.org/abs/2409.12371
 */
export function mFedLoru({
  innerRanks = {},
  alphaA = 1,
  alphaB = 1,
  ...options
}: MFedLoruOptions = {}): Strategy<MFedLoruState> {
  const loru = fedLoru(options);
  return {
    ...loru,
    name: "mFedLoRU",
    paper: "Park and Klabjan, 2024, section 4.3, https://arxiv.org/abs/2409.12371",
    declares: { ...loru.declares, moduleWise: false, weightedSum: false },
    adapters: (pair) => [nestedLora({ ...pair, alphaA, alphaB })],
    init: (initial, clients) => ({
      ...loru.init(initial, clients),
      innerRanks: Object.fromEntries(
        clients.map(({ id, rank }, k) => [
          id,
          (isList(innerRanks) ? innerRanks[k % innerRanks.length] : innerRanks[id]) ?? Math.ceil(rank / 2),
        ]),
      ),
    }),
    broadcast: ({ innerRanks: ranks, ...state }, client, context) => ({
      ...loru.broadcast(state, client, context),
      extra: new Map([["innerRank", float32([1], [ranks[client.id] ?? 1])]]),
    }),
    local: {
      trainable: (name) => !isFactor(name),
      start: (local) => ({
        params: new Map([
          ...(loru.local?.start?.(local).params ?? local.received.params),
          ...drawnInner(local),
        ]),
      }),
      upload: ({ params }) => ({ params: select(params, (name) => !isFactor(name)) }),
    },
    aggregate({ innerRanks: ranks, ...state }, updates, context) {
      const { seed, round } = context;
      const outer = state.fresh
        ? restarted(state.params, { seed, round, purpose: "fedloru restart" })
        : state.params;
      const rebuilt = updates.map(
        (update): Update => ({ ...update, params: rebuiltPairs(outer, update.params, alphaA, alphaB) }),
      );
      const result = loru.aggregate(state, rebuilt, context);
      return { ...result, state: { ...result.state, innerRanks: ranks } };
    },
    global: ({ params }) => params,
  };
}

/** B + α_B B_d B_u and A + α_A A_d A_u, beside what else was trained. */
export function rebuiltPairs(outer: Params, update: Params, alphaA: number, alphaB: number): Params {
  const rebuilt = new Map(outer);
  for (const [name, tensor] of update) if (!isInner(name)) rebuilt.set(name, tensor);
  for (const module of loraModules(outer)) {
    const { loraA, loraB } = loraPair(outer, module);
    const inner = (part: string): Matrix => {
      const factor = update.get(`${module}.lora_${part}.weight`);
      if (!factor) throw new RangeError(`mFedLoru: an update holds no ${module}.lora_${part}.weight`);
      return factorMatrix(factor);
    };
    const pair = {
      loraA: likeTensor(loraA, plus(factorMatrix(loraA), alphaA, matmul(inner("Ad"), inner("Au")))),
      loraB: likeTensor(loraB, plus(factorMatrix(loraB), alphaB, matmul(inner("Bd"), inner("Bu")))),
    };
    for (const [name, tensor] of pairEntries(module, pair)) rebuilt.set(name, tensor);
  }
  return rebuilt;
}

/** Inner factors of r_k components: B_d = A_d = 0, B_u and A_u fresh for each client. */
function drawnInner({ initial, received, client, context: { seed, round } }: LocalStart): Params {
  const inner = Number(received.extra?.get("innerRank")?.data[0] ?? 1); // r_k
  const drawn = new Map<string, Tensor>();
  for (const module of loraModules(initial)) {
    const { loraA, loraB } = loraPair(initial, module);
    const [rank = 0, width = 0] = loraA.shape;
    const names = innerNames(module);
    const uniform = (name: string, columns: number): Tensor => {
      const up = matrix(inner, columns);
      const bound = 1 / Math.sqrt(columns);
      const random = stream({ seed, round, client: client.id, purpose: `mfedloru ${name}` });
      random.fillUniform(up.data, -bound, bound);
      return likeTensor(loraA, up);
    };
    drawn.set(names.Bd, likeTensor(loraB, matrix(loraB.shape[0] ?? 0, inner)));
    drawn.set(names.Bu, uniform(names.Bu, rank));
    drawn.set(names.Ad, likeTensor(loraA, matrix(rank, inner)));
    drawn.set(names.Au, uniform(names.Au, width));
  }
  return drawn;
}

function plus(x: Matrix, factor: number, y: Matrix): Matrix {
  return { ...x, data: x.data.map((value, i) => value + factor * y.data[i]!) };
}

function isInner(name: string): boolean {
  return /\.lora_[AB][du]\.weight$/.test(name);
}

function isList(ranks: readonly number[] | Readonly<Record<string, number>>): ranks is readonly number[] {
  return Array.isArray(ranks);
}
