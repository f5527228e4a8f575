import { TributaryError } from "../../errors.ts";
import { isObject, type Json, type JsonObject } from "../json.ts";
import type { GgufMetadata, GgufValue } from "./metadata.ts";
import { nameOfPreTokenizer } from "./pre-tokenizers.ts";
import { SPACE, type TokenizerJson, tokenRoles, tokenTypes } from "./tokenizer.ts";

/** The `tokenizer.*` values of a tokenizer for a model of `vocabSize` tokens; refuses what llama.cpp has no name for. */
export function tokenizerMetadata({ json, config }: TokenizerJson, vocabSize: number): GgufMetadata {
  const model = isObject(json.model) ? json.model : {};
  const vocabulary = vocabularyOf(json, model, vocabSize);
  const kind = kindOf(json, model);
  const values = { bytes: byteLevelBpe, pieces: sentencePieceBpe, words: wordPiece }[kind](
    json,
    model,
    vocabulary,
  );
  const template = chatTemplateOf(config.chat_template);
  return new Map([
    ...values,
    ...roleIds(config, vocabulary),
    ...(template === undefined ? [] : [["tokenizer.chat_template", string(template)] as const]),
  ]);
}

interface Vocabulary {
  /** Tokens by id; ids that the tokenizer leaves out have none. */
  readonly tokens: readonly (string | undefined)[];
  readonly ids: ReadonlyMap<string, number>;
  /** Tokens that are matched as a whole, and whether they are special. */
  readonly added: ReadonlyMap<string, boolean>;
}

type Values = Map<string, GgufValue>;

function kindOf(json: JsonObject, model: JsonObject): "bytes" | "pieces" | "words" {
  if (model.type === "WordPiece") return "words";
  const text = JSON.stringify([json.pre_tokenizer ?? null, json.decoder ?? null]);
  if (model.type === "BPE" || (model.type === undefined && model.merges !== undefined)) {
    if (text.includes('"ByteLevel"')) return "bytes";
    if (model.byte_fallback === true) return "pieces";
  }
  throw refuse(
    `a tokenizer of type ${JSON.stringify(model.type ?? null)} has no form in GGUF here; supported are byte-level BPE, BPE with byte fallback and WordPiece`,
  );
}

function vocabularyOf(json: JsonObject, model: JsonObject, vocabSize: number): Vocabulary {
  const ids = new Map<string, number>();
  if (isObject(model.vocab)) {
    for (const [token, id] of Object.entries(model.vocab)) if (typeof id === "number") ids.set(token, id);
  }
  const added = new Map<string, boolean>();
  for (const entry of Array.isArray(json.added_tokens) ? json.added_tokens : []) {
    if (!isObject(entry) || typeof entry.content !== "string" || typeof entry.id !== "number") continue;
    ids.set(entry.content, entry.id);
    added.set(entry.content, entry.special === true);
  }
  const size = [...ids.values()].reduce((most, id) => Math.max(most, id + 1), vocabSize);
  if (size > vocabSize) throw refuse(`the tokenizer has ${size} tokens, the model ${vocabSize}`);
  const tokens = new Array<string | undefined>(size).fill(undefined);
  for (const [token, id] of ids) tokens[id] = token;
  return { tokens, ids, added };
}

function byteLevelBpe(json: JsonObject, model: JsonObject, vocabulary: Vocabulary): Values {
  const pre = nameOfPreTokenizer(json.pre_tokenizer);
  const normalizer = isObject(json.normalizer) ? json.normalizer.type : null;
  if (pre === undefined || (normalizer !== null && !(pre === "qwen2" && normalizer === "NFC"))) {
    const got = JSON.stringify(pre === undefined ? (json.pre_tokenizer ?? null) : json.normalizer);
    throw refuse(`llama.cpp has no name for ${got.slice(0, 200)}`);
  }
  return new Map([
    ["tokenizer.ggml.model", string("gpt2")],
    ["tokenizer.ggml.pre", string(pre)],
    ...tokenLists(vocabulary, (_, special) =>
      special === undefined ? tokenTypes.normal : special ? tokenTypes.control : tokenTypes.userDefined,
    ),
    ["tokenizer.ggml.merges", strings(mergesOf(model).map((pair) => pair.join(" ")))],
    ["tokenizer.ggml.add_space_prefix", bool(false)],
    ...startAndEnd(json),
  ]);
}

