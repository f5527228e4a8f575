import type { Value } from "../graph/value.ts";
import type { KeyValue, Places } from "../nn/attention.ts";
import type { Scope } from "../nn/scope.ts";

/** What a model is asked for. */
export type Task =
  | "causal-lm"
  | "sequence-classification"
  | "regression"
  | "embeddings"
  | "image-classification";

/**
 * The part a tensor plays: matrices of linear layers [out, in] can carry adapters, and each kind starts by its own rule
 * in a random model. A "norm-offset" is the weight of a norm that adds 1 to it.
 */
export type ParameterKind =
  | "linear"
  | "embedding"
  | "convolution"
  | "bias"
  | "norm-weight"
  | "norm-offset"
  | "norm-bias";

/** A tensor of a model. */
export interface ModelParameter {
  readonly shape: readonly number[];
  readonly kind: ParameterKind;
  /** Belongs to the output layers, which adapters of "all linear layers" leave alone. */
  readonly head?: boolean;
  /** Checkpoints hold the matrix as [in, out]; here it is [out, in] like all others. */
  readonly transposed?: boolean;
  /** May be absent from a checkpoint made for another task, and then starts fresh. */
  readonly fresh?: boolean;
}

/** Size of the images that a model reads. */
export interface ImageSize {
  readonly channels: number;
  readonly height: number;
  readonly width: number;
}

/** What shared code reads from the configuration of any family. */
export interface ModelConfig {
  readonly hiddenSize: number;
  /** 0 in families that read no tokens. */
  readonly vocabSize: number;
  /** Positions that the model can address. */
  readonly maxPositions: number;
  /** Present in families that read images. */
  readonly image?: ImageSize;
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

/** Keys and values of the tokens before a pass, one entry a layer. Positions are then given, and nothing is padded. */
export interface PastTokens extends Places {
  readonly layers: readonly KeyValue[]; // [B, Hkv, C, d]
}

/** What enters a model of text. */
export interface TokenInputs {
  readonly inputIds: Value; // int64 [B, T]
  /** 1 for tokens, 0 for padding. Absent: nothing is padded, or it is behind what is read. */
  readonly attentionMask?: Value | undefined; // int64 [B, T]
  /** Default: 0, 1, ..., T - 1 in every row. */
  readonly positionIds?: Value | undefined; // int64 [B, T]
  /** Segment of each token, in families that have segments. Default: 0. */
  readonly tokenTypeIds?: Value | undefined; // int64 [B, T]
  /** Numbers of the sequences that share a row, each of which sees only itself; in families that read them. Default: one. */
  readonly segmentIds?: Value | undefined; // int64 [B, T]
  readonly cache?: PastTokens | undefined;
}

/** What enters a model of images. */
export interface ImageInputs {
  /** Normalized as the model's preprocessor says. */
  readonly pixelValues: Value; // float32 [B, C, height, width]
}

/** What enters a model. */
export type ModelInputs = TokenInputs | ImageInputs;

/** Names of the graph inputs that a family can read. */
export type InputName =
  | "input_ids"
  | "attention_mask"
  | "token_type_ids"
  | "position_ids"
  | "segment_ids"
  | "pixel_values";

/** What the trunk of a model returns. */
export interface Hidden {
  /** The last hidden state, after the last norm. */
  readonly states: Value; // [B, T, D]
  /** Keys and values of the tokens of the pass. */
  readonly present: readonly KeyValue[];
}

/** One model family. Functions over named weights; the names are those of its checkpoints. */
export interface Model<Config extends ModelConfig = ModelConfig, Inputs extends ModelInputs = ModelInputs> {
  /** `model_type` in config.json. */
  readonly type: string;
  /** What the names of its classifiers in Transformers begin with. */
  readonly className: string;
  /** The first is that of a checkpoint whose `architectures` name none. */
  readonly tasks: readonly Task[];
  /** Inputs of the family; token types and positions are optional in a batch. */
  readonly reads: readonly InputName[];
  /** Prefix of the trunk's tensors where there is a head; a checkpoint of the bare trunk lacks it. */
  readonly prefix: string;
  /** Tensors in checkpoints that carry no weights, such as position numbers. */
  readonly buffers: RegExp;
  /** The name of a tensor where Transformers 5 holds it, which PEFT's adapters carry. Default: that in checkpoints. */
  loadedName?(name: string): string;
  /** Reads config.json in the spelling of Transformers 4 or 5; refuses unsupported values by name. */
  config(json: Readonly<Record<string, unknown>>): Config;
  /** Every tensor of a model for a task, by its name in the checkpoint. */
  parameters(config: Config, task: Task): ReadonlyMap<string, ModelParameter>;
  /** Names that share the tensor of another name. */
  tied(config: Config): ReadonlyMap<string, string>;
  /** The trunk, up to the last norm. */
  hidden(w: Scope, inputs: Inputs, config: Config, task: Task): Hidden;
  /** What the task reads from hidden states: logits, predictions or unit vectors. Causal heads take rows of any shape. */
  head(w: Scope, states: Value, inputs: Inputs, config: Config, task: Task): Value;
  /** Size of the key/value cache. */
  cache?(config: Config): CacheSize;
}
