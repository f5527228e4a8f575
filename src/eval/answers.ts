import { TributaryError } from "../errors.ts";
import type { TextCase } from "../metrics/bleu.ts";
import { generateBatch } from "../train/generate-batch.ts";
import { openDecoder } from "../train/open-decoder.ts";
import type { EvaluatedModel, Found, PassOptions } from "./model.ts";
import type { Prompt } from "./prompts.ts";

export interface AnswerOptions extends PassOptions {
  /** Most new tokens. */
  readonly maxTokens: number;
  /** Texts that end an answer; they are not part of it. */
  readonly stop?: readonly string[];
}

/** Greedy answers to prompts, in batches of like length from the longest; texts are without white space at their ends. */
export async function* answers(
  { model, tokenizer, attached, base, params, threads = 1, activations }: EvaluatedModel,
  prompts: readonly Prompt[],
  { batchSize, maxTokens, stop = [], signal, onProgress = () => {} }: AnswerOptions,
): AsyncGenerator<Found<TextCase>> {
  const weights = new Map([...base, ...params]);
  const longest = prompts.reduce((most, { inputIds }) => Math.max(most, inputIds.length), 0);
  const { maxPositions } = model.config;
  if (longest > maxPositions) {
    throw new TributaryError(
      "no-examples",
      `answers: a prompt has ${longest} tokens, the model ${maxPositions} positions; cut the prompts`,
    );
  }
  const packed = activations && { blocks: base, activations };
  const { session, ...decoder } = await openDecoder(model, attached, { further: params, packed, threads });
  const order = prompts
    .map((_, i) => i)
    .sort((a, b) => (prompts[b]?.inputIds.length ?? 0) - (prompts[a]?.inputIds.length ?? 0) || a - b);
  const textOf = (ids: readonly number[]): string => cut(tokenizer.decode(ids), stop);
  try {
    for (let start = 0; start < order.length; start += batchSize) {
      const chosen = order.slice(start, start + batchSize);
      const made = await generateBatch(decoder, session, weights, {
        prompts: chosen.map((i) => prompts[i]?.inputIds ?? []),
        maxTokens,
        stopTokens: tokenizer.eosId === undefined ? [] : [tokenizer.eosId],
        isDone: (_, ids) => {
          // A stop is complete with the newest token, so the tail of the text shows it.
          const tail = stop.length === 0 ? "" : tokenizer.decode(ids.slice(-32));
          return stop.some((text) => tail.includes(text));
        },
        // Before a row is done, the passes say how far a batch is.
        onPass: (open, pass) =>
          onProgress(start + Math.max(chosen.length - open, (chosen.length * pass) / maxTokens)),
        ...(signal === undefined ? {} : { signal }),
      });
      for (const [i, index] of chosen.entries()) {
        const prediction = textOf(made[i] ?? []).trim();
        yield { index, value: { prediction, references: prompts[index]?.references ?? [] } };
      }
    }
  } finally {
    await session.dispose();
  }
}

function cut(text: string, stop: readonly string[]): string {
  const ends = stop.map((end) => text.indexOf(end)).filter((at) => at >= 0);
  return text.slice(0, Math.min(text.length, ...ends));
}
