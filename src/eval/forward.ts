import { runtime } from "#ort";
import { adaptedScope, adapterBase } from "../adapters/adapter.ts";
import { type Batch, batches } from "../data/batches.ts";
import type { Example } from "../data/examples.ts";
import { batchFeeds } from "../federation/trainer.ts";
import type { Value } from "../graph/value.ts";
import { modelInputs, type TaskLoss, taskLoss } from "../models/task.ts";
import type { Params } from "../tensor/params.ts";
import { encode } from "../train/step.ts";
import type { EvaluatedModel, PassOptions } from "./model.ts";

/** Most logits of a batch, half a gigabyte: a large vocabulary has smaller batches. */
const mostLogits = 2 ** 27;

/** A batch, which examples it holds, and what the graph gave for it. */
export interface PassedBatch {
  readonly batch: Batch;
  readonly indices: readonly number[];
  readonly outputs: Params;
}

/** Puts examples through a model, batches of like length first to last from the longest; `outputs` reads the task's loss. */
export async function* forward(
  { model, attached, base, params, threads = 1 }: Omit<EvaluatedModel, "tokenizer">,
  examples: readonly Example[],
  outputs: (loss: TaskLoss) => ReadonlyMap<string, Value>,
  { batchSize, signal, onProgress = () => {} }: PassOptions,
): AsyncGenerator<PassedBatch> {
  const segments =
    examples.some(({ tokenTypeIds }) => tokenTypeIds !== undefined) &&
    model.model.reads.includes("token_type_ids");
  const inputs = modelInputs(model.model, {
    optional: segments ? ["token_type_ids"] : [],
    image: model.config.image,
  });
  const loss = taskLoss(model, adaptedScope(adapterBase(model), attached, params), inputs);
  const session = await runtime.openSession(encode(outputs(loss)), { threads });
  try {
    let done = 0;
    for (const indices of plan(
      examples,
      batchSize,
      model.task === "causal-lm" ? model.config.vocabSize : 0,
    )) {
      signal?.throwIfAborted();
      const rows = indices.flatMap((i) => examples[i] ?? []);
      const [batch] = batches(rows, { batchSize: rows.length, regression: model.task === "regression" });
      if (batch === undefined) continue;
      const found = await session.run(new Map([...base, ...params, ...batchFeeds(batch, model.task)]));
      done += rows.length;
      onProgress(done);
      yield { batch, indices, outputs: found };
    }
  } finally {
    await session.dispose();
  }
}

function plan(examples: readonly Example[], batchSize: number, vocabulary: number): number[][] {
  const lengthOf = (i: number): number => examples[i]?.inputIds.length ?? 0;
  const order = examples.map((_, i) => i).sort((a, b) => lengthOf(b) - lengthOf(a) || a - b);
  const planned: number[][] = [];
  for (let start = 0; start < order.length; ) {
    const fitting = Math.floor(mostLogits / Math.max(1, lengthOf(order[start] ?? 0) * vocabulary));
    const size = Math.max(1, Math.min(batchSize, fitting));
    planned.push(order.slice(start, start + size));
    start += size;
  }
  return planned;
}
