import { existsSync, readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { describe, expect, it } from "vitest";
import { loadTokenizer } from "../../src/data/tokenizer.ts";
import { fileSource } from "../../src/formats/files.node.ts";
import { openGguf } from "../../src/formats/gguf/gguf.ts";
import type { GgufMetadata, GgufValue } from "../../src/formats/gguf/metadata.ts";
import { ggufTokenizer } from "../../src/formats/gguf/tokenizer.ts";
import { tokenizerMetadata } from "../../src/formats/gguf/tokenizer-metadata.ts";
import { type JsonObject, parseJsonObject } from "../../src/formats/json.ts";
import { shared } from "../shared.ts";

const base = fileURLToPath(new URL("../../examples/presidents/base", import.meta.url));

function jsonAt(path: string): JsonObject {
  return existsSync(path) ? parseJsonObject(new Uint8Array(readFileSync(path)), path) : {};
}

const filesOf = (folder: string) => ({
  json: jsonAt(`${folder}/tokenizer.json`),
  config: jsonAt(`${folder}/tokenizer_config.json`),
});

const texts = [
  "",
  "My fellow citizens",
  " two  spaces\n\nand lines\t",
  "It's 1861, isn't it? 12345678",
  "naïve café — ½ ² 日本語 🙂",
  "don't DON'T we'll",
];

const bytes = (text: string): string[] => [...text];

/** Metadata of a byte-level tokenizer whose merges join the letters of some words. */
function metadataOf(
  words: readonly string[],
  pre: string | undefined,
  more: Readonly<Record<string, GgufValue>> = {},
): GgufMetadata {
  const letters = [...new Set(words.flatMap(bytes))];
  const merges: string[] = [];
  const joined = new Set<string>();
  for (const word of words) {
    for (let end = 2; end <= word.length; end++) {
      if (joined.has(word.slice(0, end))) continue;
      joined.add(word.slice(0, end));
      merges.push(`${word.slice(0, end - 1)} ${word[end - 1]}`);
    }
  }
  const tokens = [...letters, ...joined, "<s>"];
  return new Map<string, GgufValue>([
    ["tokenizer.ggml.model", { type: "string", value: "gpt2" }],
    ...(pre === undefined ? [] : [["tokenizer.ggml.pre", { type: "string", value: pre }] as const]),
    ["tokenizer.ggml.tokens", { type: "array", of: "string", values: tokens }],
    [
      "tokenizer.ggml.token_type",
      { type: "array", of: "int32", values: Int32Array.from(tokens, (token) => (token === "<s>" ? 3 : 1)) },
    ],
    ["tokenizer.ggml.merges", { type: "array", of: "string", values: merges }],
    ["tokenizer.ggml.bos_token_id", { type: "uint32", value: tokens.length - 1 }],
    ...Object.entries(more),
  ]);
}

function tokensOf(metadata: GgufMetadata, text: string): (string | undefined)[] {
  const { json, config } = ggufTokenizer(metadata);
  const tokenizer = loadTokenizer(json, config);
  return tokenizer.encode(text).ids.map((id) => tokenizer.token(id));
}

describe("pre-tokenizers", () => {
  const words = ["Ġabc", "abc", "1234", "'S"];
  it.each([
    ["gpt-2", "abc1234", ["abc", "1234"]],
    ["smollm", "abc1234", ["abc", "1", "2", "3", "4"]],
    ["qwen2", "abc1234", ["abc", "1", "2", "3", "4"]],
    ["llama-bpe", "abc1234", ["<s>", "abc", "123", "4"]],
    ["default", "abc1234", ["abc", "123", "4"]],
    ["gpt-2", "abc'S", ["abc", "'", "S"]],
    ["qwen2", "abc'S abc", ["abc", "'S", "Ġabc"]],
  ])("%s cuts %s", (pre, text, expected) => {
    expect(tokensOf(metadataOf(words, pre), text)).toEqual(expected);
  });

  it("a file without a name takes the default, and says itself whether a text has a start token", () => {
    expect(tokensOf(metadataOf(words, undefined), "1234")).toEqual(["123", "4"]);
    const add = (value: boolean) => ({ "tokenizer.ggml.add_bos_token": { type: "bool", value } as const });
    expect(tokensOf(metadataOf(words, "gpt-2", add(true)), "abc")).toEqual(["<s>", "abc"]);
    expect(tokensOf(metadataOf(words, "llama-bpe", add(false)), "abc")).toEqual(["abc"]);
  });

  it("a word of the vocabulary is taken whole where merges are not asked", () => {
    const metadata = new Map(metadataOf(["xyz"], "llama-bpe"));
    metadata.set("tokenizer.ggml.merges", { type: "array", of: "string", values: ["x y"] });
    expect(tokensOf(metadata, "xyz")).toEqual(["<s>", "xyz"]);
    metadata.set("tokenizer.ggml.pre", { type: "string", value: "gpt-2" });
    expect(tokensOf(metadata, "xyz")).toEqual(["xy", "z"]);
  });
});

describe("what is refused by name", () => {
  it.each([
    [
      "a pre-tokenizer",
      metadataOf(["ab"], "tekken"),
      /tokenizer\.ggml\.pre is "tekken", supported are smollm/,
    ],
    [
      "a kind",
      new Map([...metadataOf(["ab"], "gpt-2"), ["tokenizer.ggml.model", { type: "string", value: "t5" }]]),
      /"t5", supported are gpt2, llama and bert/,
    ],
    ["no tokenizer", new Map(), /no tokenizer/],
    [
      "no merges",
      new Map([...metadataOf(["ab"], "gpt-2")].filter(([key]) => !key.endsWith("merges"))),
      /no tokenizer\.ggml\.merges/,
    ],
    [
      "a type too few",
      new Map([
        ...metadataOf(["ab"], "gpt-2"),
        ["tokenizer.ggml.token_type", { type: "array", of: "int32", values: new Int32Array(2) }],
      ]),
      /an array of 2 int32, expected an array of 4 numbers/,
    ],
  ] as [string, GgufMetadata, RegExp][])("%s", (_, metadata, message) => {
    expect(() => ggufTokenizer(metadata, "x.gguf")).toThrow(message);
    expect(() => ggufTokenizer(metadata, "x.gguf")).toThrow(/^x\.gguf: /);
  });

  it("tokenizers that llama.cpp has no name for", () => {
    const { json, config } = filesOf(base);
    const split = { type: "Split", pattern: { Regex: "x+" }, behavior: "Isolated", invert: false };
    const other = {
      ...json,
      pre_tokenizer: { type: "Sequence", pretokenizers: [split, json.pre_tokenizer ?? null] },
    };
    expect(() => tokenizerMetadata({ json: other, config }, 4096)).toThrow(/llama\.cpp has no name for/);
    expect(() => tokenizerMetadata({ json: { model: { type: "Unigram" } }, config }, 10)).toThrow(
      /"Unigram" has no form/,
    );
    expect(() => tokenizerMetadata({ json, config }, 100)).toThrow(/has 4096 tokens, the model 100/);
  });
});

/** The tokenizer of a folder, through GGUF and back. */
function roundTrip(folder: string, vocabSize: number) {
  const files = filesOf(folder);
  const metadata = tokenizerMetadata(files, vocabSize);
  const again = ggufTokenizer(metadata);
  return {
    metadata,
    again,
    files,
    before: loadTokenizer(files.json, files.config),
    after: loadTokenizer(again.json, again.config),
  };
}

describe("through GGUF and back", () => {
  it("a byte-level tokenizer is the same, and ids beyond it have names that no text matches", () => {
    const { before, after, again, files, metadata } = roundTrip(base, 4100);
    for (const text of texts) expect(after.encode(text)).toEqual(before.encode(text));
    expect(again.json.pre_tokenizer).toEqual(files.json.pre_tokenizer);
    expect([after.bosId, after.eosId, after.padId]).toEqual([before.bosId, before.eosId, before.padId]);
    expect(after.vocabularySize).toBe(4100);
    expect(after.token(4099)).toBe("[PAD4099]");
    expect(metadata.get("tokenizer.ggml.pre")).toEqual({ type: "string", value: "gpt-2" });
  });

  describe.skipIf(shared === undefined)("the reference tokenizers (skipped without them)", () => {
    interface Golden {
      readonly texts: readonly { readonly text: string; readonly ids: number[]; readonly decoded: string }[];
    }
    it.each([
      ["SmolLM2-135M-Instruct", 49152, "smollm"],
      ["stories260K", 512, "default"],
      ["all-MiniLM-L6-v2", 30522, undefined],
    ])("%s gives the recorded ids and texts", (name, vocabSize, pre) => {
      const { after, metadata } = roundTrip(`${shared}/models/${name}`, vocabSize);
      const golden: Golden = JSON.parse(readFileSync(`${shared}/goldens/tokenizers/${name}.json`, "utf8"));
      for (const { text, ids, decoded } of golden.texts) {
        expect(after.encode(text).ids).toEqual(ids);
        expect(after.decode(ids)).toBe(decoded);
      }
      expect(metadata.get("tokenizer.ggml.pre")).toEqual(
        pre === undefined ? undefined : { type: "string", value: pre },
      );
    });

    it("the metadata of SmolLM2's file is its tokenizer.json, merge for merge, with its chat template", async () => {
      const folder = `${shared}/models/SmolLM2-135M-Instruct`;
      const gguf = await openGguf(await fileSource(`${folder}/SmolLM2-135M-Instruct.Q4_1.gguf`));
      const { json, config } = ggufTokenizer(gguf.metadata);
      expect(json).toEqual(filesOf(folder).json);
      const written = filesOf(folder).config;
      for (const key of ["bos_token", "eos_token", "pad_token", "unk_token", "chat_template"])
        expect(config[key]).toEqual(written[key]);
      const again = tokenizerMetadata({ json, config }, 49152);
      for (const [key, value] of again)
        if (gguf.metadata.has(key)) expect(gguf.metadata.get(key)).toEqual(value);
    });
  });
});
