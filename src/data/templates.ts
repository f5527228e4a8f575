import { Template as Jinja } from "@huggingface/jinja";
import { TributaryError } from "../errors.ts";
import { type DataRecord, isRecord, kindOf } from "./record.ts";
import type { Tokenizer } from "./tokenizer.ts";

/** A record as the model sees it. */
export interface Rendered {
  readonly text: string;
  /** The trained stretches of the text, as [start, end) in UTF-16 units, in order. */
  readonly spans: readonly (readonly [number, number])[];
  /** Whether the tokenizer frames the text, or the text has its special tokens already. */
  readonly addSpecialTokens: boolean;
  /** Whether the end token follows, trained where the last span ends the text. */
  readonly endsWithEos: boolean;
}

/** How records become text. */
export interface Template {
  readonly name: string;
  /** The text and its trained spans, or the reason why the record has none. */
  render(record: DataRecord): Rendered | string;
}

/** A turn of a conversation, as chat templates read it. */
export interface Message {
  readonly role: string;
  readonly content: string;
}

/** Which field of a record plays which part of a template; each part's own name where absent. */
export type FieldNames = Readonly<Record<string, string>>;

/** Plain text, all of it trained. Part: `text`. */
export function plainText({ text = "text" }: FieldNames = {}): Template {
  return fromParts("text", [text], (record) => ["", required(record, text)]);
}

/** A completion after its prompt, with nothing between. Parts: `prompt`, `completion`. */
export function promptCompletion({
  prompt = "prompt",
  completion = "completion",
}: FieldNames = {}): Template {
  return fromParts("prompt-completion", [prompt, completion], (record) => [
    required(record, prompt),
    required(record, completion),
  ]);
}

/** `Question: ...` and `Answer: ...` on lines of their own. Parts: `question`, `answer`. */
export function questionAnswer({ question = "question", answer = "answer" }: FieldNames = {}): Template {
  return fromParts("question-answer", [question, answer], (record) => [
    `Question: ${required(record, question)}\nAnswer: `,
    required(record, answer),
  ]);
}

/**
 * The prompt of Stanford Alpaca, with and without an input. Parts: `instruction`, `input` (may be absent or empty), `output`.
 *
 * Taori et al., 2023. https://github.com/tatsu-lab/stanford_alpaca
 */
export function alpaca({
  instruction = "instruction",
  input = "input",
  output = "output",
}: FieldNames = {}): Template {
  return fromParts("alpaca", [instruction, output], (record) => {
    const task = required(record, instruction);
    const context = record[input];
    const prompt =
      typeof context === "string" && context !== ""
        ? `Below is an instruction that describes a task, paired with an input that provides further context. Write a response that appropriately completes the request.\n\n### Instruction:\n${task}\n\n### Input:\n${context}\n\n### Response:\n`
        : `Below is an instruction that describes a task. Write a response that appropriately completes the request.\n\n### Instruction:\n${task}\n\n### Response:\n`;
    return [prompt, required(record, output)];
  });
}

export interface ChatOptions {
  /** The field with the array of messages. */
  readonly messages?: string;
  /** Fields of a question and its answer, for records without messages. */
  readonly user?: string;
  readonly assistant?: string;
  /** A system message before every conversation made from `user` and `assistant`. */
  readonly system?: string;
}

/** A template that also renders conversations for generation. */
export interface ChatTemplate extends Template {
  renderMessages(messages: readonly object[], options?: { readonly addGenerationPrompt?: boolean }): string;
}

/**
 * The tokenizer's own chat template. The assistant's turns are trained, each from the end of its header to the end of the
 * turn, end token included; the borders come from rendering the conversation up to them.
 */
export function chat(
  tokenizer: Tokenizer,
  { messages = "messages", user, assistant, system }: ChatOptions = {},
): ChatTemplate {
  const render = compile(tokenizer);

  function conversation(record: DataRecord): readonly Message[] | string {
    if (user !== undefined && assistant !== undefined) {
      const [question, answer] = [record[user], record[assistant]];
      if (typeof question !== "string") return absent(user, question);
      if (typeof answer !== "string" || answer === "") return absent(assistant, answer);
      const turns = [
        { role: "user", content: question },
        { role: "assistant", content: answer },
      ];
      return system === undefined ? turns : [{ role: "system", content: system }, ...turns];
    }
    const turns = record[messages];
    if (!Array.isArray(turns)) return absent(messages, turns);
    const wrong = turns.findIndex((turn: unknown) => !isMessage(turn));
    return wrong < 0
      ? turns.filter(isMessage)
      : `message ${wrong} in "${messages}" has no role and content as text`;
  }

  return {
    name: "messages",
    renderMessages: (turns, { addGenerationPrompt = false } = {}) => render(turns, addGenerationPrompt),
    render(record) {
      const turns = conversation(record);
      if (typeof turns === "string") return turns;
      const text = render(turns, false);
      const spans: [number, number][] = [];
      for (const [i, turn] of turns.entries()) {
        if (turn.role !== "assistant") continue;
        const before = render(turns.slice(0, i), true);
        const after = render(turns.slice(0, i + 1), false);
        if (!after.startsWith(before) || !text.startsWith(after)) {
          return `the chat template renders turn ${i} otherwise within the whole conversation than at its end`;
        }
        spans.push([before.length, after.length]);
      }
      return spans.length === 0
        ? "a conversation without a turn of the assistant"
        : { text, spans, addSpecialTokens: false, endsWithEos: false };
    },
  };
}

