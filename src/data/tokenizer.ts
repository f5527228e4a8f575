import { Tokenizer as Library } from "@huggingface/tokenizers";
import { TributaryError } from "../errors.ts";
import { type DataRecord, isRecord, kindOf } from "./record.ts";

export interface EncodeOptions {
  /** A second text, for models that read pairs. An empty one is still a pair. */
  readonly textPair?: string;
  /** Most tokens, special ones included; the longer text is cut first, on the right. */
  readonly maxLength?: number;
  /** Whether to add what the tokenizer puts around a text, such as `[CLS]` and `[SEP]`. */
  readonly addSpecialTokens?: boolean;
}

/** The tokens of a text or a pair of texts. */
export interface Encoding {
  readonly ids: readonly number[];
  /** 0 for tokens of the first text, 1 for those of the second, as the tokenizer's template says for special ones. */
  readonly typeIds: readonly number[];
  /** Whether `maxLength` cut something off. */
  readonly truncated: boolean;
}

/** Text to token ids and back, with the ids that have a role. */
export interface Tokenizer {
  /** One more than the largest id. */
  readonly vocabularySize: number;
  readonly bosId: number | undefined;
  readonly eosId: number | undefined;
  readonly padId: number | undefined;
  /** The Jinja source of the chat template, where the tokenizer has one. */
  readonly chatTemplate: string | undefined;
  /** The special tokens with a role, by name as in the configuration: `bos_token` and so on. */
  readonly specialTokens: Readonly<Record<string, string>>;
  encode(text: string, options?: EncodeOptions): Encoding;
  /** The text of some ids; special tokens are left out unless asked for. */
  decode(ids: ArrayLike<number>, options?: { readonly skipSpecialTokens?: boolean }): string;
  tokenId(token: string): number | undefined;
  /** The token of an id as the vocabulary spells it. */
  token(id: number): string | undefined;
}

/** In place of the tokenizer of a model that reads no text. */
export const noTokenizer: Tokenizer = {
  vocabularySize: 0,
  bosId: undefined,
  eosId: undefined,
  padId: undefined,
  chatTemplate: undefined,
  specialTokens: {},
  encode() {
    throw new TributaryError(
      "no-tokenizer",
      "the model reads no text; give it images, or take another model",
    );
  },
  decode: () => "",
  tokenId: () => undefined,
  token: () => undefined,
};

/** What is used of the library, whose type declarations do not resolve under NodeNext. */
interface Backend {
  readonly decoder: Decoder | null;
  readonly model: { cache?: WordCache };
  encode(text: string, options: { readonly add_special_tokens: boolean }): { readonly ids: number[] };
  decode(
    ids: number[],
    options: { readonly skip_special_tokens: boolean; readonly clean_up_tokenization_spaces: boolean },
  ): string;
  token_to_id(token: string): number | undefined;
  id_to_token(id: number): string | undefined;
  get_vocab(withAddedTokens: boolean): ReadonlyMap<string, number>;
}

/** Tokens of words that were encoded before. */
interface WordCache {
  get(word: string): readonly string[] | undefined;
  put(word: string, tokens: readonly string[]): void;
  clear(): void;
}

interface Decoder {
  readonly config: { readonly type: string };
  readonly decoders?: readonly Decoder[];
  decode_chain(tokens: string[]): string[];
}

/** A place in the frame that a tokenizer puts around texts. */
type Piece =
  | { readonly ids: readonly number[]; readonly typeId: number }
  | { readonly text: "A" | "B"; readonly typeId: number };

interface Frames {
  readonly single: readonly Piece[];
  readonly pair: readonly Piece[];
}

