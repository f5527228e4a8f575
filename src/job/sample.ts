import type { AttachedAdapter } from "../adapters/adapter.ts";
import type { Tokenizer } from "../data/tokenizer.ts";
import type { Activations } from "../graph/ops/blocks.ts";
import type { TaskModel } from "../models/task.ts";
import type { Params } from "../tensor/params.ts";
import { generate } from "../train/generate.ts";
import { openDecoder } from "../train/open-decoder.ts";
import type { Job } from "./job.ts";

/** How a text is continued. */
export type SampleOptions = NonNullable<Job["generate"]> & { readonly signal?: AbortSignal };

export interface SampleModel {
  readonly model: TaskModel;
  readonly tokenizer: Tokenizer;
  readonly attached: readonly AttachedAdapter[];
  /** Base weights and adapter parameters. */
  readonly weights: Params;
  readonly threads?: number;
  /** As in `EvaluatedModel`. */
  readonly activations?: Activations;
}

/** Continues a prompt; yields the new text piece by piece. */
export async function* sampleText(
  { model, tokenizer, attached, weights, threads = 1, activations }: SampleModel,
  { prompt, maxTokens, temperature, topK = 0, topP = 1, seed, signal }: SampleOptions,
): AsyncGenerator<string> {
  const packed = activations && { blocks: weights, activations };
  const { session, ...decoder } = await openDecoder(model, attached, { packed, threads });
  try {
    const encoded = tokenizer.encode(prompt).ids;
    const { bosId, eosId } = tokenizer;
    const ids = encoded.length > 0 ? encoded : [bosId ?? eosId ?? 0];
    // A tokenizer that closes what it frames would end the text before it begins.
    const open = ids.length > 1 && ids.at(-1) === eosId ? ids.slice(0, -1) : ids;
    const made: number[] = [];
    let shown = "";
    const options = {
      prompt: open,
      maxTokens,
      temperature,
      topK,
      topP,
      seed,
      stopTokens: eosId === undefined ? [] : [eosId],
    };
    for await (const { id } of generate(
      decoder,
      session,
      weights,
      signal === undefined ? options : { ...options, signal },
    )) {
      made.push(id);
      // Bytes of a character may be spread over tokens: a piece is whole when it decodes without a replacement sign.
      const text = continuation(tokenizer, open, made);
      if (text.endsWith("\ufffd")) continue;
      yield text.slice(shown.length);
      shown = text;
    }
  } finally {
    await session.dispose();
  }
}

/** The text of new tokens after the prompt's, as the tokenizer joins them. */
function continuation(tokenizer: Tokenizer, prompt: readonly number[], made: readonly number[]): string {
  const before = tokenizer.decode(prompt);
  const all = tokenizer.decode([...prompt, ...made]);
  return all.startsWith(before) ? all.slice(before.length) : tokenizer.decode(made);
}
