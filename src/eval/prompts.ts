import { ignored, labelSpans } from "../data/examples.ts";
import type { DataRecord } from "../data/record.ts";
import type { Rendered, Template } from "../data/templates.ts";
import type { Tokenizer } from "../data/tokenizer.ts";

/** A text to be continued, and what is expected there. */
export interface Prompt {
  readonly text: string;
  readonly inputIds: readonly number[];
  readonly references: readonly string[];
}

/** Records with one prompt, as their template renders them up to the end of the answer. */
export interface PromptGroup {
  /** What stands before the answer. */
  readonly text: string;
  readonly records: readonly Rendered[];
}

/**
 * The prompt of a record is what stands before its last trained span; that span is the answer. Records with the same prompt
 * come together. A record whose span begins the text, or that has none, has no prompt.
 */
export function promptGroups(
  records: readonly DataRecord[],
  template: Template,
): { readonly groups: readonly PromptGroup[]; readonly dropped: number } {
  const found = new Map<string, Rendered[]>();
  let dropped = 0;
  for (const record of records) {
    const rendered = template.render(record);
    const span = typeof rendered === "string" ? undefined : rendered.spans.at(-1);
    if (typeof rendered === "string" || span === undefined || span[0] === 0) {
      dropped++;
      continue;
    }
    const prompt = rendered.text.slice(0, span[0]);
    const cut = { ...rendered, text: rendered.text.slice(0, span[1]), spans: [span], endsWithEos: false };
    const known = found.get(prompt);
    if (known === undefined) found.set(prompt, [cut]);
    else known.push(cut);
  }
  return { groups: [...found].map(([text, own]) => ({ text, records: own })), dropped };
}

export interface PromptOptions {
  readonly tokenizer: Tokenizer;
  /** Most tokens of a prompt; what is before them is cut off. */
  readonly maxLength: number;
}

/**
 * Prompts as tokens: those that training has before the answer. A record with the same answer as another of its group adds
 * no reference. `truncated` counts the prompts that lost tokens to `maxLength`.
 */
export function encodedPrompts(
  groups: readonly PromptGroup[],
  { tokenizer, maxLength }: PromptOptions,
): { readonly prompts: readonly Prompt[]; readonly truncated: number } {
  let truncated = 0;
  const prompts = groups.flatMap(({ text, records }): Prompt[] => {
    const [first] = records;
    const references = new Set(records.map((record) => answerOf(record, tokenizer)).filter(Boolean));
    if (first === undefined || references.size === 0) return [];
    const { inputIds, labels } = labelSpans(first, tokenizer);
    const start = labels.findIndex((label) => label !== ignored);
    if (start <= 0) return [];
    if (start > maxLength) truncated++;
    return [
      {
        text,
        inputIds: [...inputIds.subarray(Math.max(0, start - maxLength), start)],
        references: [...references],
      },
    ];
  });
  return { prompts, truncated };
}

/** The answer as a person reads it: special tokens that a chat template puts after it are none of it. */
function answerOf({ text, spans, addSpecialTokens }: Rendered, tokenizer: Tokenizer): string {
  const answer = text.slice(spans[0]?.[0]);
  if (addSpecialTokens) return answer.trim();
  return tokenizer.decode(tokenizer.encode(answer, { addSpecialTokens: false }).ids).trim();
}