/** Makes a tokenizer from the parsed `tokenizer.json` and `tokenizer_config.json` of a Hugging Face folder. */
export function loadTokenizer(json: unknown, config: unknown = {}): Tokenizer {
  if (!isRecord(json) || !isRecord(json.model)) {
    throw unsupported(`got ${kindOf(json)} without a model`, "the content of a tokenizer.json");
  }
  if (!isRecord(config)) throw unsupported(`got ${kindOf(config)}`, "the content of a tokenizer_config.json");
  const frames = framesOf(json.post_processor);
  const backend = makeBackend({ ...json, pre_tokenizer: unicodeDigits(json.pre_tokenizer) }, config);
  const tokenId = (token: string): number | undefined => backend.token_to_id(token);
  const specialTokens = specialTokensOf(config);
  const idOf = (role: string): number | undefined => {
    const token = specialTokens[role];
    return token === undefined ? undefined : tokenId(token);
  };
  const plain = (text: string): number[] =>
    text === "" ? [] : backend.encode(text, { add_special_tokens: false }).ids;

  return {
    vocabularySize: [...backend.get_vocab(true).values()].reduce((most, id) => Math.max(most, id + 1), 0),
    bosId: idOf("bos_token"),
    eosId: idOf("eos_token"),
    padId: idOf("pad_token"),
    chatTemplate: chatTemplateOf(config.chat_template),
    specialTokens,
    encode(text, { textPair, maxLength = Number.POSITIVE_INFINITY, addSpecialTokens = true } = {}) {
      const frame = (textPair === undefined ? frames.single : frames.pair).filter(
        (piece) => addSpecialTokens || "text" in piece,
      );
      const special = frame.reduce((sum, piece) => sum + ("ids" in piece ? piece.ids.length : 0), 0);
      if (!(maxLength >= special)) {
        throw new RangeError(
          `encode: maxLength ${maxLength}, expected at least ${special} for the special tokens`,
        );
      }
      const a = plain(text);
      const b = textPair === undefined ? [] : plain(textPair);
      const [keptA, keptB] = kept(a.length, b.length, maxLength - special);
      const ids: number[] = [];
      const typeIds: number[] = [];
      for (const piece of frame) {
        const added = "ids" in piece ? piece.ids : piece.text === "A" ? a.slice(0, keptA) : b.slice(0, keptB);
        for (const id of added) {
          ids.push(id);
          typeIds.push(piece.typeId);
        }
      }
      return { ids, typeIds, truncated: keptA < a.length || keptB < b.length };
    },
    decode(ids, { skipSpecialTokens = true } = {}) {
      if (ids.length === 0) return "";
      return backend.decode(Array.from(ids), {
        skip_special_tokens: skipSpecialTokens,
        clean_up_tokenization_spaces: false,
      });
    },
    tokenId,
    token: (id) => backend.id_to_token(id),
  };
}

/**
 * How many tokens of each text stay within `room`, cut longest first as the Rust library does it: the longer text gives
 * way down to the length of the shorter; if that is not enough, both halves are equal and the longer has the odd token.
 */
function kept(first: number, second: number, room: number): [number, number] {
  if (first + second <= room) return [first, second];
  const shorter = Math.min(first, second);
  const half = Math.floor(room / 2);
  const [short, long] = 2 * shorter <= room ? [shorter, room - shorter] : [half, room - half];
  return first > second ? [long, short] : [short, long];
}

function makeBackend(json: DataRecord, config: DataRecord): Backend {
  try {
    const backend: Backend = new Library(json, config);
    if (backend.decoder !== null) exactByteFallback(backend.decoder);
    if (backend.model.cache !== undefined) backend.model.cache = wordCache();
    return backend;
  } catch (cause) {
    const message = cause instanceof Error ? cause.message : String(cause);
    throw unsupported(
      `a tokenizer.json that cannot be used: ${message}`,
      "one of the kinds that @huggingface/tokenizers has",
      cause,
    );
  }
}

/** The library's own cache holds 10,000 words and moves each that it finds, which costs more than it saves on real corpora. */
function wordCache(): WordCache {
  const capacity = 200_000;
  const known = new Map<string, readonly string[]>();
  return {
    get: (word) => known.get(word),
    put(word, tokens) {
      if (known.size >= capacity) known.clear();
      known.set(word, tokens);
    },
    clear: () => known.clear(),
  };
}

/** The library's byte fallback drops a byte order mark and merges faulty bytes; the reference keeps both one by one. */
function exactByteFallback(decoder: Decoder): void {
  if (decoder.config.type === "Sequence") decoder.decoders?.forEach(exactByteFallback);
  if (decoder.config.type === "ByteFallback") decoder.decode_chain = fuseBytes;
}

/** Joins runs of byte tokens such as `<0xE2>` into text; a run that is not UTF-8 gives a replacement sign for each byte. */
function fuseBytes(tokens: readonly string[]): string[] {
  const decoder = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });
  const result: string[] = [];
  let run: number[] = [];
  const flush = (): void => {
    if (run.length === 0) return;
    try {
      result.push(decoder.decode(Uint8Array.from(run)));
    } catch {
      result.push("\ufffd".repeat(run.length));
    }
    run = [];
  };
  for (const token of tokens) {
    const byte = /^<0x([0-9A-Fa-f]{2})>$/.exec(token)?.[1];
    if (byte !== undefined) {
      run.push(Number.parseInt(byte, 16));
      continue;
    }
    flush();
    result.push(token);
  }
  flush();
  return result;
}

