import { fileURLToPath } from "node:url";
import { describe, expect, it } from "vitest";
import { readTokenizer } from "../../src/data/files.node.ts";
import {
  alpaca,
  chat,
  guessTemplate,
  namedTemplate,
  plainText,
  promptCompletion,
  questionAnswer,
  type Template,
  templateNames,
} from "../../src/data/templates.ts";
import type { Tokenizer } from "../../src/data/tokenizer.ts";
import { shared } from "../shared.ts";

const presidents = await readTokenizer(
  fileURLToPath(new URL("../../examples/presidents/base", import.meta.url)),
);

/** The text with its trained spans in angle brackets. */
function marked(template: Template, record: Record<string, unknown>): string {
  const rendered = template.render(record);
  if (typeof rendered === "string") return `no: ${rendered}`;
  let text = "";
  let at = 0;
  for (const [start, end] of rendered.spans) {
    text += `${rendered.text.slice(at, start)}⟨${rendered.text.slice(start, end)}⟩`;
    at = end;
  }
  return text + rendered.text.slice(at);
}

const withTemplate = (chatTemplate: string): Tokenizer => ({
  ...presidents,
  chatTemplate,
  specialTokens: { eos_token: "</s>" },
});

const turns = [
  { role: "system", content: "Be terse." },
  { role: "user", content: "Why?" },
  { role: "assistant", content: "Because." },
  { role: "user", content: "And?" },
  { role: "assistant", content: "Therefore." },
];

const plainChat = withTemplate(
  "{% for m in messages %}[{{ m.role }}]{{ m.content }}{{ eos_token }}{% endfor %}{% if add_generation_prompt %}[assistant]{% endif %}",
);

describe("instruction templates", () => {
  it("train what follows the prompt, and nothing else", () => {
    expect(marked(plainText(), { text: "all of it" })).toBe("⟨all of it⟩");
    expect(marked(promptCompletion(), { prompt: "2+2=", completion: "4" })).toBe("2+2=⟨4⟩");
    expect(marked(questionAnswer(), { question: "Q?", answer: "A." })).toBe("Question: Q?\nAnswer: ⟨A.⟩");
    expect(marked(alpaca(), { instruction: "Add.", input: "1 and 2", output: "3" })).toMatch(
      /### Instruction:\nAdd\.\n\n### Input:\n1 and 2\n\n### Response:\n⟨3⟩$/,
    );
  });

  it("Alpaca without an input has no input section", () => {
    for (const input of ["", undefined]) {
      expect(marked(alpaca(), { instruction: "Add.", input, output: "3" })).not.toContain("Input");
    }
  });

  it("take their parts from the fields that a mapping names", () => {
    const dolly = alpaca({ input: "context", output: "response" });
    expect(marked(dolly, { instruction: "Sum up.", context: "Long.", response: "Short." })).toMatch(
      /Long\.\n\n### Response:\n⟨Short\.⟩$/,
    );
  });

  it("say which field is missing, empty or of the wrong kind", () => {
    expect(marked(questionAnswer(), { question: "Q?" })).toBe('no: no field "answer"');
    expect(marked(promptCompletion(), { prompt: "", completion: "" })).toBe(
      'no: an empty field "completion"',
    );
    expect(marked(plainText(), { text: 3 })).toBe('no: a number in the field "text"');
  });

  it("are found by name and guessed from fields", () => {
    for (const name of templateNames.filter((n) => n !== "messages")) {
      expect(namedTemplate({ name, tokenizer: presidents }).name).toBe(name);
    }
    expect(() => namedTemplate({ name: "constructor", tokenizer: presidents })).toThrow(
      /got "constructor", expected one of alpaca, messages/,
    );
    expect(guessTemplate({ question: "", answer: "" })).toBe("question-answer");
    expect(guessTemplate({ messages: [] })).toBe("messages");
    expect(guessTemplate({ instruction: "", output: "" })).toBe("alpaca");
    expect(guessTemplate({ other: 1 })).toBeUndefined();
  });
});

describe("chat", () => {
  it("trains every turn of the assistant with its end token, and no header", () => {
    expect(marked(chat(plainChat), { messages: turns })).toBe(
      "[system]Be terse.</s>[user]Why?</s>[assistant]⟨Because.</s>⟩[user]And?</s>[assistant]⟨Therefore.</s>⟩",
    );
  });

  it("makes conversations from a question and its answer", () => {
    const template = chat(plainChat, { user: "question", assistant: "answer", system: "S" });
    expect(marked(template, { question: "Q", answer: "A" })).toBe(
      "[system]S</s>[user]Q</s>[assistant]⟨A</s>⟩",
    );
    expect(marked(template, { question: "Q" })).toBe('no: no field "answer"');
  });

  it("finds borders also where a turn repeats the text of another", () => {
    const repeated = [
      { role: "user", content: "[assistant]Yes" },
      { role: "assistant", content: "Yes" },
    ];
    expect(marked(chat(plainChat), { messages: repeated })).toBe(
      "[user][assistant]Yes</s>[assistant]⟨Yes</s>⟩",
    );
  });

  it("gives a reason for a template that rewrites earlier turns, and for records without turns", () => {
    const lastOnly = withTemplate(
      "{% for m in messages %}{% if loop.last %}!{% endif %}{{ m.content }}{% endfor %}",
    );
    expect(marked(chat(lastOnly), { messages: turns })).toMatch(
      /^no: the chat template renders turn 2 otherwise/,
    );
    expect(marked(chat(plainChat), { messages: turns.slice(0, 2) })).toBe(
      "no: a conversation without a turn of the assistant",
    );
    expect(marked(chat(plainChat), { messages: [{ role: "user" }] })).toBe(
      'no: message 0 in "messages" has no role and content as text',
    );
    expect(marked(chat(plainChat), {})).toBe('no: no field "messages"');
  });

  it("refuses a tokenizer without a template, and reports what the template itself refuses", () => {
    expect(() => chat(presidents)).toThrow(expect.objectContaining({ code: "no-chat-template" }));
    const strict = withTemplate("{{ raise_exception('roles must alternate') }}");
    expect(() => chat(strict).renderMessages(turns)).toThrow(
      /the chat template failed: .*roles must alternate/,
    );
  });

  it.skipIf(shared === undefined)(
    "SmolLM2's template is fit for training (skipped where shared/ is absent)",
    async () => {
      const smol = await readTokenizer(`${shared}/models/SmolLM2-135M-Instruct`);
      expect(marked(chat(smol), { messages: turns })).toBe(
        "<|im_start|>system\nBe terse.<|im_end|>\n<|im_start|>user\nWhy?<|im_end|>\n<|im_start|>assistant\n⟨Because.<|im_end|>\n⟩<|im_start|>user\nAnd?<|im_end|>\n<|im_start|>assistant\n⟨Therefore.<|im_end|>\n⟩",
      );
    },
  );
});
