import { beforeAll, describe, expect, it } from "vitest";
import { causalExamples } from "../../src/data/examples.ts";
import { plainText, promptCompletion, questionAnswer, type Template } from "../../src/data/templates.ts";
import { answers } from "../../src/eval/answers.ts";
import { choiceLikelihoods, questionsOf } from "../../src/eval/choices.ts";
import { type EvaluationProgress, type ExampleRow, evaluateModel } from "../../src/eval/evaluate.ts";
import type { EvaluatedModel } from "../../src/eval/model.ts";
import { encodedPrompts, type Prompt, promptGroups } from "../../src/eval/prompts.ts";
import { sampleText } from "../../src/job/sample.ts";
import type { Metric } from "../../src/metrics/metric.ts";
import { metricNamed } from "../../src/metrics/table.ts";
import { baseModel } from "./base.ts";

let base: EvaluatedModel;

beforeAll(async () => {
  base = await baseModel();
});

const records = [
  { question: "Who speaks?", answer: "The President speaks to the Congress." },
  { question: "Where are we?", answer: "In Washington." },
  { question: "Who speaks?", answer: "It is he." },
  { question: "What is it?" },
];

function promptsOf(rows: readonly object[], template: Template = questionAnswer()): readonly Prompt[] {
  const { groups } = promptGroups(
    rows.map((row) => ({ ...row })),
    template,
  );
  return encodedPrompts(groups, { tokenizer: base.tokenizer, maxLength: 64 }).prompts;
}

const named = (...names: string[]): Metric[] => names.flatMap((name) => metricNamed(name) ?? []);

describe("prompts", () => {
  const template = questionAnswer();

  it("are what stands before the answer, one for equal prompts", () => {
    const { groups, dropped } = promptGroups(records, template);
    const { prompts, truncated } = encodedPrompts(groups, { tokenizer: base.tokenizer, maxLength: 64 });
    expect([dropped, truncated]).toEqual([1, 0]);
    expect(prompts.map(({ text, references }) => [text, references])).toEqual([
      ["Question: Who speaks?\nAnswer: ", ["The President speaks to the Congress.", "It is he."]],
      ["Question: Where are we?\nAnswer: ", ["In Washington."]],
    ]);
  });

  it("have the tokens that training has before the answer", () => {
    const { tokenizer } = base;
    const prompts = promptsOf(records);
    const { examples } = causalExamples(records.slice(0, 1), { tokenizer, template, maxLength: 64 });
    const [example] = examples;
    const start = example?.labels?.findIndex((label) => label >= 0) ?? 0;
    expect(prompts[0]?.inputIds).toEqual([...(example?.inputIds.slice(0, start) ?? [])]);
  });

  it("keep their end where they are too long", () => {
    const { groups } = promptGroups(records, template);
    const { prompts, truncated } = encodedPrompts(groups, { tokenizer: base.tokenizer, maxLength: 5 });
    expect(truncated).toBe(2);
    expect(prompts[0]?.inputIds).toEqual(promptsOf(records)[0]?.inputIds.slice(-5));
  });

  it("leave out texts that begin with what is trained", () => {
    expect(promptGroups([{ text: "all of it" }], plainText())).toEqual({ groups: [], dropped: 1 });
  });
});

describe("answers", () => {
  const prompts = ["My fellow citizens", "The budget of", "We must"];

  it("are the greedy texts of each prompt by itself", async () => {
    const rows = prompts.map((prompt) => ({ prompt, completion: " and" }));
    const made = promptsOf(rows, promptCompletion());
    const found: string[] = [];
    for await (const { index, value } of answers(base, made, { batchSize: 2, maxTokens: 10 }))
      found[index] = value.prediction;
    for (const [i, prompt] of prompts.entries()) {
      let text = "";
      const source = { ...base, weights: base.base };
      for await (const piece of sampleText(source, { prompt, maxTokens: 10, temperature: 0, seed: 0 }))
        text += piece;
      expect(found[i]).toBe(text.trim());
    }
  });

  it("end before a stop", async () => {
    const made = [{ inputIds: base.tokenizer.encode("My fellow").ids, text: "", references: [""] }];
    const texts: string[] = [];
    for (const stop of [[], [" the"]]) {
      for await (const { value } of answers(base, made, { batchSize: 1, maxTokens: 24, stop }))
        texts.push(value.prediction);
    }
    expect(texts[0]).toContain(" the");
    expect(texts[1]).toBe(texts[0]?.slice(0, texts[0].indexOf(" the")).trim());
  });
});

