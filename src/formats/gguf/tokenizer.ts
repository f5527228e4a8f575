import { TributaryError } from "../../errors.ts";
import { type JsonObject, quote } from "../json.ts";
import { type GgufMetadata, type MetadataReader, metadataReader } from "./metadata.ts";
import { preTokenizerJson, preTokenizerNames, preTokenizerOf } from "./pre-tokenizers.ts";

/** A tokenizer in the two objects of a Hugging Face folder. */
export interface TokenizerJson {
  /** tokenizer.json. */
  readonly json: JsonObject;
  /** tokenizer_config.json. */
  readonly config: JsonObject;
}

/** Values of `tokenizer.ggml.token_type`. */
export const tokenTypes = { normal: 1, unknown: 2, control: 3, userDefined: 4, unused: 5, byte: 6 } as const;

/** Roles of tokens: the key of the id in GGUF, and the key in tokenizer_config.json. */
export const tokenRoles = {
  bos_token_id: "bos_token",
  eos_token_id: "eos_token",
  unknown_token_id: "unk_token",
  seperator_token_id: "sep_token",
  padding_token_id: "pad_token",
  cls_token_id: "cls_token",
  mask_token_id: "mask_token",
} as const;

/** The sign that SentencePiece writes for a space. */
export const SPACE = "\u2581";

/** Makes the tokenizer of the metadata; refuses kinds and pre-tokenizers that are not known, by name. */
export function ggufTokenizer(metadata: GgufMetadata, file = "gguf"): TokenizerJson {
  const read = metadataReader(metadata, file);
  const kind = read.text("tokenizer.ggml.model");
  if (kind === undefined) throw refuse(file, "the metadata has no tokenizer");
  const vocabulary = vocabularyOf(read);
  switch (kind) {
    case "gpt2":
      return byteLevelBpe(read, vocabulary);
    case "llama":
      return sentencePieceBpe(read, vocabulary);
    case "bert":
      return wordPiece(read, vocabulary);
    default:
      throw refuse(file, `tokenizer.ggml.model is ${quote(kind)}, supported are gpt2, llama and bert`);
  }
}

/** Ids of tokens with a role, as config.json has them. */
export function tokenIds(read: MetadataReader): JsonObject {
  const found: Record<string, number> = {};
  for (const [from, to] of [
    ["bos_token_id", "bos_token_id"],
    ["eos_token_id", "eos_token_id"],
    ["padding_token_id", "pad_token_id"],
  ] as const) {
    const id = read.number(`tokenizer.ggml.${from}`);
    if (id !== undefined) found[to] = id;
  }
  return found;
}

interface Vocabulary {
  readonly tokens: readonly string[];
  readonly types: readonly number[];
  /** Tokens with a role, by their key in tokenizer_config.json. */
  readonly roles: ReadonlyMap<string, { readonly id: number; readonly token: string }>;
}

function vocabularyOf(read: MetadataReader): Vocabulary {
  const tokens = read.texts("tokenizer.ggml.tokens");
  if (tokens === undefined) throw refuse(read.file, "the metadata has no tokenizer.ggml.tokens");
  const types =
    read.numbers("tokenizer.ggml.token_type", tokens.length) ?? tokens.map(() => tokenTypes.normal);
  const roles = new Map<string, { id: number; token: string }>();
  for (const [key, role] of Object.entries(tokenRoles)) {
    const id = read.number(`tokenizer.ggml.${key}`);
    const token = id === undefined ? undefined : tokens[id];
    if (id !== undefined && token !== undefined) roles.set(role, { id, token });
  }
  return { tokens, types, roles };
}

/** Pieces of a tokenizer.json that every kind has. */
function frame(json: JsonObject, { tokens, types }: Vocabulary): JsonObject {
  const added = [...types.entries()].filter(
    ([, type]) =>
      type === tokenTypes.control || type === tokenTypes.userDefined || type === tokenTypes.unknown,
  );
  return {
    version: "1.0",
    truncation: null,
    padding: null,
    added_tokens: added.map(([id, type]) => ({
      id,
      content: tokens[id] ?? "",
      single_word: false,
      lstrip: false,
      rstrip: false,
      normalized: false,
      special: type !== tokenTypes.userDefined,
    })),
    ...json,
  };
}

function tokenizerConfig(read: MetadataReader, { roles }: Vocabulary): JsonObject {
  const template = read.text("tokenizer.chat_template");
  return {
    ...Object.fromEntries([...roles].map(([role, { token }]) => [role, token])),
    ...(template === undefined ? {} : { chat_template: template }),
    clean_up_tokenization_spaces: false,
    tokenizer_class: "PreTrainedTokenizerFast",
  };
}

