import { type AttachedAdapter, adaptedScope, adapterBase } from "../adapters/adapter.ts";
import { TributaryError } from "../errors.ts";
import type { EncodedGraph } from "../graph/onnx.ts";
import { concat, flattenRows, gather } from "../graph/ops.ts";
import type { PackedWeights } from "../graph/passes/held-weights.ts";
import { timesDim } from "../graph/shape.ts";
import { input, type Value } from "../graph/value.ts";
import type { CacheSize } from "../models/model.ts";
import type { TaskModel } from "../models/task.ts";
import type { WeightSpec } from "../nn/scope.ts";
import type { Session } from "../runtime/session.ts";
import type { Params } from "../tensor/params.ts";
import { type RandomStream, stream } from "../tensor/random.ts";
import { tensor } from "../tensor/tensor.ts";
import { cacheFeeds, type KeyValueCache, openCache } from "./key-value-cache.ts";
import { encode, encodePacked } from "./step.ts";

/** New tokens for which a cache has room from the start. */
const ROOM = 512;

/** A traced decoder: one graph reads the prompt and continues it. */
export interface DecoderGraph extends EncodedGraph {
  readonly cache: CacheSize;
  /** Tokens that prompt and continuation may have together. */
  readonly maxPositions: number;
}

/** What the host knows of a traced decoder. */
export type DecoderSize = Pick<DecoderGraph, "cache" | "maxPositions">;

const names = {
  rows: "logit_rows",
  logits: "logits",
  present: "present",
} as const;

export interface DecoderOptions {
  /** As in `adaptedScope`. Default: none. */
  readonly further?: ReadonlyMap<string, WeightSpec>;
  /** Weights whose blocks the graph holds, so that it serves these weights alone, and faster. Default: all are fed. */
  readonly packed?: PackedWeights | undefined;
}

/**
 * Traces a causal model so that keys and values of past tokens go in and those of the tokens of the pass come out, with
 * logits at chosen tokens.
 */
export function traceDecoder(
  taskModel: TaskModel,
  attached: readonly AttachedAdapter[] = [],
  { further = new Map(), packed }: DecoderOptions = {},
): DecoderGraph {
  const { model, config, task } = taskModel;
  const cache = model.cache?.(config);
  if (!cache || task !== "causal-lm") {
    throw new TributaryError(
      "unsupported-model",
      `generate: a ${model.type} model for ${task} does not generate text`,
    );
  }
  const part = (layer: number, which: "key" | "value"): Value =>
    input(cacheFeeds.part(layer, which), "float32", [
      "batch",
      cache.keyValueHeads,
      "capacity",
      cache.headDim,
    ]);
  const layers = Array.from({ length: cache.layers }, (_, i) => ({
    key: part(i, "key"),
    value: part(i, "value"),
  }));
  const inputs = {
    inputIds: input("input_ids", "int64", ["batch", "sequence"]),
    positionIds: input("position_ids", "int64", ["batch", "sequence"]),
    cache: { layers, capacity: "capacity", lengths: input(cacheFeeds.lengths, "int64", ["batch"]) },
  };
  const w = adaptedScope(adapterBase(taskModel), attached, further);
  const { states, present } = model.hidden(w, inputs, config, task);
  const read = gather(flattenRows(states), input(names.rows, "int64", ["rows"])); // [rows, D]
  const parts = present.flatMap(({ key, value }) => [key, value]); // [B, Hkv, T, d] each
  const outputs = new Map([
    [names.logits, model.head(w, read, inputs, config, task)],
    [names.present, concat(parts, 0, timesDim(parts.length, "batch"))],
  ]);
  const encoded = packed
    ? encodePacked(outputs, packed)
    : { graph: encode(outputs), constants: new Map<string, Uint8Array>() };
  return { ...encoded, cache, maxPositions: config.maxPositions };
}

/**
 * Runs a pass over new tokens of each row, at least one, and puts their keys and values into the cache. Gives the logits after
 * the last token of each row.
 */
