import { fileURLToPath } from "node:url";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import {
  causalExamples,
  classificationExamples,
  droppedReasons,
  type Example,
  ignored,
  packedExamples,
  regressionExamples,
} from "../../src/data/examples.ts";
import { readTokenizer } from "../../src/data/files.node.ts";
import { alpaca, chat, plainText, promptCompletion } from "../../src/data/templates.ts";
import { shared } from "../shared.ts";

const tokenizer = await readTokenizer(
  fileURLToPath(new URL("../../examples/presidents/base", import.meta.url)),
);

const trained = ({ inputIds, labels }: Example): number[] =>
  [...inputIds].filter((_, t) => labels?.[t] !== ignored);

describe("causalExamples", () => {
  it("labels the response and its end token, and ignores the prompt", () => {
    const { examples } = causalExamples([{ instruction: "Name a city.", output: "Washington is one." }], {
      tokenizer,
      template: alpaca(),
      maxLength: 512,
    });
    const [example] = examples;
    if (example === undefined) throw new Error("no example");
    expect(tokenizer.decode(trained(example), { skipSpecialTokens: false })).toBe(
      "Washington is one.<|endoftext|>",
    );
    expect(
      [...(example.labels ?? [])].filter((label, t) => label !== ignored && label !== example.inputIds[t]),
    ).toEqual([]);
  });

  it("trains every character of the completion wherever tokens cross its border", () => {
    const text = fc.string({ unit: "grapheme", minLength: 1, maxLength: 12 });
    const words = fc.array(fc.constantFrom("the ", "Congress", " ", "of", "\n", "1", "98", "'s", "—"), {
      minLength: 1,
      maxLength: 8,
    });
    fc.assert(
      fc.property(
        fc.oneof(
          text,
          words.map((w) => w.join("")),
        ),
        fc.oneof(
          text,
          words.map((w) => w.join("")),
        ),
        (prompt, completion) => {
          const { examples } = causalExamples([{ prompt, completion }], {
            tokenizer,
            template: promptCompletion(),
            maxLength: 999,
          });
          const [example] = examples;
          if (example === undefined) throw new Error("no example");
          const { inputIds } = example;
          expect(tokenizer.decode(inputIds)).toBe(prompt + completion);
          const ids = trained(example);
          expect(tokenizer.decode(ids).endsWith(completion)).toBe(true);
          // What is not trained is of the prompt alone, down to the bytes of a character that a token divides.
          const untrained = tokenizer.decode(inputIds.slice(0, inputIds.length - ids.length));
          expect(prompt.startsWith(untrained.replace(/\ufffd+$/, ""))).toBe(true);
        },
      ),
      { numRuns: 200 },
    );
  });

  it("counts what was cut, and drops with a reason what has nothing left to train", () => {
    const long = "the people ".repeat(40);
    const prepared = causalExamples(
      [
        { prompt: "a", completion: long },
        { prompt: long, completion: "b" },
        { prompt: "no completion" },
        { prompt: "c", completion: "d" },
      ],
      { tokenizer, template: promptCompletion(), maxLength: 16 },
    );
    expect(prepared.sources).toEqual([0, 3]);
    expect(prepared.truncated).toBe(1);
    expect(prepared.examples[0]?.inputIds).toHaveLength(16);
    expect(prepared.dropped).toEqual([
      { index: 1, reason: "nothing to train within 16 tokens: the prompt fills them; raise maxLength" },
      { index: 2, reason: 'no field "completion"' },
    ]);
    expect(droppedReasons([...prepared.dropped, { index: 9, reason: 'no field "completion"' }])).toEqual(
      new Map([
        ['no field "completion"', 2],
        ["nothing to train within 16 tokens: the prompt fills them; raise maxLength", 1],
      ]),
    );
  });

  it("is an error that names the commonest reason when no example is left", () => {
    const run = (): unknown =>
      causalExamples([{ txt: "a" }, { txt: "b" }], { tokenizer, template: plainText(), maxLength: 8 });
    expect(run).toThrow(expect.objectContaining({ code: "no-examples" }));
    expect(run).toThrow('2 of 2 records: no field "text"');
  });

  it.skipIf(shared === undefined)(
    "masks a chat by its turns in ids (skipped where shared/ is absent)",
    async () => {
      const smol = await readTokenizer(`${shared}/models/SmolLM2-135M-Instruct`);
      const messages = [
        { role: "user", content: "Say assistant." },
        { role: "assistant", content: "assistant" },
        { role: "user", content: "Again." },
        { role: "assistant", content: "assistant\nassistant" },
      ];
      const { examples } = causalExamples([{ messages }], {
        tokenizer: smol,
        template: chat(smol),
        maxLength: 512,
      });
      const [example] = examples;
      if (example === undefined) throw new Error("no example");
      expect(smol.decode(trained(example), { skipSpecialTokens: false })).toBe(
        "assistant<|im_end|>\nassistant\nassistant<|im_end|>\n",
      );
    },
  );
});