function byteLevelBpe(read: MetadataReader, vocabulary: Vocabulary): TokenizerJson {
  const name = read.text("tokenizer.ggml.pre") ?? "default";
  const pre = preTokenizerOf(name);
  if (pre === undefined) {
    throw refuse(
      read.file,
      `tokenizer.ggml.pre is ${quote(name)}, supported are ${preTokenizerNames.join(", ")}`,
    );
  }
  const merges = read.texts("tokenizer.ggml.merges");
  if (merges === undefined) throw refuse(read.file, "the metadata has no tokenizer.ggml.merges");
  const json = frame(
    {
      normalizer: pre.normalizer === undefined ? null : { type: pre.normalizer },
      pre_tokenizer: preTokenizerJson(pre),
      post_processor: startAndEnd(read, vocabulary, { bos: pre.addBos === true, eos: false }),
      decoder: { type: "ByteLevel", add_prefix_space: true, trim_offsets: true, use_regex: true },
      model: {
        ...bpe,
        ignore_merges: pre.ignoreMerges === true,
        vocab: idsOf(vocabulary.tokens),
        merges: merges.map((merge) => {
          const cut = merge.indexOf(" ", 1);
          if (cut < 0) throw refuse(read.file, `the merge ${quote(merge)} is not two tokens`);
          return [merge.slice(0, cut), merge.slice(cut + 1)];
        }),
      },
    },
    vocabulary,
  );
  return { json, config: tokenizerConfig(read, vocabulary) };
}

/** SentencePiece's BPE: of all neighbours the pair whose joined piece has the highest score is merged first. */
function sentencePieceBpe(read: MetadataReader, vocabulary: Vocabulary): TokenizerJson {
  const { tokens, types, roles } = vocabulary;
  const scores = read.numbers("tokenizer.ggml.scores", tokens.length);
  if (scores === undefined) throw refuse(read.file, "the metadata has no tokenizer.ggml.scores");
  const prefix = read.flag("tokenizer.ggml.add_space_prefix") ?? true;
  const fromSpace = { type: "Replace", pattern: { String: " " }, content: SPACE };
  const toSpace = { type: "Replace", pattern: { String: SPACE }, content: " " };
  const unknown = roles.get("unk_token")?.token ?? tokens[types.indexOf(tokenTypes.unknown)] ?? null;
  const json = frame(
    {
      normalizer: prefix
        ? { type: "Sequence", normalizers: [{ type: "Prepend", prepend: SPACE }, fromSpace] }
        : fromSpace,
      pre_tokenizer: null,
      post_processor: startAndEnd(read, vocabulary, { bos: true, eos: false }),
      decoder: {
        type: "Sequence",
        decoders: [
          toSpace,
          { type: "ByteFallback" },
          { type: "Fuse" },
          ...(prefix ? [{ type: "Strip", content: " ", start: 1, stop: 0 }] : []),
        ],
      },
      model: {
        ...bpe,
        unk_token: unknown,
        fuse_unk: true,
        byte_fallback: types.includes(tokenTypes.byte),
        ignore_merges: false,
        vocab: idsOf(tokens),
        merges: mergesOfScores(tokens, scores, types),
      },
    },
    vocabulary,
  );
  return { json, config: tokenizerConfig(read, vocabulary) };
}

