import type { Value } from "../graph/value.ts";
import type { KeyValue } from "../nn/attention.ts";
import type { Scope } from "../nn/scope.ts";

/** What a model is asked for. */
export type Task = "causal-lm" | "sequence-classification" | "regression" | "embeddings";

/**
 * The part a tensor plays: matrices of linear layers [out, in] can carry adapters, and each kind starts by its own rule
 * in a random model.
 */
export type ParameterKind = "linear" | "embedding" | "bias" | "norm-weight" | "norm-bias";

/** A tensor of a model. */
export interface ModelParameter {
  readonly shape: readonly number[];
  readonly kind: ParameterKind;
  /** Is the output layer, which adapters of "all linear layers" leave alone. */
  readonly head?: boolean;
  /** May be absent from a checkpoint made for another task, and then starts fresh. */
  readonly fresh?: boolean;
}

/** What shared code reads from the configuration of any family. */
export interface ModelConfig {
  readonly hiddenSize: number;
  readonly vocabSize: number;
  /** Positions that the model can address. */
  readonly maxPositions: number;
  /** Classes, or predicted numbers of a regression. */
  readonly numLabels: number;
  /** Standard deviation of fresh matrices and embeddings. */
  readonly initializerRange: number;
}

/** Names and sizes of the key/value cache; absent in families that do not generate. */
export interface CacheSize {
  readonly layers: number;
  readonly keyValueHeads: number;
  readonly headDim: number;
}

/** Keys and values of the tokens before this pass, one entry a layer. */
export interface PastTokens {
  readonly layers: readonly KeyValue[]; // [B, Hkv, past, d]
  readonly past: string;
  /** Symbol of past and present tokens together. */
  readonly total: string;
}

/** What enters a model. */
export interface ModelInputs {
  readonly inputIds: Value; // int64 [B, T]
  /** 1 for tokens, 0 for padding; covers past tokens too. Absent: nothing is padded. */
  readonly attentionMask?: Value | undefined; // int64 [B, S]
  /** Default: 0, 1, ..., T - 1 in every row. */
  readonly positionIds?: Value | undefined; // int64 [B, T]
  /** Segment of each token, in families that have segments. Default: 0. */
  readonly tokenTypeIds?: Value | undefined; // int64 [B, T]
  readonly cache?: PastTokens | undefined;
}

/** What the trunk of a model returns. */
export interface Hidden {
  /** The last hidden state, after the last norm. */
  readonly states: Value; // [B, T, D]
  /** Keys and values of past and present tokens, where a cache went in. */
  readonly present: readonly KeyValue[];
}

/** One model family. Functions over named weights; the names are those of its checkpoints. */
export interface Model<Config extends ModelConfig = ModelConfig> {
  /** `model_type` in config.json. */
  readonly type: string;
  readonly tasks: readonly Task[];
  /** Optional inputs that the family reads. */
  readonly reads: readonly ("token_type_ids" | "position_ids")[];
  /** Prefix of the trunk's tensors where there is a head; a checkpoint of the bare trunk lacks it. */
  readonly prefix: string;
  /** Tensors in checkpoints that carry no weights, such as position numbers. */
  readonly buffers: RegExp;
  /** Reads config.json in the spelling of Transformers 4 or 5; refuses unsupported values by name. */
  config(json: Readonly<Record<string, unknown>>): Config;
  /** Every tensor of a model for a task, by its name in the checkpoint. */
  parameters(config: Config, task: Task): ReadonlyMap<string, ModelParameter>;
  /** Names that share the tensor of another name. */
  tied(config: Config): ReadonlyMap<string, string>;
  /** The trunk, up to the last norm. */
  hidden(w: Scope, inputs: ModelInputs, config: Config, task: Task): Hidden;
  /** What the task reads from hidden states: logits, predictions or unit vectors. Causal heads take rows of any shape. */
  head(w: Scope, states: Value, inputs: ModelInputs, config: Config, task: Task): Value;
  /** Size of the key/value cache. */
  cache?(config: Config): CacheSize;
}