export async function decode(
  session: Session,
  weights: Params,
  cache: KeyValueCache,
  tokens: readonly (readonly number[])[],
): Promise<readonly Float32Array[]> {
  const width = tokens.reduce((most, { length }) => Math.max(most, length), 0);
  const shape = [tokens.length, width];
  const ids = new BigInt64Array(tokens.length * width);
  const positions = new BigInt64Array(ids.length);
  const rows: bigint[] = [];
  tokens.forEach((own, row) => {
    own.forEach((id, t) => {
      const at = row * width + t;
      ids[at] = BigInt(id);
      positions[at] = BigInt((cache.lengths[row] ?? 0) + t);
    });
    rows.push(BigInt(row * width + own.length - 1));
  });
  const outputs = await session.run(
    new Map([
      ...weights,
      ...cache.feeds(),
      ["input_ids", tensor("int64", shape, ids)] as const,
      ["position_ids", tensor("int64", shape, positions)] as const,
      [names.rows, tensor("int64", [rows.length], BigInt64Array.from(rows))] as const,
    ]),
  );
  const [logits, present] = [outputs.get(names.logits), outputs.get(names.present)];
  if (!logits || !present || !(logits.data instanceof Float32Array))
    throw new Error(`generate: the session has no float32 outputs "${names.logits}", "${names.present}"`);
  cache.append(
    present,
    tokens.map(({ length }) => length),
  );
  const { data } = logits;
  const size = data.length / rows.length;
  return rows.map((_, i) => data.subarray(i * size, (i + 1) * size));
}

/** How the next token is chosen. The defaults are greedy. */
export interface SamplingOptions {
  /** Divides the logits; 0 takes the most likely token. Default: 0. */
  readonly temperature?: number;
  /** Keeps this many of the most likely tokens; 0 keeps all. Default: 0. */
  readonly topK?: number;
  /** Keeps the smallest set of most likely tokens with at least this probability; 1 keeps all. Default: 1. */
  readonly topP?: number;
  /** Default: 0. */
  readonly seed?: number;
}

export interface GenerateOptions extends SamplingOptions {
  /** Token ids to continue. */
  readonly prompt: readonly number[];
  /** Most tokens to generate. */
  readonly maxTokens: number;
  /** Ids that end the text; they are not part of it. */
  readonly stopTokens?: readonly number[];
  readonly signal?: AbortSignal;
}

/** One generated token. */
export interface GeneratedToken {
  readonly id: number;
  /** Logarithm of its probability under the model, before temperature and truncation; it takes a sum over the vocabulary. */
  logProb(): number;
}

/**
 * Continues a prompt token by token; ends at a stop token, at `maxTokens`, or where the positions of the model end.
 * `session` runs the decoder's graph; `weights` are base weights and adapter parameters.
 */
export async function* generate(
  { cache: size, maxPositions }: DecoderSize,
  session: Session,
  weights: Params,
  { prompt, maxTokens, stopTokens = [], signal, ...sampling }: GenerateOptions,
): AsyncGenerator<GeneratedToken> {
  if (prompt.length === 0 || prompt.length > maxPositions) {
    throw new RangeError(`generate: got a prompt of ${prompt.length} tokens, expected 1 to ${maxPositions}`);
  }
  checkSampling(sampling);
  const random = stream({ seed: sampling.seed ?? 0, purpose: "generate" });
  const stops = new Set(stopTokens);
  const expected = Math.min(prompt.length + maxTokens, prompt.length + ROOM, maxPositions);
  const cache = openCache(size, { rows: 1, expected });
  let tokens = prompt;
  for (let made = 0; made < maxTokens && (cache.lengths[0] ?? 0) + tokens.length <= maxPositions; made++) {
    signal?.throwIfAborted();
    const [logits] = await decode(session, weights, cache, [tokens]);
    if (!logits) throw new Error("generate: a pass without logits");
    const id = chooseToken(logits, sampling, random);
    if (stops.has(id)) return;
    yield { id, logProb: () => (logits[id] ?? Number.NaN) - logSumExp(logits) };
    tokens = [id];
  }
}

