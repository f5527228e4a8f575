import type { AttachedAdapter } from "../adapters/adapter.ts";
import type { Tokenizer } from "../data/tokenizer.ts";
import type { Activations } from "../graph/ops/blocks.ts";
import type { TaskModel } from "../models/task.ts";
import type { Params } from "../tensor/params.ts";

/** A model whose answers are measured. */
export interface EvaluatedModel {
  readonly model: TaskModel;
  readonly tokenizer: Tokenizer;
  readonly attached: readonly AttachedAdapter[];
  readonly base: Params;
  /** What was trained; empty for a base alone. */
  readonly params: Params;
  /** Threads of an operator. Default: 1. */
  readonly threads?: number;
  /**
   * Packs blocks of the base for answers and rounds what they are multiplied with; without it they are fed, which takes less
   * room and longer.
   */
  readonly activations?: Activations;
}

export interface PassOptions {
  /** Most examples of a batch. */
  readonly batchSize: number;
  readonly signal?: AbortSignal | undefined;
  /** Called with the number of examples that are through. */
  readonly onProgress?: (done: number) => void;
}

/** What was found of one example, by its index. */
export interface Found<T> {
  readonly index: number;
  readonly value: T;
}
