import { TributaryError } from "../errors.ts";
import { type ImageInput, isImageInput } from "./images/processor.ts";
import type { DataRecord, Dropped } from "./record.ts";
import { absent, type Rendered, type Template } from "./templates.ts";
import type { Tokenizer } from "./tokenizer.ts";

/** The label of a position that is not trained. */
export const ignored = -100;

/** One sample as token ids. It has `labels` for language modelling, or a `label` for classification and regression. */
export interface Example {
  readonly inputIds: Int32Array;
  /** Per position the id to be predicted for it (not shifted), or `ignored`. */
  readonly labels?: Int32Array;
  /** The class from 0, or the target of a regression. */
  readonly label?: number;
  readonly tokenTypeIds?: Int32Array;
  /** Per position the number, from 1, of the sequence that it belongs to, where several share the row. */
  readonly segments?: Int32Array;
  /** In place of tokens, of which there are none then. */
  readonly image?: ImageInput;
}

/** Examples, and what became of the records that gave none. */
export interface Prepared {
  readonly examples: readonly Example[];
  /** For each example the index of its record; of packed blocks, of the record at their start. */
  readonly sources: readonly number[];
  readonly dropped: readonly Dropped[];
  /** How many examples lost tokens to `maxLength`. */
  readonly truncated: number;
}

export interface CausalOptions {
  readonly tokenizer: Tokenizer;
  /** How a record becomes text, and which of its spans are trained. */
  readonly template: Template;
  /** Most tokens of an example; what is beyond is cut off on the right. */
  readonly maxLength: number;
}

/**
 * Makes next-token examples from records; only the template's trained spans have labels. A record without its fields or
 * without a trained token within `maxLength` is dropped; none left is an error with the code `no-examples`.
 */
export function causalExamples(
  records: readonly DataRecord[],
  { tokenizer, template, maxLength }: CausalOptions,
): Prepared {
  return prepare("causalExamples", records, (record) => {
    const rendered = template.render(record);
    if (typeof rendered === "string") return rendered;
    const { inputIds, labels } = labelSpans(rendered, tokenizer);
    const cut = { inputIds: inputIds.slice(0, maxLength), labels: labels.slice(0, maxLength) };
    // The first token has nothing before it, so its label trains nothing.
    if (cut.labels.subarray(1).every((label) => label === ignored)) {
      return labels.subarray(1).every((label) => label === ignored)
        ? "nothing to train: no text in the trained fields"
        : `nothing to train within ${maxLength} tokens: the prompt fills them; raise maxLength`;
    }
    return { ...cut, truncated: inputIds.length > maxLength };
  });
}

/**
 * Token ids of a rendered record, and labels on its trained spans. A span begins where the encoding of the text before it
 * stops being a prefix of the whole encoding, and ends likewise: a token across a border belongs to what follows it.
 */
export function labelSpans(
  { text, spans, addSpecialTokens, endsWithEos }: Rendered,
  tokenizer: Tokenizer,
): Required<Pick<Example, "inputIds" | "labels">> {
  const encode = (part: string): readonly number[] => tokenizer.encode(part, { addSpecialTokens }).ids;
  const whole = encode(text);
  // What the tokenizer adds after any text would hide the common prefix.
  const tokensBefore = (offset: number): number => {
    if (offset === 0) return commonPrefix(encode(""), whole);
    return offset === text.length ? whole.length : commonPrefix(encode(text.slice(0, offset)), whole);
  };
  const eos =
    endsWithEos && tokenizer.eosId !== undefined && whole.at(-1) !== tokenizer.eosId ? [tokenizer.eosId] : [];
  const inputIds = Int32Array.from([...whole, ...eos]);
  const labels = new Int32Array(inputIds.length).fill(ignored);
  for (const [start, end] of spans) {
    const [from, to] = [tokensBefore(start), tokensBefore(end)];
    labels.set(inputIds.subarray(from, to), from);
    if (end === text.length && end > start) labels.set(eos, whole.length);
  }
  return { inputIds, labels };
}

