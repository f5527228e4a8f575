import { pieceCount } from "./white-space.ts";

/** Losses of some tokens, added up. */
export interface TokenLoss {
  /** In nats. */
  readonly sum: number;
  readonly tokens: number;
}

/** The label of a position that does not count. */
const ignored = -100;

/**
 * Cross-entropy of one text: the logits at each position predict the label of the next; labels of -100 do not count.
 */
export function shiftedCrossEntropy(
  logits: readonly (readonly number[])[], // [T, V]
  labels: readonly number[], // [T]
): TokenLoss {
  let [sum, tokens] = [0, 0];
  for (const [t, row] of logits.slice(0, -1).entries()) {
    const label = labels[t + 1] ?? ignored;
    if (label === ignored) continue;
    const top = Math.max(...row);
    const normalizer = top + Math.log(row.reduce((total, logit) => total + Math.exp(logit - top), 0));
    sum += normalizer - (row[label] ?? Number.NaN);
    tokens++;
  }
  return { sum, tokens };
}

/** Perplexity of all the tokens of some losses: exp of the whole loss over all tokens, not a mean over batches. */
export function perplexity(losses: readonly TokenLoss[]): number {
  const total = (key: keyof TokenLoss): number => losses.reduce((sum, loss) => sum + loss[key], 0);
  return Math.exp(total("sum") / total("tokens"));
}

/** A text's loss, and its length in what the loss can be counted in. */
export interface TextLoss {
  /** In nats. */
  readonly sum: number;
  /** Pieces between white space. */
  readonly words: number;
  /** In UTF-8. */
  readonly bytes: number;
}

/** The loss of a text with its lengths. */
export function textLoss(text: string, sum: number): TextLoss {
  return { sum, words: pieceCount(text), bytes: utf8Length(text) };
}

/** The loss of texts by what it is counted in: words, bytes, or bits a byte. */
export interface TextPerplexity {
  readonly wordPerplexity: number;
  readonly bytePerplexity: number;
  readonly bitsPerByte: number;
}

/**
 * Perplexity per word and per UTF-8 byte of whole texts, which can be compared between tokenizers, as
 * lm-evaluation-harness 0.4 counts them.
 */
export function textPerplexity(texts: readonly TextLoss[]): TextPerplexity {
  const total = (key: keyof TextLoss): number => texts.reduce((sum, text) => sum + text[key], 0);
  const loss = total("sum");
  return {
    wordPerplexity: Math.exp(loss / total("words")),
    bytePerplexity: Math.exp(loss / total("bytes")),
    bitsPerByte: loss / total("bytes") / Math.LN2,
  };
}

/** Bytes of a text in UTF-8. */
export function utf8Length(text: string): number {
  return new TextEncoder().encode(text).length;
}