/** WordPiece: GGUF marks the beginning of a word by a space sign, Hugging Face the inside by `##`. */
function wordPiece(read: MetadataReader, vocabulary: Vocabulary): TokenizerJson {
  const tokens = vocabulary.tokens.map((token) =>
    token.startsWith(SPACE) ? token.slice(SPACE.length) : /^\[.+\]$/.test(token) ? token : `##${token}`,
  );
  const role = (name: string, otherwise: string): string =>
    vocabulary.roles.get(name)?.token ?? (tokens.includes(otherwise) ? otherwise : "");
  const special = {
    cls_token: role("cls_token", role("bos_token", "[CLS]")),
    sep_token: role("sep_token", role("eos_token", "[SEP]")),
    unk_token: role("unk_token", "[UNK]"),
    pad_token: role("pad_token", "[PAD]"),
    mask_token: role("mask_token", "[MASK]"),
  };
  const ids = idsOf(tokens);
  const piece = (token: string, typeId: number): JsonObject => ({
    SpecialToken: { id: token, type_id: typeId },
  });
  const text = (id: "A" | "B", typeId: number): JsonObject => ({ Sequence: { id, type_id: typeId } });
  const { cls_token: cls, sep_token: sep } = special;
  const json = frame(
    {
      normalizer: {
        type: "BertNormalizer",
        clean_text: true,
        handle_chinese_chars: true,
        strip_accents: null,
        lowercase: true,
      },
      pre_tokenizer: { type: "BertPreTokenizer" },
      post_processor: {
        type: "TemplateProcessing",
        single: [piece(cls, 0), text("A", 0), piece(sep, 0)],
        pair: [piece(cls, 0), text("A", 0), piece(sep, 0), text("B", 1), piece(sep, 1)],
        special_tokens: Object.fromEntries(
          [cls, sep].map((token) => [token, { id: token, ids: [ids[token] ?? 0], tokens: [token] }]),
        ),
      },
      decoder: { type: "WordPiece", prefix: "##", cleanup: true },
      model: {
        type: "WordPiece",
        unk_token: special.unk_token,
        continuing_subword_prefix: "##",
        max_input_chars_per_word: 100,
        vocab: ids,
      },
    },
    {
      ...vocabulary,
      tokens,
      types: tokens.map((token) =>
        Object.values(special).includes(token) ? tokenTypes.control : tokenTypes.normal,
      ),
    },
  );
  return { json, config: { ...tokenizerConfig(read, vocabulary), ...special, do_lower_case: true } };
}

const bpe = {
  type: "BPE",
  dropout: null,
  unk_token: null,
  continuing_subword_prefix: null,
  end_of_word_suffix: null,
  fuse_unk: false,
  byte_fallback: false,
} as const;

function idsOf(tokens: readonly string[]): Record<string, number> {
  return Object.fromEntries(tokens.map((token, id) => [token, id]));
}

/** The start and end tokens around a text, as the file asks for them; null where there are none. */
function startAndEnd(
  read: MetadataReader,
  { roles }: Vocabulary,
  otherwise: { readonly bos: boolean; readonly eos: boolean },
): JsonObject | null {
  const asked = (flag: string, fallback: boolean, role: string) =>
    (read.flag(`tokenizer.ggml.${flag}`) ?? fallback) ? roles.get(role) : undefined;
  const bos = asked("add_bos_token", otherwise.bos, "bos_token");
  const eos = asked("add_eos_token", otherwise.eos, "eos_token");
  if (bos === undefined && eos === undefined) return null;
  const around = (id: "A" | "B", typeId: number): JsonObject[] => [
    ...(bos === undefined ? [] : [{ SpecialToken: { id: bos.token, type_id: typeId } }]),
    { Sequence: { id, type_id: typeId } },
    ...(eos === undefined ? [] : [{ SpecialToken: { id: eos.token, type_id: typeId } }]),
  ];
  const used = [bos, eos].filter((each) => each !== undefined);
  return {
    type: "TemplateProcessing",
    single: around("A", 0),
    pair: [...around("A", 0), ...around("B", 1)],
    special_tokens: Object.fromEntries(
      used.map(({ id, token }) => [token, { id: token, ids: [id], tokens: [token] }]),
    ),
  };
}

/** Characters of the longest piece that is looked at for merges; SentencePiece stops at 16 unless told otherwise. */
const LONGEST_PIECE = 256;

/** Every way to join two pieces into a third, best score first; of equal scores the pieces with smaller ids. */
function mergesOfScores(
  tokens: readonly string[],
  scores: readonly number[],
  types: readonly number[],
): [string, string][] {
  const ids = new Map(
    tokens.flatMap((token, id) => (types[id] === tokenTypes.normal ? [[token, id] as const] : [])),
  );
  const found: { readonly pair: [string, string]; readonly score: number; readonly ids: [number, number] }[] =
    [];
  for (const [token, id] of ids) {
    if (token.length > LONGEST_PIECE) continue;
    const characters = [...token];
    let cut = 0;
    for (const character of characters.slice(0, -1)) {
      cut += character.length;
      const [left, right] = [token.slice(0, cut), token.slice(cut)];
      const [leftId, rightId] = [ids.get(left), ids.get(right)];
      if (leftId === undefined || rightId === undefined) continue;
      found.push({ pair: [left, right], score: scores[id] ?? 0, ids: [leftId, rightId] });
    }
  }
  found.sort((a, b) => b.score - a.score || a.ids[0] - b.ids[0] || a.ids[1] - b.ids[1]);
  return found.map(({ pair }) => pair);
}

function refuse(file: string, text: string): TributaryError {
  return new TributaryError("unsupported-tokenizer", `${file}: ${text}`);
}
