import type { Session } from "../runtime/session.ts";
import type { Params } from "../tensor/params.ts";
import { type DecoderSize, decode, likeliest } from "./generate.ts";
import { openCache } from "./key-value-cache.ts";

export interface BatchGenerateOptions {
  /** Token ids to continue, at least one in each. */
  readonly prompts: readonly (readonly number[])[];
  /** Most tokens to generate for each. */
  readonly maxTokens: number;
  /** Ids that end a text; they are not part of it. */
  readonly stopTokens?: readonly number[];
  /** Whether the tokens of a row are enough. */
  readonly isDone?: (row: number, tokens: readonly number[]) => boolean;
  readonly signal?: AbortSignal;
  /** Called after each pass, from 1, with the rows that are still going on. */
  readonly onPass?: (open: number, pass: number) => void;
}

/**
 * Continues several prompts at once with the likeliest tokens. Rows that are done leave the batch as soon as half of it is.
 * A batch adds numbers in another order than a single prompt does: where two tokens are equally likely up to rounding,
 * either may be taken.
 */
export async function generateBatch(
  { cache: size, maxPositions }: DecoderSize,
  session: Session,
  weights: Params,
  {
    prompts,
    maxTokens,
    stopTokens = [],
    isDone = () => false,
    signal,
    onPass = () => {},
  }: BatchGenerateOptions,
): Promise<number[][]> {
  const wrong = prompts.find(({ length }) => length === 0 || length > maxPositions);
  if (wrong !== undefined) {
    throw new RangeError(
      `generateBatch: got a prompt of ${wrong.length} tokens, expected 1 to ${maxPositions}`,
    );
  }
  const made: number[][] = prompts.map(() => []);
  const stops = new Set(stopTokens);
  const longest = prompts.reduce((most, { length }) => Math.max(most, length), 0);
  const expected = Math.min(longest + maxTokens, maxPositions);
  const cache = openCache(size, { rows: prompts.length, expected });
  const done = new Set<number>();
  /** Which prompt each row of the batch continues. */
  let open = prompts.map((_, row) => row);
  let tokens = prompts;
  for (let pass = 0; pass < maxTokens && done.size < prompts.length; pass++) {
    signal?.throwIfAborted();
    const logits = await decode(session, weights, cache, tokens);
    const next = logits.map(likeliest);
    for (const [i, row] of open.entries()) {
      if (done.has(row)) continue;
      const id = next[i] ?? 0;
      const own = made[row] ?? [];
      if (!stops.has(id)) own.push(id);
      if (stops.has(id) || isDone(row, own) || (cache.lengths[i] ?? 0) >= maxPositions) done.add(row);
    }
    const going = open.flatMap((row, i) => (done.has(row) ? [] : [i]));
    // A row whose positions end leaves at once: it has no place for another token.
    const ended = cache.lengths.some((length) => length >= maxPositions);
    const kept = ended || going.length <= open.length / 2 ? going : open.map((_, i) => i);
    if (kept.length < open.length) {
      cache.keep(kept);
      open = kept.map((i) => open[i] ?? 0);
    }
    tokens = kept.map((i) => [next[i] ?? 0]);
    onPass(going.length, pass + 1);
  }
  return made;
}
