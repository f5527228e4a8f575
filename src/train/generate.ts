import { type AttachedAdapter, adaptedScope, adapterBase } from "../adapters/adapter.ts";
import { TributaryError } from "../errors.ts";
import { dimSize, gather, sub } from "../graph/ops.ts";
import { input, type Value } from "../graph/value.ts";
import type { CacheSize } from "../models/model.ts";
import type { TaskModel } from "../models/task.ts";
import type { Session } from "../runtime/session.ts";
import type { Params } from "../tensor/params.ts";
import { type RandomStream, stream } from "../tensor/random.ts";
import { type Tensor, tensor } from "../tensor/tensor.ts";
import { encode } from "./step.ts";

/** A traced decoder: one graph reads the prompt and continues it. */
export interface DecoderGraph {
  readonly graph: Uint8Array<ArrayBuffer>;
  readonly cache: CacheSize;
  /** Tokens that prompt and continuation may have together. */
  readonly maxPositions: number;
}

const names = {
  past: (layer: number, part: "key" | "value"): string => `past/${layer}/${part}`,
  present: (layer: number, part: "key" | "value"): string => `present/${layer}/${part}`,
} as const;

/** Traces a causal model so that keys and values of past tokens go in and those of all tokens come out. */
export function traceDecoder(taskModel: TaskModel, attached: readonly AttachedAdapter[] = []): DecoderGraph {
  const { model, config, task } = taskModel;
  const cache = model.cache?.(config);
  if (!cache || task !== "causal-lm") {
    throw new TributaryError(
      "unsupported-model",
      `generate: a ${model.type} model for ${task} does not generate text`,
    );
  }
  const part = (layer: number, which: "key" | "value"): Value =>
    input(names.past(layer, which), "float32", ["batch", cache.keyValueHeads, "past", cache.headDim]);
  const layers = Array.from({ length: cache.layers }, (_, i) => ({
    key: part(i, "key"),
    value: part(i, "value"),
  }));
  const inputs = {
    inputIds: input("input_ids", "int64", ["batch", "sequence"]),
    attentionMask: input("attention_mask", "int64", ["batch", "total"]),
    positionIds: input("position_ids", "int64", ["batch", "sequence"]),
    cache: { layers, past: "past", total: "total" },
  };
  const w = adaptedScope(adapterBase(taskModel), attached);
  const { states, present } = model.hidden(w, inputs, config, task);
  const last = gather(states, sub(dimSize("sequence"), 1), 1); // [B, D]
  const outputs = new Map([["logits", model.head(w, last, inputs, config, task)]]);
  present.forEach(({ key, value }, i) => {
    outputs.set(names.present(i, "key"), key).set(names.present(i, "value"), value);
  });
  return { graph: encode(outputs), cache, maxPositions: config.maxPositions };
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
  /** Logarithm of its probability under the model, before temperature and truncation. */
  readonly logProb: number;
}

/**
 * Continues a prompt token by token; ends at a stop token, at `maxTokens`, or where the positions of the model end.
 * `session` runs the decoder's graph; `weights` are base weights and adapter parameters.
 */
export async function* generate(
  { cache, maxPositions }: Omit<DecoderGraph, "graph">,
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
  let past = emptyCache(cache);
  let tokens = prompt;
  let total = 0;
  for (let made = 0; made < maxTokens && total + tokens.length <= maxPositions; made++) {
    signal?.throwIfAborted();
    const feeds = tokenFeeds(tokens, total);
    const outputs = await session.run(new Map([...weights, ...past, ...feeds]));
    total += tokens.length;
    const logits = outputs.get("logits");
    if (!logits) throw new Error("generate: the session has no output named logits");
    const values = Float64Array.from(logits.data, Number);
    const id = chooseToken(values, sampling, random);
    if (stops.has(id)) return;
    yield { id, logProb: (values[id] ?? Number.NaN) - logSumExp(values) };
    past = presentCache(cache, outputs);
    tokens = [id];
  }
}

function emptyCache({ layers, keyValueHeads, headDim }: CacheSize): Params {
  const empty = tensor("float32", [1, keyValueHeads, 0, headDim], new Float32Array(0));
  const past = new Map<string, Tensor>();
  for (let i = 0; i < layers; i++) past.set(names.past(i, "key"), empty).set(names.past(i, "value"), empty);
  return past;
}

function presentCache({ layers }: CacheSize, outputs: Params): Params {
  const past = new Map<string, Tensor>();
  for (let i = 0; i < layers; i++) {
    for (const part of ["key", "value"] as const) {
      const value = outputs.get(names.present(i, part));
      if (!value) throw new Error(`generate: the session has no output named ${names.present(i, part)}`);
      past.set(names.past(i, part), value);
    }
  }
  return past;
}

function tokenFeeds(tokens: readonly number[], past: number): Params {
  const total = past + tokens.length;
  const positions = BigInt64Array.from(tokens, (_, i) => BigInt(past + i));
  return new Map([
    ["input_ids", tensor("int64", [1, tokens.length], BigInt64Array.from(tokens, BigInt))],
    ["attention_mask", tensor("int64", [1, total], new BigInt64Array(total).fill(1n))],
    ["position_ids", tensor("int64", [1, tokens.length], positions)],
  ]);
}

function checkSampling({ temperature = 0, topK = 0, topP = 1 }: SamplingOptions): void {
  const problems: string[] = [];
  if (!(temperature >= 0 && Number.isFinite(temperature)))
    problems.push(`temperature ${temperature} (expected >= 0)`);
  if (!(Number.isInteger(topK) && topK >= 0)) problems.push(`topK ${topK} (expected an integer >= 0)`);
  if (!(topP > 0 && topP <= 1)) problems.push(`topP ${topP} (expected above 0, at most 1)`);
  if (problems.length > 0) throw new RangeError(`generate: got ${problems.join(", ")}`);
}

function logSumExp(values: Float64Array): number {
  const top = values.reduce((a, b) => Math.max(a, b), Number.NEGATIVE_INFINITY);
  return top + Math.log(values.reduce((sum, value) => sum + Math.exp(value - top), 0));
}

/** The next token by logits: temperature first, then top-k, then top-p, as in Transformers. */
export function chooseToken(
  logits: Float64Array,
  { temperature = 0, topK = 0, topP = 1 }: SamplingOptions,
  random: RandomStream,
): number {
  if (temperature === 0)
    return logits.reduce((best, value, i) => (value > (logits[best] ?? 0) ? i : best), 0);
  const order = Array.from(logits, (logit, id) => ({ id, logit: logit / temperature }));
  order.sort((a, b) => b.logit - a.logit || a.id - b.id);
  const kept = topK > 0 ? order.slice(0, topK) : order;
  const top = kept[0]?.logit ?? 0;
  const weights = kept.map(({ logit }) => Math.exp(logit - top));
  const mass = weights.reduce((sum, weight) => sum + weight, 0);
  const nucleus = within(weights, topP * mass);
  const chosen = topP < 1 ? weights.slice(0, nucleus) : weights;
  const draw = random.uniform() * chosen.reduce((sum, weight) => sum + weight, 0);
  return kept[Math.min(within(chosen, draw), chosen.length) - 1]?.id ?? 0;
}

/** How many leading weights it takes for their sum to exceed or meet `target`; at least 1. */
function within(weights: readonly number[], target: number): number {
  let sum = 0;
  for (const [i, weight] of weights.entries()) {
    sum += weight;
    if (sum >= target && sum > 0) return i + 1;
  }
  return weights.length;
}