export interface PackedOptions {
  readonly tokenizer: Tokenizer;
  /** Tokens of a block. */
  readonly blockLength: number;
  /** The field that holds the text. */
  readonly field?: string;
}

/**
 * Joins texts, each followed by the end token, into one stream and cuts it into blocks of equal length, all of whose tokens
 * are trained. The tokens of the last, shorter block are listed as dropped.
 */
export function packedExamples(
  records: readonly DataRecord[],
  { tokenizer, blockLength, field = "text" }: PackedOptions,
): Prepared {
  if (!(Number.isInteger(blockLength) && blockLength >= 2)) {
    throw new RangeError(`packedExamples: blockLength ${blockLength}, expected an integer of at least 2`);
  }
  const { eosId } = tokenizer;
  const dropped: Dropped[] = [];
  const examples: Example[] = [];
  const sources: number[] = [];
  let open: number[] = [];
  let first = 0;
  for (const [index, record] of records.entries()) {
    const text = record[field];
    if (typeof text !== "string" || text === "") {
      dropped.push({ index, reason: absent(field, text) });
      continue;
    }
    const ids = [...tokenizer.encode(text).ids, ...(eosId === undefined ? [] : [eosId])];
    for (let start = 0; start < ids.length; ) {
      if (open.length === 0) first = index;
      const taken = ids.slice(start, start + blockLength - open.length);
      open.push(...taken);
      start += taken.length;
      if (open.length < blockLength) continue;
      const inputIds = Int32Array.from(open);
      examples.push({ inputIds, labels: inputIds });
      sources.push(first);
      open = [];
    }
  }
  if (open.length > 0)
    dropped.push({
      index: first,
      reason: `the last tokens do not fill a block of ${blockLength}`,
    });
  if (examples.length === 0) throw noExamples("packedExamples", records.length, dropped);
  return { examples, sources, dropped, truncated: 0 };
}

export interface ClassificationOptions {
  readonly tokenizer: Tokenizer;
  readonly maxLength: number;
  /** The field of the text, and of a second text for models of pairs. */
  readonly text: string;
  readonly textPair?: string;
  /** The field of the label. */
  readonly label?: string;
  /** The names of the classes, for labels that are names; or their number, for labels from 0. */
  readonly classes: readonly string[] | number;
}

/** Makes examples with a class. A label outside the classes is an error with the code `label-range`. */
export function classificationExamples(
  records: readonly DataRecord[],
  options: ClassificationOptions,
): Prepared {
  const { classes, label = "label" } = options;
  const labelOf = classLabel("classificationExamples", classes, label);
  return textExamples("classificationExamples", records, { ...options, label }, labelOf);
}

export interface ImageOptions {
  /** The field of the image, as `processImage` gives it. */
  readonly image: string;
  /** The field of the label. */
  readonly label?: string;
  readonly classes: readonly string[] | number;
}

/** Makes examples of images with a class. A label outside the classes is an error with the code `label-range`. */
export function imageExamples(
  records: readonly DataRecord[],
  { image, label = "label", classes }: ImageOptions,
): Prepared {
  const labelOf = classLabel("imageExamples", classes, label);
  return prepare("imageExamples", records, (record, index) => {
    const input = record[image];
    if (!isImageInput(input)) return `no image in the field "${image}"`;
    if (record[label] === undefined || record[label] === null) return absent(label, record[label]);
    return {
      inputIds: new Int32Array(0),
      image: input,
      label: labelOf(record[label], index),
      truncated: false,
    };
  });
}

/** The number of a class from a label that is its number or its name. */
function classLabel(
  who: string,
  classes: readonly string[] | number,
  label: string,
): (value: unknown, index: number) => number {
  const count = typeof classes === "number" ? classes : classes.length;
  return (value, index) => {
    const named = typeof classes === "number" ? -1 : classes.indexOf(String(value));
    const found =
      named >= 0 ? named : typeof value === "string" && value.trim() !== "" ? Number(value) : value;
    if (typeof found === "number" && Number.isInteger(found) && found >= 0 && found < count) return found;
    const expected =
      typeof classes === "number"
        ? `an integer from 0 to ${count - 1}`
        : `one of ${classes.join(", ")} or an integer from 0 to ${count - 1}`;
    throw new TributaryError(
      "label-range",
      `${who}: record ${index} has the label ${quote(value)} in "${label}", expected ${expected}; correct the data or the number of classes`,
    );
  };
}

