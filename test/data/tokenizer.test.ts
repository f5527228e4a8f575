import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { tokenizerCases } from "../../scripts/parity/tokenizers.ts";
import { readTokenizer } from "../../src/data/files.node.ts";
import { loadTokenizer, type Tokenizer } from "../../src/data/tokenizer.ts";
import { shared } from "../shared.ts";

const base = fileURLToPath(new URL("../../examples/presidents/base", import.meta.url));
const presidents = await readTokenizer(base);

/** A word-piece tokenizer of seven words, framed as the post-processor says. */
function tiny(postProcessor: object | null, config: object = {}): Tokenizer {
  const words = ["[UNK]", "[CLS]", "[SEP]", "[PAD]", "a", "b", "c"];
  const special = (content: string, id: number): object => ({
    id,
    content,
    special: true,
    single_word: false,
    lstrip: false,
    rstrip: false,
    normalized: false,
  });
  return loadTokenizer(
    {
      added_tokens: words.slice(0, 4).map(special),
      normalizer: null,
      pre_tokenizer: { type: "WhitespaceSplit" },
      post_processor: postProcessor,
      decoder: null,
      model: {
        type: "WordPiece",
        unk_token: "[UNK]",
        continuing_subword_prefix: "##",
        max_input_chars_per_word: 9,
        vocab: Object.fromEntries(words.map((w, i) => [w, i])),
      },
    },
    config,
  );
}

const bert = { type: "BertProcessing", sep: ["[SEP]", 2], cls: ["[CLS]", 1] };

describe("the tokenizer of the presidents", () => {
  it("knows its size and the ids with a role", () => {
    expect(presidents.vocabularySize).toBe(4096);
    expect([presidents.bosId, presidents.eosId, presidents.padId]).toEqual([0, 0, 1]);
    expect(presidents.chatTemplate).toBeUndefined();
    expect(presidents.tokenId("<|pad|>")).toBe(1);
    expect(presidents.token(0)).toBe("<|endoftext|>");
  });

  it("gives any text back", () => {
    fc.assert(
      fc.property(fc.string({ unit: "grapheme", maxLength: 40 }), (text) => {
        expect(presidents.decode(presidents.encode(text).ids, { skipSpecialTokens: false })).toBe(text);
      }),
    );
  });

  it("decodes no ids to no text, and skips special tokens unless asked for", () => {
    expect(presidents.decode([])).toBe("");
    const { ids } = presidents.encode("Peace.<|endoftext|>");
    expect(ids.at(-1)).toBe(0);
    expect(presidents.decode(Int32Array.from(ids))).toBe("Peace.");
    expect(presidents.decode(ids, { skipSpecialTokens: false })).toBe("Peace.<|endoftext|>");
  });

  it("cuts on the right at maxLength and says so", () => {
    const whole = presidents.encode("To the Congress of the United States");
    expect(whole.truncated).toBe(false);
    expect(presidents.encode("To the Congress of the United States", { maxLength: 3 })).toEqual({
      ids: whole.ids.slice(0, 3),
      typeIds: [0, 0, 0],
      truncated: true,
    });
  });

  it("signs that the text before 1950 never had stay within the vocabulary", () => {
    const { model } = JSON.parse(readFileSync(`${base}/tokenizer.json`, "utf8"));
    expect(Object.keys(model.vocab)).toHaveLength(4096);
    expect(Math.max(...presidents.encode("naïve 日本 \u0000 ½").ids)).toBeLessThan(4096);
  });
});

describe("frames", () => {
  it("BERT and RoBERTa frame pairs with one and two separators, and with their types", () => {
    const { ids, typeIds } = tiny(bert).encode("a", { textPair: "b c" });
    expect([ids, typeIds]).toEqual([
      [1, 4, 2, 5, 6, 2],
      [0, 0, 0, 1, 1, 1],
    ]);
    const roberta = tiny({ ...bert, type: "RobertaProcessing" }).encode("a", { textPair: "b c" });
    expect([roberta.ids, roberta.typeIds]).toEqual([
      [1, 4, 2, 2, 5, 6, 2],
      [0, 0, 0, 0, 0, 0, 0],
    ]);
  });

  it("an empty second text is still a pair", () => {
    expect(tiny(bert).encode("a", { textPair: "" }).ids).toEqual([1, 4, 2, 2]);
    expect(tiny(null).encode("a", { textPair: "b" }).typeIds).toEqual([0, 1]);
  });

  it("special tokens stay when a text is cut, and too little room for them is refused", () => {
    expect(tiny(bert).encode("a b c", { maxLength: 3 }).ids).toEqual([1, 4, 2]);
    expect(tiny(bert).encode("a b c", { maxLength: 2 }).ids).toEqual([1, 2]);
    expect(() => tiny(bert).encode("a", { maxLength: 1 })).toThrow("maxLength 1, expected at least 2");
    expect(tiny(bert).encode("a b", { addSpecialTokens: false }).ids).toEqual([4, 5]);
  });

  it("of a pair the longer text is cut first; then both halves are equal and the longer keeps the odd token", () => {
    const lengths = (a: number, b: number, maxLength: number): number[] => {
      const { ids } = tiny(null).encode("a ".repeat(a), { textPair: "b ".repeat(b), maxLength });
      return [ids.filter((id) => id === 4).length, ids.filter((id) => id === 5).length];
    };
    expect(lengths(6, 2, 7)).toEqual([5, 2]);
    expect(lengths(2, 6, 7)).toEqual([2, 5]);
    expect(lengths(6, 5, 7)).toEqual([4, 3]);
    expect(lengths(5, 6, 7)).toEqual([3, 4]);
    expect(lengths(5, 5, 7)).toEqual([3, 4]);
    expect(lengths(3, 3, 0)).toEqual([0, 0]);
  });

  it("roles that the configuration does not give are undefined; a token may be an object there", () => {
    const tokenizer = tiny(bert, {
      pad_token: { content: "[PAD]" },
      chat_template: [{ name: "default", template: "x" }],
    });
    expect([tokenizer.bosId, tokenizer.eosId, tokenizer.padId]).toEqual([undefined, undefined, 3]);
    expect(tokenizer.chatTemplate).toBe("x");
  });

  it("what cannot be used is refused by name", () => {
    expect(() => tiny({ type: "Mystery" })).toThrow(
      expect.objectContaining({ code: "unsupported-tokenizer" }),
    );
    expect(() => tiny({ type: "Mystery" })).toThrow('the post-processor "Mystery"');
    expect(() => loadTokenizer([])).toThrow(
      "got an array without a model, expected the content of a tokenizer.json",
    );
    expect(() => loadTokenizer({ model: { type: "Nonsense" } })).toThrow(
      "a tokenizer.json that cannot be used",
    );
  });
});

describe.skipIf(shared === undefined)(
  "against the reference library (skipped where shared/ is absent)",
  () => {
    it("all recorded texts, pairs, batches and chats are equal", async () => {
      const lines = [];
      for await (const line of tokenizerCases(`${shared}/goldens`)) lines.push(line);
      expect(lines.length).toBeGreaterThan(20);
      expect(lines.filter(({ verdict }) => verdict !== "passed")).toEqual([]);
    });

    it("byte tokens that are not UTF-8 decode to one replacement sign each", async () => {
      const stories = await readTokenizer(`${shared}/models/stories260K`);
      const bytes = ["<0xE2>", "<0x80>", "<0xFF>"].map((token) => stories.tokenId(token) ?? 0);
      expect(stories.decode(bytes)).toBe("\ufffd\ufffd\ufffd");
    });
  },
);