function sentencePieceBpe(json: JsonObject, model: JsonObject, vocabulary: Vocabulary): Values {
  const text = JSON.stringify([json.normalizer ?? null, json.pre_tokenizer ?? null]);
  const prefix =
    text.includes('"Prepend"') ||
    (text.includes('"Metaspace"') && !text.includes('"prepend_scheme":"never"'));
  const unknown = model.unk_token;
  const ranks = new Map<string, number>();
  mergesOf(model).forEach((pair, rank) => {
    const piece = pair.join("");
    if (!ranks.has(piece)) ranks.set(piece, rank);
  });
  const scores = vocabulary.tokens.map((token, id) => -(ranks.get(token ?? "") ?? ranks.size + id));
  return new Map([
    ["tokenizer.ggml.model", string("llama")],
    ["tokenizer.ggml.pre", string("default")],
    ...tokenLists(vocabulary, (token, special) => {
      if (token === unknown) return tokenTypes.unknown;
      if (/^<0x[0-9A-Fa-f]{2}>$/.test(token)) return tokenTypes.byte;
      if (special === undefined) return tokenTypes.normal;
      return special ? tokenTypes.control : tokenTypes.userDefined;
    }),
    ["tokenizer.ggml.scores", { type: "array", of: "float32", values: Float32Array.from(scores) }],
    ["tokenizer.ggml.add_space_prefix", bool(prefix)],
    ...startAndEnd(json),
  ]);
}

function wordPiece(json: JsonObject, _: JsonObject, vocabulary: Vocabulary): Values {
  if (!isObject(json.normalizer) || json.normalizer.lowercase !== true) {
    throw refuse("llama.cpp lowers all text for WordPiece; this tokenizer keeps capitals");
  }
  const tokens = vocabulary.tokens.map((token) => {
    if (token === undefined || /^\[.+\]$/.test(token)) return token;
    return token.startsWith("##") ? token.slice(2) : `${SPACE}${token}`;
  });
  const cls = vocabulary.ids.get("[CLS]");
  return new Map([
    ["tokenizer.ggml.model", string("bert")],
    ...tokenLists({ ...vocabulary, tokens }, (_token, special) =>
      special === undefined ? tokenTypes.normal : tokenTypes.control,
    ),
    ...(cls === undefined ? [] : [["tokenizer.ggml.bos_token_id", { type: "uint32", value: cls }] as const]),
  ]);
}

/** Tokens and their types; ids without a token get a name of their own that no text matches. */
function tokenLists(
  { tokens, added }: Vocabulary,
  typeOf: (token: string, special: boolean | undefined) => number,
): [string, GgufValue][] {
  const types = tokens.map((token) =>
    token === undefined ? tokenTypes.unused : typeOf(token, added.get(token)),
  );
  return [
    ["tokenizer.ggml.tokens", strings(tokens.map((token, id) => token ?? `[PAD${id}]`))],
    ["tokenizer.ggml.token_type", { type: "array", of: "int32", values: Int32Array.from(types) }],
  ];
}

function mergesOf(model: JsonObject): [string, string][] {
  return (Array.isArray(model.merges) ? model.merges : []).map((merge: Json): [string, string] => {
    const pair = typeof merge === "string" ? splitMerge(merge) : merge;
    const [left, right] = Array.isArray(pair) ? pair : [];
    if (typeof left !== "string" || typeof right !== "string") {
      throw refuse(`got the merge ${JSON.stringify(merge)}, expected two tokens`);
    }
    return [left, right];
  });
}

function splitMerge(merge: string): [string, string] {
  const cut = merge.indexOf(" ", 1);
  return [merge.slice(0, cut), merge.slice(cut + 1)];
}

function roleIds(config: JsonObject, { ids }: Vocabulary): [string, GgufValue][] {
  return Object.entries(tokenRoles).flatMap(([key, role]): [string, GgufValue][] => {
    const value = config[role];
    const token = isObject(value) ? value.content : value;
    const id = typeof token === "string" ? ids.get(token) : undefined;
    return id === undefined ? [] : [[`tokenizer.ggml.${key}`, { type: "uint32", value: id }]];
  });
}

/** Whether the frame of the tokenizer puts tokens before and after a text. */
function startAndEnd({ post_processor: processor }: JsonObject): [string, GgufValue][] {
  const frames =
    isObject(processor) && Array.isArray(processor.processors) ? processor.processors : [processor];
  const template = frames.find((each) => isObject(each) && each.type === "TemplateProcessing");
  const single = isObject(template) && Array.isArray(template.single) ? template.single : [];
  const isText = (piece: Json | undefined): boolean => isObject(piece) && piece.Sequence !== undefined;
  return [
    ["tokenizer.ggml.add_bos_token", bool(single.length > 0 && !isText(single[0]))],
    ["tokenizer.ggml.add_eos_token", bool(single.length > 0 && !isText(single.at(-1)))],
  ];
}

/** A template, or of several the one named `default`. */
function chatTemplateOf(value: Json | undefined): string | undefined {
  if (typeof value === "string") return value;
  if (!Array.isArray(value)) return undefined;
  const named = value.find((entry) => isObject(entry) && entry.name === "default");
  return isObject(named) && typeof named.template === "string" ? named.template : undefined;
}

const string = (value: string): GgufValue => ({ type: "string", value });
const bool = (value: boolean): GgufValue => ({ type: "bool", value });
const strings = (values: readonly string[]): GgufValue => ({ type: "array", of: "string", values });

function refuse(message: string): TributaryError {
  return new TributaryError("unsupported-tokenizer", `export: ${message}`);
}