/** What regression takes: as classification, without classes. */
export type RegressionOptions = Omit<ClassificationOptions, "classes">;

/** Makes examples with a number to be predicted. A label that is no finite number is an error with the code `label-range`. */
export function regressionExamples(records: readonly DataRecord[], options: RegressionOptions): Prepared {
  const { label = "label" } = options;
  return textExamples("regressionExamples", records, { ...options, label }, (value, index) => {
    const target = typeof value === "string" && value.trim() !== "" ? Number(value) : value;
    if (typeof target === "number" && Number.isFinite(target)) return target;
    throw new TributaryError(
      "label-range",
      `regressionExamples: record ${index} has the label ${quote(value)} in "${label}", expected a finite number; correct the data`,
    );
  });
}

type Made = (Example & { readonly truncated: boolean }) | string;

function textExamples(
  who: string,
  records: readonly DataRecord[],
  { tokenizer, maxLength, text, textPair, label = "label" }: RegressionOptions,
  labelOf: (value: unknown, index: number) => number,
): Prepared {
  return prepare(who, records, (record, index) => {
    const first = record[text];
    const second = textPair === undefined ? undefined : record[textPair];
    if (typeof first !== "string") return absent(text, first);
    if (textPair !== undefined && typeof second !== "string") return absent(textPair, second);
    if (record[label] === undefined || record[label] === null) return absent(label, record[label]);
    const { ids, typeIds, truncated } = tokenizer.encode(first, {
      maxLength,
      ...(typeof second === "string" ? { textPair: second } : {}),
    });
    if (ids.length === 0) return `a text without tokens in "${text}"`;
    return {
      inputIds: Int32Array.from(ids),
      tokenTypeIds: Int32Array.from(typeIds),
      label: labelOf(record[label], index),
      truncated,
    };
  });
}

function prepare(
  who: string,
  records: readonly DataRecord[],
  make: (record: DataRecord, index: number) => Made,
): Prepared {
  const examples: Example[] = [];
  const sources: number[] = [];
  const dropped: Dropped[] = [];
  let truncated = 0;
  for (const [index, record] of records.entries()) {
    const made = make(record, index);
    if (typeof made === "string") {
      dropped.push({ index, reason: made });
      continue;
    }
    const { truncated: cut, ...example } = made;
    examples.push(example);
    sources.push(index);
    if (cut) truncated++;
  }
  if (examples.length === 0) throw noExamples(who, records.length, dropped);
  return { examples, sources, dropped, truncated };
}

/** The reasons of dropped samples with their counts, most frequent first. */
export function droppedReasons(dropped: readonly Dropped[]): Map<string, number> {
  const counts = new Map<string, number>();
  for (const { reason } of dropped) counts.set(reason, (counts.get(reason) ?? 0) + 1);
  return new Map([...counts].sort(([, a], [, b]) => b - a));
}

function noExamples(who: string, count: number, dropped: readonly Dropped[]): TributaryError {
  const [first] = droppedReasons(dropped);
  const why = first === undefined ? "there are no records" : `${first[1]} of ${count} records: ${first[0]}`;
  return new TributaryError(
    "no-examples",
    `${who}: no example is left to train on (${why}); check the fields and the template`,
  );
}

function quote(value: unknown): string {
  const text = JSON.stringify(value) ?? String(value);
  return text.length > 40 ? `${text.slice(0, 40)}...` : text;
}

function commonPrefix(a: readonly number[], b: readonly number[]): number {
  let n = 0;
  while (n < a.length && n < b.length && a[n] === b[n]) n++;
  return n;
}
