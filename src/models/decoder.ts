import { dimAt } from "../graph/shape.ts";
import { constant, type Value } from "../graph/value.ts";
import {
  type AttentionOptions,
  additiveMask,
  attention,
  joinHeads,
  type KeyValue,
  type Past,
  pastMask,
  splitHeads,
} from "../nn/attention.ts";
import { linear } from "../nn/linear.ts";
import { lastState } from "../nn/pooling.ts";
import { type RopeOptions, type RopeTables, rope, ropeTables } from "../nn/rope.ts";
import type { Scope } from "../nn/scope.ts";
import { tensor } from "../tensor/tensor.ts";
import { type ConfigReader, numLabels } from "./config.ts";
import type { Model, ModelConfig, ModelParameter, Task, TokenInputs } from "./model.ts";
import { embeddingTensors, linearTensors, type Tensors } from "./parameters.ts";
import { TABLE_POSITIONS } from "./rope-config.ts";

/** What the queries of one layer see, and how their positions turn them. */
export interface LayerView {
  /** Keys that a query sees at most; absent: all before it. */
  readonly window?: number | undefined;
  readonly rope: RopeOptions;
}

/** What the families of Llama's shape have in common. */
export interface DecoderConfig extends ModelConfig {
  readonly intermediateSize: number;
  readonly numHiddenLayers: number;
  readonly numAttentionHeads: number;
  readonly numKeyValueHeads: number;
  readonly headDim: number;
  readonly rmsNormEps: number;
  readonly tieWordEmbeddings: boolean;
  /** One entry a layer. */
  readonly views: readonly LayerView[];
}

/** Where the families differ in what an absent key means. */
export interface DecoderDefaults {
  readonly rmsNormEps: number;
  readonly tieWordEmbeddings: boolean;
  /** Default: hidden_size / num_attention_heads. */
  readonly headDim?: number;
}

/** Reads what the families spell alike; how layers see is the family's to say. */
export function readDecoder(
  read: ConfigReader,
  json: Readonly<Record<string, unknown>>,
  defaults: DecoderDefaults,
): Omit<DecoderConfig, "views"> {
  const hiddenSize = read.number("hidden_size");
  const numAttentionHeads = read.number("num_attention_heads");
  const config = {
    hiddenSize,
    vocabSize: read.number("vocab_size"),
    maxPositions: Math.min(read.number("max_position_embeddings", 2048), TABLE_POSITIONS),
    numLabels: numLabels(json),
    initializerRange: read.number("initializer_range", 0.02),
    intermediateSize: read.number("intermediate_size"),
    numHiddenLayers: read.number("num_hidden_layers"),
    numAttentionHeads,
    numKeyValueHeads: read.number("num_key_value_heads", numAttentionHeads),
    headDim: read.number("head_dim", defaults.headDim ?? hiddenSize / numAttentionHeads),
    rmsNormEps: read.number("rms_norm_eps", defaults.rmsNormEps),
    tieWordEmbeddings: read.boolean("tie_word_embeddings", defaults.tieWordEmbeddings),
  };
  if (numAttentionHeads % config.numKeyValueHeads !== 0) {
    read.refuse("num_key_value_heads", `a divisor of num_attention_heads (${numAttentionHeads})`);
  }
  if (config.headDim % 2 !== 0) read.refuse("head_dim", "an even number");
  return config;
}

/** The same view in every layer. */
export function everyLayer(
  { numHiddenLayers }: Pick<DecoderConfig, "numHiddenLayers">,
  view: LayerView,
): LayerView[] {
  return Array.from({ length: numHiddenLayers }, () => view);
}