describe("packedExamples", () => {
  it("is the stream of all texts and end tokens in equal blocks, all trained; the rest is listed", () => {
    const texts = [
      "We the people of the United States.",
      "",
      "In order to form a more perfect Union, establish justice.",
    ];
    const stream = [texts[0], texts[2]].flatMap((text) => [...tokenizer.encode(text ?? "").ids, 0]);
    const { examples, sources, dropped } = packedExamples(
      texts.map((text) => ({ text })),
      { tokenizer, blockLength: 6 },
    );
    const whole = Math.floor(stream.length / 6);
    expect(examples.flatMap(({ inputIds }) => [...inputIds])).toEqual(stream.slice(0, whole * 6));
    for (const { inputIds, labels } of examples) expect(labels).toEqual(inputIds);
    expect(sources).toHaveLength(whole);
    expect(dropped[0]).toEqual({ index: 1, reason: 'an empty field "text"' });
    if (stream.length % 6 > 0) expect(dropped[1]?.reason).toBe("the last tokens do not fill a block of 6");
  });

  it("refuses blocks without a token to predict, and texts too short for one block", () => {
    expect(() => packedExamples([{ text: "a" }], { tokenizer, blockLength: 1 })).toThrow(
      "blockLength 1, expected an integer of at least 2",
    );
    expect(() => packedExamples([{ text: "a" }], { tokenizer, blockLength: 64 })).toThrow(
      expect.objectContaining({ code: "no-examples" }),
    );
  });
});

describe("classificationExamples", () => {
  const options = { tokenizer, maxLength: 8, text: "sentence" };

  it("takes classes by number or by name, and token types for pairs", () => {
    const numbered = classificationExamples(
      [
        { sentence: "good", label: 1 },
        { sentence: "bad", label: "0" },
      ],
      { ...options, classes: 2 },
    );
    expect(numbered.examples.map(({ label }) => label)).toEqual([1, 0]);
    const pairs = classificationExamples([{ sentence: "a", other: "b", label: "yes" }], {
      ...options,
      textPair: "other",
      classes: ["no", "yes"],
    });
    expect(pairs.examples[0]).toEqual({
      inputIds: Int32Array.of(...tokenizer.encode("a").ids, ...tokenizer.encode("b").ids),
      tokenTypeIds: Int32Array.of(0, 1),
      label: 1,
    });
  });

  it("refuses a label outside the classes with its record", () => {
    for (const label of [2, -1, 0.5, "maybe", {}, true]) {
      const run = (): unknown =>
        classificationExamples(
          [
            { sentence: "x", label: 0 },
            { sentence: "y", label },
          ],
          { ...options, classes: 2 },
        );
      expect(run).toThrow(expect.objectContaining({ code: "label-range" }));
      expect(run).toThrow(/record 1 has the label .* in "label", expected an integer from 0 to 1/);
    }
  });

  it("drops and lists records without text or label", () => {
    const { sources, dropped } = classificationExamples(
      [{ sentence: "x", label: 0 }, { label: 1 }, { sentence: "z" }, { sentence: "", label: 1 }],
      { ...options, classes: 2 },
    );
    expect(sources).toEqual([0]);
    expect(dropped.map(({ reason }) => reason)).toEqual([
      'no field "sentence"',
      'no field "label"',
      'a text without tokens in "sentence"',
    ]);
  });
});

describe("regressionExamples", () => {
  it("takes finite numbers, also as text, and refuses others", () => {
    const options = { tokenizer, maxLength: 8, text: "s", label: "score" };
    expect(
      regressionExamples(
        [
          { s: "a", score: 4.5 },
          { s: "b", score: "-1e-1" },
        ],
        options,
      ).examples.map(({ label }) => label),
    ).toEqual([4.5, -0.1]);
    for (const score of [Number.NaN, "much", ""]) {
      expect(() => regressionExamples([{ s: "a", score }], options)).toThrow(
        /record 0 has the label .* in "score", expected a finite number/,
      );
    }
  });
});