describe("choices", () => {
  const options = { template: questionAnswer(), answer: "answer" };

  it("are scored by the tokens of the choice alone", async () => {
    const { tokenizer } = base;
    const rows = [{ question: "Who?", choices: ["The President", "The very old cat of my aunt"], gold: 0 }];
    const questions = questionsOf(rows, { ...options, tokenizer });
    const found = [];
    for await (const { value } of choiceLikelihoods(base, questions, { batchSize: 4 })) found.push(value);
    const [first] = found;
    expect(first?.gold).toBe(0);
    expect(first?.logLikelihoods.every((value) => value < 0)).toBe(true);
    const losses = await evaluateModel(base, { losses: questions[0]?.examples ?? [] }, named("loss"), {
      batchSize: 1,
      maxTokens: 1,
      resamples: 0,
    });
    const tokens =
      questions[0]?.examples.map(({ labels }) => labels?.filter((label) => label >= 0).length ?? 0) ?? [];
    const all = tokens.reduce((sum, count) => sum + count, 0);
    expect(-(first?.logLikelihoods.reduce((sum, value) => sum + value, 0) ?? 0) / all).toBeCloseTo(
      losses[0]?.value ?? 0,
      5,
    );
  });

  it("are refused where they or the right one are missing", () => {
    const { tokenizer } = base;
    const made = (row: object): unknown =>
      questionsOf([{ question: "Who?", ...row }], { ...options, tokenizer });
    expect(() => made({ choices: ["one"], gold: 0 })).toThrow(
      'record 0 has no list of at least two choices in "choices"',
    );
    expect(() => made({ choices: ["a", "b"], gold: 2 })).toThrow(
      "neither a number from 0 to 1 nor the text of a choice",
    );
    expect(made({ choices: ["a", "b"], gold: "b" })).toMatchObject([{ gold: 1 }]);
  });
});

describe("an evaluation", () => {
  it("measures each kind once, with rows, intervals and progress", async () => {
    const { tokenizer } = base;
    const template = questionAnswer();
    const prompts = promptsOf(records);
    const { examples } = causalExamples(records.slice(0, 3), { tokenizer, template, maxLength: 64 });
    const rows: ExampleRow[] = [];
    const progress: EvaluationProgress[] = [];
    const options = { batchSize: 2, maxTokens: 6, resamples: 200, seed: 3 };
    const found = await evaluateModel(
      base,
      { losses: examples, texts: prompts },
      named("rougeL", "perplexity", "bleu"),
      { ...options, onExample: (row) => rows.push(row), onProgress: (one) => progress.push(one) },
    );
    expect(found.map(({ name, examples: count }) => [name, count])).toEqual([
      ["rougeL", 2],
      ["perplexity", 3],
      ["bleu", 2],
    ]);
    for (const { value = Number.NaN, low = Number.NaN, high = Number.NaN } of found) {
      expect(low).toBeLessThanOrEqual(value);
      expect(high).toBeGreaterThanOrEqual(value);
    }
    expect(
      rows
        .filter(({ kind }) => kind === "losses")
        .map(({ index }) => index)
        .sort(),
    ).toEqual([0, 1, 2]);
    expect(rows.find(({ kind, index }) => kind === "texts" && index === 1)).toMatchObject({
      prompt: "Question: Where are we?\nAnswer: ",
      references: ["In Washington."],
      scores: { rougeL: expect.any(Number), bleu: expect.any(Number) },
    });
    expect(progress.at(-1)).toEqual({ kind: "texts", done: 2, total: 2 });
    expect(
      await evaluateModel(
        base,
        { losses: examples, texts: prompts },
        named("rougeL", "perplexity", "bleu"),
        options,
      ),
    ).toEqual(found);
  });
});