function checkSampling({ temperature = 0, topK = 0, topP = 1 }: SamplingOptions): void {
  const problems: string[] = [];
  if (!(temperature >= 0 && Number.isFinite(temperature)))
    problems.push(`temperature ${temperature} (expected >= 0)`);
  if (!(Number.isInteger(topK) && topK >= 0)) problems.push(`topK ${topK} (expected an integer >= 0)`);
  if (!(topP > 0 && topP <= 1)) problems.push(`topP ${topP} (expected above 0, at most 1)`);
  if (problems.length > 0) throw new RangeError(`generate: got ${problems.join(", ")}`);
}

/** Logarithm of the sum of the exponentials of logits. */
function logSumExp(logits: Float32Array): number {
  const top = logits[likeliest(logits)] ?? 0;
  let sum = 0;
  // By index: an iterator takes longer, for each token of a vocabulary and each token of a text.
  for (let i = 0; i < logits.length; i++) sum += Math.exp((logits[i] ?? 0) - top);
  return top + Math.log(sum);
}

/** The index of the largest logit, the first of equals. */
export function likeliest(logits: Float32Array | Float64Array): number {
  let best = 0;
  let top = Number.NEGATIVE_INFINITY;
  for (let i = 0; i < logits.length; i++) {
    const logit = logits[i] ?? 0;
    if (logit > top) [best, top] = [i, logit];
  }
  return best;
}

/** The next token by logits: temperature first, then top-k, then top-p, as in Transformers. */
export function chooseToken(
  logits: Float32Array | Float64Array,
  { temperature = 0, topK = 0, topP = 1 }: SamplingOptions,
  random: RandomStream,
): number {
  const best = likeliest(logits);
  if (temperature === 0) return best;
  const top = logits[best] ?? 0;
  const weightOf = (id: number): number => Math.exp(((logits[id] ?? 0) - top) / temperature);
  const order = descending(logits, top);
  const kept = topK > 0 ? firstOf(order, topK) : undefined;
  let mass = 0;
  if (kept) for (const id of kept) mass += weightOf(id);
  else for (let id = 0; id < logits.length; id++) mass += weightOf(id);
  if (topP === 1) return within(kept ?? order, weightOf, random.uniform() * mass).at(-1) ?? 0;
  const nucleus = within(kept ?? order, weightOf, topP * mass);
  const share = nucleus.reduce((sum, id) => sum + weightOf(id), 0);
  return within(nucleus, weightOf, random.uniform() * share).at(-1) ?? 0;
}

function firstOf(order: Iterable<number>, count: number): number[] {
  const first: number[] = [];
  for (const id of order) {
    first.push(id);
    if (first.length === count) break;
  }
  return first;
}

/** The leading tokens that it takes for the sum of their weights to meet `target`; at least 1. */
function within(order: Iterable<number>, weightOf: (id: number) => number, target: number): number[] {
  const leading: number[] = [];
  let sum = 0;
  for (const id of order) {
    leading.push(id);
    sum += weightOf(id);
    if (sum >= target && sum > 0) break;
  }
  return leading;
}

/** Logits within this of the largest are sorted first, then those within twice as much, and so on. */
const BAND = 4;

/** Tokens from the likeliest down, equals in the order of their ids. A draw seldom needs more than the first few. */
function* descending(logits: Float32Array | Float64Array, top: number): Generator<number> {
  for (
    let above = Number.POSITIVE_INFINITY, below = top - BAND;
    ;
    above = below, below = top - 2 * (top - below)
  ) {
    const band: number[] = [];
    let rest = false;
    for (let id = 0; id < logits.length; id++) {
      const logit = logits[id] ?? 0;
      if (logit < above && logit >= below) band.push(id);
      else if (logit < below) rest = true;
    }
    yield* band.sort((a, b) => (logits[b] ?? 0) - (logits[a] ?? 0) || a - b);
    if (!rest) return;
  }
}