/** The library's `Digits` knows ASCII digits alone; the reference's are all of Unicode's numbers. */
function unicodeDigits(preTokenizer: unknown): unknown {
  if (!isRecord(preTokenizer)) return preTokenizer;
  if (Array.isArray(preTokenizer.pretokenizers)) {
    return { ...preTokenizer, pretokenizers: preTokenizer.pretokenizers.map(unicodeDigits) };
  }
  if (preTokenizer.type !== "Digits") return preTokenizer;
  const pattern = { Regex: preTokenizer.individual_digits === true ? "\\p{N}" : "\\p{N}+" };
  return { type: "Split", pattern, behavior: "Isolated", invert: false };
}

const bare: Frames = {
  single: [{ text: "A", typeId: 0 }],
  pair: [
    { text: "A", typeId: 0 },
    { text: "B", typeId: 1 },
  ],
};

function framesOf(processor: unknown): Frames {
  if (processor === null || processor === undefined) return bare;
  if (!isRecord(processor))
    throw unsupported(`got ${kindOf(processor)} as post_processor`, "an object or null");
  switch (processor.type) {
    case "ByteLevel":
      return bare;
    case "Sequence": {
      const parts = Array.isArray(processor.processors) ? processor.processors.map(framesOf) : [];
      const framing = parts.filter((frames) => frames !== bare);
      if (framing.length > 1) throw unsupported("two post-processors that add tokens", "at most one");
      return framing[0] ?? bare;
    }
    case "TemplateProcessing":
      return {
        single: templatePieces(processor.single, processor.special_tokens),
        pair: templatePieces(processor.pair, processor.special_tokens),
      };
    case "BertProcessing":
    case "RobertaProcessing": {
      const roberta = processor.type === "RobertaProcessing";
      const cls = { ids: [namedId(processor.cls)], typeId: 0 };
      const sep = namedId(processor.sep);
      const second = roberta ? 0 : 1;
      return {
        single: [cls, { text: "A", typeId: 0 }, { ids: [sep], typeId: 0 }],
        pair: [
          cls,
          { text: "A", typeId: 0 },
          { ids: roberta ? [sep, sep] : [sep], typeId: 0 },
          { text: "B", typeId: second },
          { ids: [sep], typeId: second },
        ],
      };
    }
    default:
      throw unsupported(
        `the post-processor ${JSON.stringify(processor.type)}`,
        "TemplateProcessing, BertProcessing, RobertaProcessing, ByteLevel or a Sequence of these",
      );
  }
}

function templatePieces(template: unknown, specialTokens: unknown): Piece[] {
  if (!Array.isArray(template)) throw unsupported(`${kindOf(template)} as template`, "an array of pieces");
  return template.map((piece: unknown): Piece => {
    if (
      isRecord(piece) &&
      isRecord(piece.Sequence) &&
      (piece.Sequence.id === "A" || piece.Sequence.id === "B")
    ) {
      return { text: piece.Sequence.id, typeId: Number(piece.Sequence.type_id) };
    }
    if (isRecord(piece) && isRecord(piece.SpecialToken) && isRecord(specialTokens)) {
      const special = specialTokens[String(piece.SpecialToken.id)];
      if (isRecord(special) && Array.isArray(special.ids)) {
        return { ids: special.ids.map(Number), typeId: Number(piece.SpecialToken.type_id) };
      }
    }
    throw unsupported(
      "a template piece that is neither text A, text B nor a listed special token",
      "these three",
    );
  });
}

/** The id of a pair such as `["[SEP]", 102]`. */
function namedId(pair: unknown): number {
  const id: unknown = Array.isArray(pair) ? pair[1] : undefined;
  if (typeof id !== "number") throw unsupported(`${kindOf(pair)} as sep or cls`, "a pair of token and id");
  return id;
}

function specialTokensOf(config: DataRecord): Record<string, string> {
  const found: Record<string, string> = {};
  for (const role of [
    "bos_token",
    "eos_token",
    "unk_token",
    "sep_token",
    "pad_token",
    "cls_token",
    "mask_token",
  ]) {
    const value = config[role];
    const content = isRecord(value) ? value.content : value;
    if (typeof content === "string") found[role] = content;
  }
  return found;
}

/** A template, or of several the one named `default`. */
function chatTemplateOf(value: unknown): string | undefined {
  if (typeof value === "string") return value;
  if (!Array.isArray(value)) return undefined;
  const named: unknown = value.find((entry: unknown) => isRecord(entry) && entry.name === "default");
  return isRecord(named) && typeof named.template === "string" ? named.template : undefined;
}

function unsupported(got: string, expected: string, cause?: unknown): TributaryError {
  return new TributaryError(
    "unsupported-tokenizer",
    `loadTokenizer: ${got}, expected ${expected}`,
    cause === undefined ? {} : { cause },
  );
}
