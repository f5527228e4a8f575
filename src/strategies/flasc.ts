import { floats, floatTensor, isFactor } from "../federation/low-rank.ts";
import type { LocalRule, StateTree, Strategy, Update } from "../federation/strategy.ts";
import { weightsOf } from "../federation/weights.ts";
import {
  addScaled,
  mapParams,
  type Params,
  sortedNames,
  sub,
  weightedMean,
  zerosLike,
} from "../tensor/params.ts";
import { topK } from "../tensor/top-k.ts";

const paper = "Kuo et al., 2024, Algorithm 1, https://arxiv.org/abs/2406.05233";

/** Options of FLASC. */
export interface FlascOptions {
  /** Share of all trained scalars that the server sends, the largest ones. Default: 0.25. */
  readonly downDensity?: number;
  /** Share that a client sends, where it moved furthest. Default: 0.25. */
  readonly upDensity?: number;
  /** Step size along the mean move. Default: 1. */
  readonly serverLearningRate?: number;
}

/** State of FLASC: the dense weights, and what of them is sent. */
export interface FlascState {
  readonly [key: string]: StateTree;
  /** w */
  readonly params: Params;
  /** w ⊙ m_down */
  readonly sent: Params;
}

/**
 * FLASC: clients train the adapter densely, but only its largest weights go down and only its largest moves go up. A
 * move is relative to the sparse start, and the mean move is added to the server's dense weights.
 *
 * Kuo et al., 2024, Algorithm 1. https://arxiv.org/abs/2406.05233
 */
export function flasc({
  downDensity = 0.25,
  upDensity = 0.25,
  serverLearningRate = 1,
}: FlascOptions = {}): Strategy<FlascState> {
  return {
    name: "FLASC",
    paper,
    declares: { weightedSum: true, uniformWeights: true },
    init: (params) => ({ params, sent: largest(params, downDensity) }),
    broadcast: ({ sent }) => ({ params: sent }),
    local: sparseUpload(upDensity),
    aggregate({ params, sent }, updates) {
      const next = addScaled(params, serverLearningRate, meanMove("FLASC", sent, updates)); // w − η g
      return { state: { params: next, sent: largest(next, downDensity) } };
    },
    global: ({ params }) => params,
  };
}

/** Options of FLASC with an AdamW step on the server. */
export interface FlascAdamwOptions extends FlascOptions {
  /** Default: 0.9. */
  readonly beta1?: number;
  /** Default: 0.999. */
  readonly beta2?: number;
  /** Default: 1e-8. */
  readonly epsilon?: number;
  /** Shrinks also the weights that nobody sent. Default: 0.01. */
  readonly weightDecay?: number;
}

/** State of FLASC with an AdamW step on the server. */
export interface FlascAdamwState extends FlascState {
  readonly momentum: Params;
  readonly secondMoment: Params;
  /** Number of server steps. */
  readonly step: number;
}

/**
 * FLASC as its authors run it: the server takes an AdamW step along the mean move in place of adding it. The step size is
 * 1e-3 where none is given.
 *
 * Kuo et al., 2024, Algorithm 1. https://arxiv.org/abs/2406.05233
 */
export function flascAdamw({
  downDensity = 0.25,
  upDensity = 0.25,
  serverLearningRate = 1e-3,
  beta1 = 0.9,
  beta2 = 0.999,
  epsilon = 1e-8,
  weightDecay = 0.01,
}: FlascAdamwOptions = {}): Strategy<FlascAdamwState> {
  const sparse = flasc({ downDensity, upDensity });
  return {
    ...sparse,
    name: "FLASC, AdamW on the server",
    local: sparseUpload(upDensity),
    init: (params) => ({
      params,
      sent: largest(params, downDensity),
      momentum: zerosLike(params),
      secondMoment: zerosLike(params),
      step: 0,
    }),
    broadcast: ({ sent }) => ({ params: sent }),
    aggregate(before, updates) {
      const move = meanMove("FLASC", before.sent, updates); // −g
      const step = before.step + 1;
      const [correction1, correction2] = [1 - beta1 ** step, 1 - beta2 ** step];
      const momentum = combined(before.momentum, move, (m, x) => beta1 * m - (1 - beta1) * x);
      const secondMoment = combined(before.secondMoment, move, (v, x) => beta2 * v + (1 - beta2) * x * x);
      const direction = combined(
        momentum,
        secondMoment,
        (m, v) => m / correction1 / (Math.sqrt(v / correction2) + epsilon),
      );
      const params = combined(
        before.params,
        direction,
        (w, d) => w - serverLearningRate * (weightDecay * w + d),
      );
      return { state: { params, sent: largest(params, downDensity), momentum, secondMoment, step } };
    },
    global: ({ params }) => params,
  };
}

/** What leaves the client: the trained values where it moved furthest, the start's elsewhere. */
function sparseUpload(density: number): LocalRule {
  return {
    upload({ received, params }) {
      const start = received.params; // w₀
      const moved = kept(sub(params, start), density); // m_up of δ_k
      return {
        params: mapParams(params, (tensor, name) => {
          const values = floats(tensor);
          const untouched = floats(start.get(name) ?? tensor);
          const mask = moved.get(name);
          return floatTensor(
            tensor,
            tensor.shape,
            Float64Array.from(values, (x, i) => (mask?.[i] ? x : (untouched[i] ?? x))),
          );
        }),
      };
    },
  };
}

/** (1/K) Σ δ̃_k = −g */
function meanMove(who: string, start: Params, updates: readonly Update[]): Params {
  const mean = weightedMean(
    updates.map(({ params }) => params),
    weightsOf(who, updates, "uniform"),
  );
  return sub(mean, start);
}

/** The largest entries of all tensors together, 0 elsewhere. */
function largest(params: Params, density: number): Params {
  const masks = kept(params, density);
  return mapParams(params, (tensor, name) =>
    floatTensor(
      tensor,
      tensor.shape,
      Float64Array.from(floats(tensor), (x, i) => (masks.get(name)?.[i] ? x : 0)),
    ),
  );
}

/**
 * Which entries are among the ⌊density · D⌋ largest of all D, by tensor. Of equal ones the first: factors come before
 * other tensors, each in order of name.
 */
function kept(params: Params, density: number): ReadonlyMap<string, Uint8Array> {
  const names = sortedNames(params);
  const order = [...names.filter(isFactor), ...names.filter((name) => !isFactor(name))];
  const parts = order.map((name) => params.get(name)).filter((tensor) => tensor !== undefined);
  const flat = new Float64Array(parts.reduce((size, { data }) => size + data.length, 0));
  let end = 0;
  for (const tensor of parts) {
    flat.set(floats(tensor), end);
    end += tensor.data.length;
  }
  const mask = new Uint8Array(flat.length);
  for (const i of topK(flat, Math.floor(density * flat.length))) mask[i] = 1;
  let at = 0;
  return new Map(
    order.map((name) => {
      const size = params.get(name)?.data.length ?? 0;
      at += size;
      return [name, mask.subarray(at - size, at)];
    }),
  );
}

/** Two sets combined entry by entry. */
function combined(x: Params, y: Params, change: (x: number, y: number) => number): Params {
  return mapParams(x, (tensor, name) => {
    const other = floats(y.get(name) ?? tensor);
    return floatTensor(
      tensor,
      tensor.shape,
      Float64Array.from(floats(tensor), (value, i) => change(value, other[i] ?? 0)),
    );
  });
}