export interface TemplateOptions {
  /** One of `templateNames`. */
  readonly name: string;
  /** Fields by part; for `messages` the options of `chat`. */
  readonly fields?: FieldNames;
  readonly tokenizer: Tokenizer;
}

const templates: Readonly<Record<string, (fields: FieldNames, tokenizer: Tokenizer) => Template>> = {
  alpaca: (fields) => alpaca(fields),
  messages: (fields, tokenizer) => chat(tokenizer, fields),
  "prompt-completion": (fields) => promptCompletion(fields),
  "question-answer": (fields) => questionAnswer(fields),
  text: (fields) => plainText(fields),
};

/** The templates that `namedTemplate` knows. */
export const templateNames: readonly string[] = Object.keys(templates);

/** A template by its name, with its parts mapped to fields. */
export function namedTemplate({ name, fields = {}, tokenizer }: TemplateOptions): Template {
  const make = Object.hasOwn(templates, name) ? templates[name] : undefined;
  if (make === undefined)
    throw new RangeError(
      `template: got ${JSON.stringify(name)}, expected one of ${templateNames.join(", ")}`,
    );
  return make(fields, tokenizer);
}

/** The name of the template that fits a record by its fields, or undefined. */
export function guessTemplate(record: DataRecord): string | undefined {
  const has = (...fields: string[]): boolean => fields.every((field) => record[field] !== undefined);
  if (has("messages")) return "messages";
  if (has("prompt", "completion")) return "prompt-completion";
  if (has("instruction", "output")) return "alpaca";
  if (has("question", "answer")) return "question-answer";
  return has("text") ? "text" : undefined;
}

/** A template whose trained text follows its prompt. `fields` must hold text; the last also some of it. */
function fromParts(
  name: string,
  fields: readonly string[],
  parts: (record: DataRecord) => readonly [prompt: string, trained: string],
): Template {
  return {
    name,
    render(record) {
      for (const [i, field] of fields.entries()) {
        const value = record[field];
        if (typeof value !== "string" || (value === "" && i === fields.length - 1))
          return absent(field, value);
      }
      const [prompt, trained] = parts(record);
      const text = prompt + trained;
      return { text, spans: [[prompt.length, text.length]], addSpecialTokens: true, endsWithEos: true };
    },
  };
}

function required(record: DataRecord, field: string): string {
  const value = record[field];
  return typeof value === "string" ? value : "";
}

/** Why a field cannot be used. */
export function absent(field: string, value: unknown): string {
  if (value === undefined) return `no field "${field}"`;
  return value === "" ? `an empty field "${field}"` : `${kindOf(value)} in the field "${field}"`;
}

function isMessage(turn: unknown): turn is Message {
  return isRecord(turn) && typeof turn.role === "string" && typeof turn.content === "string";
}

function compile(tokenizer: Tokenizer): (turns: readonly object[], addGenerationPrompt: boolean) => string {
  const source = tokenizer.chatTemplate;
  if (source === undefined) {
    throw new TributaryError(
      "no-chat-template",
      "chat: the tokenizer has no chat_template; give its folder a chat_template.jinja, or use another template for the records",
    );
  }
  const attempt = <T>(make: () => T): T => {
    try {
      return make();
    } catch (cause) {
      const message = cause instanceof Error ? cause.message : String(cause);
      throw new TributaryError(
        "chat-template",
        `chat: the chat template failed: ${message}; check the roles and their order`,
        { cause },
      );
    }
  };
  const jinja = attempt(() => new Jinja(source));
  return (turns, addGenerationPrompt) =>
    attempt(() =>
      jinja.render({
        ...tokenizer.specialTokens,
        messages: turns,
        add_generation_prompt: addGenerationPrompt,
      }),
    );
}