/** Which layers see a window only: those that `layer_types` calls so, else those that `otherwise` chooses. */
export function windowedLayers(
  read: ConfigReader,
  { numHiddenLayers }: Pick<DecoderConfig, "numHiddenLayers">,
  otherwise: (layer: number) => boolean,
): boolean[] {
  const types = read.strings("layer_types", "sliding_attention", "full_attention");
  if (types && types.length !== numHiddenLayers) read.refuse("layer_types", `${numHiddenLayers} entries`);
  return Array.from({ length: numHiddenLayers }, (_, i) =>
    types ? types[i] === "sliding_attention" : otherwise(i),
  );
}

/** What the families of Llama's shape share as models. */
export const decoder: Required<
  Pick<
    Model<DecoderConfig, TokenInputs>,
    "tasks" | "reads" | "prefix" | "buffers" | "tied" | "head" | "cache"
  >
> = {
  tasks: ["causal-lm", "sequence-classification", "regression"],
  reads: ["input_ids", "attention_mask", "position_ids", "segment_ids"],
  prefix: "model",
  buffers: /rotary_emb\.inv_freq$/,

  tied: ({ tieWordEmbeddings }) =>
    new Map(tieWordEmbeddings ? [["lm_head.weight", "model.embed_tokens.weight"]] : []),

  head: decoderHead,

  cache: ({ numHiddenLayers, numKeyValueHeads, headDim }) => ({
    layers: numHiddenLayers,
    keyValueHeads: numKeyValueHeads,
    headDim,
  }),
};

/** Logits of the next token, or what the last token of a row says of its class. */
export function decoderHead(
  w: Scope,
  states: Value,
  { attentionMask }: TokenInputs,
  _config: ModelConfig,
  task: Task,
): Value {
  if (task === "causal-lm") return linear(w.at("lm_head"), states); // [..., V]
  return linear(w.at("score"), lastState(states, attentionMask)); // [B, labels]
}

/** Every tensor of a decoder: the embedding, `layer` of each path, the last norm, and the head of the task. */
export function decoderParameters(
  config: DecoderConfig,
  task: Task,
  layer: (path: string) => Tensors,
  norm: (name: string, width: number) => Tensors,
): ReadonlyMap<string, ModelParameter> {
  const { hiddenSize, vocabSize, numHiddenLayers } = config;
  const paths = Array.from({ length: numHiddenLayers }, (_, i) => `model.layers.${i}`);
  return new Map([
    ...embeddingTensors("model.embed_tokens", vocabSize, hiddenSize),
    ...paths.flatMap(layer),
    ...norm("model.norm", hiddenSize),
    ...headTensors(config, task),
  ]);
}

/** The output layer of a task; none where it is tied to the embedding. */
export function headTensors(
  {
    hiddenSize,
    vocabSize,
    numLabels,
    tieWordEmbeddings,
  }: Pick<DecoderConfig, "tieWordEmbeddings"> & ModelConfig,
  task: Task,
): Tensors {
  if (task !== "causal-lm") {
    return linearTensors("score", numLabels, hiddenSize, { bias: false, head: true, fresh: true });
  }
  return tieWordEmbeddings
    ? []
    : linearTensors("lm_head", vocabSize, hiddenSize, { bias: false, head: true });
}

/** The projections of grouped-query attention. */
export function attentionTensors(
  path: string,
  { hiddenSize, numAttentionHeads, numKeyValueHeads, headDim }: DecoderConfig,
  { bias, outputBias = bias }: { readonly bias: boolean; readonly outputBias?: boolean },
): Tensors {
  return [
    ...linearTensors(`${path}.q_proj`, numAttentionHeads * headDim, hiddenSize, { bias }),
    ...linearTensors(`${path}.k_proj`, numKeyValueHeads * headDim, hiddenSize, { bias }),
    ...linearTensors(`${path}.v_proj`, numKeyValueHeads * headDim, hiddenSize, { bias }),
    ...linearTensors(`${path}.o_proj`, hiddenSize, numAttentionHeads * headDim, { bias: outputBias }),
  ];
}

