import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { argv } from "node:process";
import { fileURLToPath } from "node:url";
import { pretrainingPassages } from "./corpus.ts";

/** A byte-level BPE vocabulary: tokens in the order of their ids, merges in the order of their ranks. */
export interface Vocabulary {
  readonly tokens: readonly string[];
  readonly merges: readonly (readonly [string, string])[];
}

/** Begins and ends every document. */
export const endOfText = "<|endoftext|>";

/** Fills rows; never a label. */
export const padding = "<|pad|>";

/** GPT-2's pre-tokenizer: contractions, words and numbers with their leading space, other signs, white space. */
const words = /'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+/gu;

/** A distinct word as token ids, and how often it occurs. */
interface Word {
  ids: number[];
  readonly count: number;
}

/**
 * Learns merges greedily: at each step the most frequent adjacent pair becomes a token; among equals the pair of the
 * smallest ids, so the result depends on the text alone.
 *
 * Sennrich et al., ACL 2016, Algorithm 1, https://arxiv.org/abs/1508.07909, over the bytes of UTF-8.
 */
export function trainBpe(texts: Iterable<string>, size: number): Vocabulary {
  const alphabet = byteCharacters();
  const tokens = [endOfText, padding, ...[...alphabet].sort()];
  const id = new Map(tokens.map((token, i) => [token, i]));
  const corpus = countWords(texts).map(([word, count]): Word => {
    const bytes = new TextEncoder().encode(word);
    return { ids: Array.from(bytes, (byte) => id.get(alphabet[byte] ?? "") ?? 0), count };
  });

  const counts = new Map<number, number>();
  const where = new Map<number, Set<number>>();
  const change = (word: Word, index: number, sign: 1 | -1): void => {
    for (let i = 1; i < word.ids.length; i++) {
      const pair = key(word.ids[i - 1] ?? 0, word.ids[i] ?? 0);
      counts.set(pair, (counts.get(pair) ?? 0) + sign * word.count);
      if (sign > 0) where.set(pair, (where.get(pair) ?? new Set()).add(index));
    }
  };
  for (const [index, word] of corpus.entries()) change(word, index, 1);

  const merges: [string, string][] = [];
  while (tokens.length < size) {
    let best = -1;
    let most = 1;
    for (const [pair, count] of counts) {
      if (count > most || (count === most && pair < best)) {
        best = pair;
        most = count;
      }
    }
    if (best < 0)
      throw new RangeError(
        `trainBpe: the text has pairs for ${tokens.length} tokens, ${size} wanted; lower the size`,
      );
    const [left, right] = [Math.floor(best / base), best % base];
    const merged = tokens.length;
    merges.push([tokens[left] ?? "", tokens[right] ?? ""]);
    tokens.push(`${tokens[left]}${tokens[right]}`);
    for (const index of where.get(best) ?? []) {
      const word = corpus[index];
      if (word === undefined) continue;
      change(word, index, -1);
      word.ids = replacePair(word.ids, left, right, merged);
      change(word, index, 1);
    }
    counts.delete(best);
    where.delete(best);
  }
  return { tokens, merges };
}

/** The vocabulary as a Hugging Face `tokenizer.json`. */
export function tokenizerJson({ tokens, merges }: Vocabulary): object {
  const special = (content: string, id: number): object => ({
    id,
    content,
    single_word: false,
    lstrip: false,
    rstrip: false,
    normalized: false,
    special: true,
  });
  const byteLevel = { type: "ByteLevel", add_prefix_space: false, trim_offsets: true, use_regex: true };
  return {
    version: "1.0",
    truncation: null,
    padding: null,
    added_tokens: [special(endOfText, 0), special(padding, 1)],
    normalizer: null,
    pre_tokenizer: byteLevel,
    post_processor: null,
    decoder: byteLevel,
    model: {
      type: "BPE",
      dropout: null,
      unk_token: null,
      continuing_subword_prefix: null,
      end_of_word_suffix: null,
      fuse_unk: false,
      byte_fallback: false,
      ignore_merges: false,
      vocab: Object.fromEntries(tokens.map((token, i) => [token, i])),
      merges,
    },
  };
}

/** Above any id; two of them fit in a safe integer. */
const base = 2 ** 20;

function key(left: number, right: number): number {
  return left * base + right;
}

function replacePair(ids: readonly number[], left: number, right: number, merged: number): number[] {
  const result: number[] = [];
  for (let i = 0; i < ids.length; i++) {
    if (ids[i] === left && ids[i + 1] === right) {
      result.push(merged);
      i++;
    } else result.push(ids[i] ?? 0);
  }
  return result;
}

function countWords(texts: Iterable<string>): [string, number][] {
  const counts = new Map<string, number>();
  for (const text of texts) {
    for (const [word] of text.matchAll(words)) counts.set(word, (counts.get(word) ?? 0) + 1);
  }
  return [...counts];
}

/** GPT-2's printable character for each byte: itself where it has a glyph, else the next free one from U+0100. */
function byteCharacters(): string[] {
  let next = 0x100;
  return Array.from({ length: 256 }, (_, byte) => {
    const printable = (byte >= 0x21 && byte <= 0x7e) || (byte >= 0xa1 && byte !== 0xad);
    return String.fromCodePoint(printable ? byte : next++);
  });
}

if (argv[1] === fileURLToPath(import.meta.url)) {
  const out = argv[2] ?? fileURLToPath(new URL("../../examples/presidents/base", import.meta.url));
  mkdirSync(out, { recursive: true });
  const write = (name: string, value: object): void =>
    writeFileSync(join(out, name), `${JSON.stringify(value, null, 2)}\n`);
  const passages = pretrainingPassages();
  const vocabulary = trainBpe(
    passages.map(({ text }) => text),
    4096,
  );
  const special = { bos_token: endOfText, eos_token: endOfText, pad_token: padding };
  writeFileSync(join(out, "tokenizer.json"), `${JSON.stringify(tokenizerJson(vocabulary))}\n`);
  write("tokenizer_config.json", {
    ...special,
    add_prefix_space: false,
    clean_up_tokenization_spaces: false,
    tokenizer_class: "PreTrainedTokenizerFast",
  });
  write("special_tokens_map.json", special);
  console.log(`${out}: ${vocabulary.tokens.length} tokens from ${passages.length} passages`);
}
