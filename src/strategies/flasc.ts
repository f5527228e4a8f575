import { floats, floatTensor, isFactor } from "../federation/low-rank.ts";
import type { LocalRule, Payload, StateTree, Strategy, Update } from "../federation/strategy.ts";
import { weightsOf } from "../federation/weights.ts";
import { addScaled, mapParams, type Params, sortedNames, sub, zerosLike } from "../tensor/params.ts";
import { packPlaces, scatter } from "../tensor/places.ts";
import type { Tensor } from "../tensor/tensor.ts";
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

/** Some entries of the vector of all that is trained, or of a move of it, and their places. */
export interface Sent {
  readonly [key: string]: StateTree;
  readonly params: Params;
  readonly extra: Params;
}

/** State of FLASC: the dense weights, and what of them is sent. */
export interface FlascState {
  readonly [key: string]: StateTree;
  /** w */
  readonly params: Params;
  /** w ⊙ m_down: the values that are sent, and their places */
  readonly sent: Sent;
}

/**
 * FLASC: clients train the adapter densely, but only its largest weights go down and only its largest moves go up, as
 * values and places in one vector of all that is trained. A move is relative to the sparse start, and the mean move is
 * added to the server's dense weights. What is 0 stays at home: no B goes down before a client has moved one. The model that
 * is evaluated and saved is the one that clients start from, the largest weights alone.
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
    declares: { uniformWeights: true, sendsDeltas: true },
    init: (params) => ({ params, sent: largest(params, downDensity) }),
    broadcast: ({ sent }) => sent,
    local: sparseExchange(upDensity),
    aggregate({ params }, updates) {
      const next = addScaled(params, serverLearningRate, meanMove(params, updates, upDensity)); // w − η g
      return { state: { params: next, sent: largest(next, downDensity) } };
    },
    global: ({ params, sent }) => spread(sent, params), // as its authors evaluate it
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
    init: (params, clients) => ({
      ...sparse.init(params, clients),
      momentum: zerosLike(params),
      secondMoment: zerosLike(params),
      step: 0,
    }),
    aggregate(before, updates) {
      const move = meanMove(before.params, updates, upDensity); // −g
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
    global: ({ params, sent }) => spread(sent, params), // as its authors evaluate it
  };
}

const WEIGHTS = "flasc.weights";
const MOVES = "flasc.moves";
const PLACES = "flasc.places";

/** A client starts from the weights that came and 0 elsewhere, and uploads where it moved furthest. */
function sparseExchange(density: number): LocalRule {
  return {
    start: ({ initial, received }) => ({ params: spread(received, initial), extra: new Map() }), // w₀
    upload({ initial, received, params }) {
      const moves = flattened(sub(params, spread(received, initial))); // δ_k
      return packed(MOVES, moves, topK(moves, countOf(density, moves.length)), params);
    },
  };
}

/** What was sent, either way, as tensors like those that are trained: 0 where nothing was. */
export function spread({ params, extra }: Pick<Payload, "params" | "extra">, like: Params): Params {
  return unflattened(vectorOf(params.get(WEIGHTS) ?? params.get(MOVES), extra, sizeOfAll(like)), like);
}

/** w ⊙ m_down. */
function largest(params: Params, density: number): Sent {
  const weights = flattened(params);
  const places = topK(weights, countOf(density, weights.length)); // m_down
  return packed(
    WEIGHTS,
    weights,
    places.filter((i) => weights[i] !== 0),
    params,
  );
}

/** (1/K) Σ δ̃_k = −g */
function meanMove(params: Params, updates: readonly Update[], upDensity: number): Params {
  const weights = weightsOf("FLASC", updates, "uniform");
  const size = sizeOfAll(params);
  const count = countOf(upDensity, size);
  const mean = new Float64Array(size);
  for (const { client, params: sent, extra } of updates) {
    const moves = sent.get(MOVES);
    if (moves?.data.length !== count) {
      throw new RangeError(
        `FLASC: client ${client.id} sent ${moves?.data.length ?? "no"} moves, expected ${count} of ${size} numbers`,
      );
    }
    vectorOf(moves, extra, size).forEach((move, i) => {
      mean[i]! += move / weights.length;
    });
  }
  return unflattened(mean, params);
}

/** ⌊density · D⌋ */
const countOf = (density: number, size: number): number => Math.floor(density * size);

/** Chosen entries of a vector, under a name, and their places. */
function packed(name: string, vector: Float64Array, places: Uint32Array, like: Params): Sent {
  const tensors = [...like.values()];
  const widest = tensors.find(({ dtype }) => dtype === "float64") ?? tensors[0];
  const values = Float64Array.from(places, (i) => vector[i]!);
  return {
    params: new Map(widest && [[name, floatTensor(widest, [places.length], values)]]),
    extra: new Map([[PLACES, packPlaces(places, vector.length)]]),
  };
}

/** The vector of which values and places are known. */
function vectorOf(values: Tensor | undefined, extra: Params | undefined, size: number): Float64Array {
  const places = extra?.get(PLACES);
  if (!values || !places) throw new RangeError("FLASC: values without places, or places without values");
  return scatter(floats(values), places, size);
}

/** All entries as one vector, which decides ties: factors before other tensors, each in order of name. */
function flattened(params: Params): Float64Array {
  const vector = new Float64Array(sizeOfAll(params));
  let at = 0;
  for (const tensor of inOrder(params)) {
    vector.set(floats(tensor), at);
    at += tensor.data.length;
  }
  return vector;
}

/** A vector as tensors of the names, shapes and dtypes of others. */
function unflattened(vector: Float64Array, like: Params): Params {
  const tensors = new Map<Tensor, Tensor>();
  let at = 0;
  for (const tensor of inOrder(like)) {
    const end = at + tensor.data.length;
    tensors.set(tensor, floatTensor(tensor, tensor.shape, vector.slice(at, end)));
    at = end;
  }
  return mapParams(like, (tensor) => tensors.get(tensor) ?? tensor);
}

function inOrder(params: Params): Tensor[] {
  const names = sortedNames(params);
  const order = [...names.filter(isFactor), ...names.filter((name) => !isFactor(name))];
  return order.flatMap((name) => params.get(name) ?? []);
}

const sizeOfAll = (params: Params): number =>
  [...params.values()].reduce((size, { data }) => size + data.length, 0);

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