/** The projections of a gated MLP. */
export function gatedMlpTensors(
  path: string,
  { hiddenSize, intermediateSize }: DecoderConfig,
  { bias }: { readonly bias: boolean } = { bias: false },
): Tensors {
  return [
    ...linearTensors(`${path}.gate_proj`, intermediateSize, hiddenSize, { bias }),
    ...linearTensors(`${path}.up_proj`, intermediateSize, hiddenSize, { bias }),
    ...linearTensors(`${path}.down_proj`, hiddenSize, intermediateSize, { bias }),
  ];
}

/** What a layer's attention needs beside queries, keys and values. */
export interface LayerContext {
  readonly mask: Value | undefined;
  readonly positions: Value;
  readonly tables: RopeTables;
  readonly past: Past | undefined;
}

/** What a layer gives to the next, and to the cache. */
export interface LayerOutput {
  readonly states: Value; // [B, T, D]
  readonly present: KeyValue;
}

/** One layer of a model, under its scope. */
export type DecoderLayer<Config> = (w: Scope, x: Value, context: LayerContext, config: Config) => LayerOutput;

/** Runs the layers over embedded tokens [B, T, D]; equal views share masks and tables. */
export function runLayers<Config extends DecoderConfig>(
  w: Scope,
  embedded: Value,
  { inputIds, attentionMask, positionIds, segmentIds, cache }: TokenInputs,
  config: Config,
  layer: DecoderLayer<Config>,
): { readonly states: Value; readonly present: readonly KeyValue[] } {
  const positions = positionIds ?? constant(tensor("int64", [1], new BigInt64Array(1)));
  const masks = new Map<number | undefined, LayerMasks>();
  const tables = new Map<RopeOptions, RopeTables>();
  const present: KeyValue[] = [];
  let states = embedded;
  config.views.forEach(({ window, rope: turning }, i) => {
    const sequence = dimAt(inputIds.shape, 1);
    const mask = masks.get(window) ?? {
      own: additiveMask({ attentionMask, segmentIds, causal: true, window, sequence }),
      before: cache && pastMask(cache, positions, window),
    };
    masks.set(window, mask);
    const table = tables.get(turning) ?? ropeTables(turning);
    tables.set(turning, table);
    const held = cache?.layers[i];
    const past = held && mask.before ? { ...held, mask: mask.before } : undefined;
    const context = { mask: mask.own, positions, tables: table, past };
    const output = layer(w.at(i), states, context, config);
    states = output.states;
    present.push(output.present);
  });
  return { states, present };
}

/** Masks of the tokens of a pass, and of those before it. */
interface LayerMasks {
  readonly own: Value | undefined;
  readonly before: Value | undefined;
}

/** Queries [B, H, T, d], keys and values [B, Hkv, T, d] of a pass. */
export interface Heads extends KeyValue {
  readonly query: Value;
}

/** Heads from projections of their own. */
export function projectHeads(
  w: Scope,
  x: Value,
  { numAttentionHeads, numKeyValueHeads }: DecoderConfig,
): Heads {
  return {
    query: splitHeads(linear(w.at("q_proj"), x), numAttentionHeads),
    key: splitHeads(linear(w.at("k_proj"), x), numKeyValueHeads),
    value: splitHeads(linear(w.at("v_proj"), x), numKeyValueHeads),
  };
}

/** What attention gives back to a layer. */
export interface Attended {
  /** The mixed heads side by side, [B, T, H * d]. */
  readonly mixed: Value;
  /** Keys and values of the tokens of the pass. */
  readonly present: KeyValue;
}

/** Attention of heads that their positions turn, over past and present tokens. */
export function attendHeads(
  heads: Heads,
  { mask, positions, tables, past }: LayerContext,
  options: Pick<AttentionOptions, "scale" | "softCap"> = {},
): Attended {
  const [query, key] = [rope(heads.query, positions, tables), rope(heads.key, positions, tables)];
  const present = { key, value: heads.value };
  return { mixed: joinHeads(attention({ query, ...present, mask, past, ...options })), present };
}
