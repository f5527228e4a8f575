import {
  causalExamples,
  classificationExamples,
  droppedReasons,
  type Example,
  imageExamples,
  type Prepared,
  packedExamples,
  regressionExamples,
} from "../data/examples.ts";
import { readRecords } from "../data/files.node.ts";
import { sharedRows } from "../data/packing.ts";
import { contiguous } from "../data/partition/contiguous.ts";
import { dirichlet } from "../data/partition/dirichlet.ts";
import { iid } from "../data/partition/iid.ts";
import { natural } from "../data/partition/natural.ts";
import type { Label, Partition } from "../data/partition/partition.ts";
import { pathological } from "../data/partition/pathological.ts";
import { exponential, linear, quantityDirichlet, square } from "../data/partition/quantity-skew.ts";
import { shards } from "../data/partition/shards.ts";
import { picture } from "../data/picture.ts";
import { presetNamed } from "../data/presets/presets.ts";
import type { DataRecord, Records } from "../data/record.ts";
import { split } from "../data/splits.ts";
import { guessTemplate, namedTemplate, type Template, templateNames } from "../data/templates.ts";
import type { Tokenizer } from "../data/tokenizer.ts";
import { TributaryError } from "../errors.ts";
import { localData } from "./hub.node.ts";
import { preparedImages, readImageProcessor } from "./images.node.ts";
import type { DataJob, Job } from "./job.ts";
import { hasClasses } from "./task.ts";

/** The training data of one client. */
export interface Silo {
  readonly name: string;
  readonly examples: readonly Example[];
}

/** Numbers of records by label, of each silo. */
export type LabelCounts = ReadonlyMap<string, Readonly<Record<string, number>>>;

/** What a job's data come to. */
export interface JobData {
  readonly silos: readonly Silo[];
  readonly validation: readonly Example[];
  readonly test: readonly Example[];
  /** Who holds which records, as lines of text. */
  readonly picture: string;
  /** Training records of each silo by label; absent where records have none. */
  readonly labels?: LabelCounts;
  /** What was left out or cut, and why. */
  readonly notes: readonly string[];
}

/** The records of a job, before they are tokenized. */
export interface JobRecords {
  readonly records: readonly DataRecord[];
  /** Training records of each silo, as indices. */
  readonly partition: Partition;
  readonly validation: readonly DataRecord[];
  readonly test: readonly DataRecord[];
  readonly picture: string;
  readonly labels?: LabelCounts;
  readonly notes: readonly string[];
}

type Part = "train" | "validation" | "test";

/** Reads the records of a job, holds some out and divides the others among silos. */
export async function readJobRecords(
  job: Pick<Job, "model" | "data" | "partition" | "task" | "seed">,
): Promise<JobRecords> {
  const read = await readDivided(job);
  return job.task === "image-classification" ? withImages(job, read) : read;
}

/** The records of image tasks with their images as the model reads them. */
async function withImages(
  { model, data }: Pick<Job, "model" | "data">,
  read: JobRecords,
): Promise<JobRecords> {
  const options = { field: data.fields.image ?? "image", processor: await readImageProcessor(model) };
  const all = (records: readonly DataRecord[]): Promise<DataRecord[]> =>
    preparedImages(records, records.keys(), options);
  return {
    ...read,
    records: await preparedImages(read.records, new Set([...read.partition.values()].flat()), options),
    validation: await all(read.validation),
    test: await all(read.test),
  };
}

async function readDivided({
  data,
  partition,
  task,
  seed,
}: Pick<Job, "data" | "partition" | "task" | "seed">): Promise<JobRecords> {
  const notes: string[] = [];
  const read = await readPaths(typeof data.path === "string" ? [data.path] : data.path, data, notes);
  const records = read.map(({ record }) => record);
  const parts = partsOf(records, data);
  const kept = records.flatMap((_, i) => (parts[i] === "train" ? [i] : []));
  const labelField = labelFieldOf(partition, data, task);
  const own =
    partition.kind === "files"
      ? byPath(read, kept)
      : reindexed(
          divide(
            kept.map((i) => records[i] ?? {}),
            partition,
            labelField,
            seed,
          ),
          kept,
        );
  const cut =
    data.splits.field === undefined ? heldOut(own, data, seed) : { train: own, validation: [], test: [] };
  const train = new Map([...cut.train].map(([name, own]) => [name, spread(own, data.perSilo)] as const));
  const pick = (part: Part): DataRecord[] => records.filter((_, i) => parts[i] === part);
  const at = (indices: readonly number[]): DataRecord[] => indices.map((i) => records[i] ?? {});
  const labels =
    labelField === undefined
      ? undefined
      : records.map((record) => classOf(labelOf(record, labelField), data.classes));
  const counts = labels === undefined ? undefined : labelCounts(train, labels);
  return {
    records,
    partition: train,
    validation: [
      ...pick("validation"),
      ...at(cut.validation),
      ...(await fileOf(data.splits.validation, data, notes)),
    ],
    test: [...pick("test"), ...at(cut.test), ...(await fileOf(data.splits.test, data, notes))],
    picture: picture(train, {
      ...(labels !== undefined && hasClasses(task) && { labels }),
      // Packed examples are blocks; what lies in the files is records.
      ...(data.pack && { counted: "records" }),
    }),
    ...(counts === undefined ? {} : { labels: counts }),
    notes,
  };
}

/** Tokenizes what `readJobRecords` read. A silo without an example is left out, with a note; none left is an error. */
export function tokenizeRecords(
  job: Pick<Job, "data" | "task">,
  read: JobRecords,
  tokenizer: Tokenizer,
): JobData {
  const { data } = job;
  const encode = encoder(job, tokenizer, read.records[0]);
  const notes = [...read.notes];
  const silos: Silo[] = [];
  const prepared: PreparedPart[] = [];
  let lastError: unknown;
  for (const [name, indices] of read.partition) {
    try {
      const made = encode(indices.map((i) => read.records[i] ?? {}));
      prepared.push({ ...made, part: "training" });
      silos.push({
        name,
        examples: data.packing ? sharedRows(made.examples, data.maxLength) : made.examples,
      });
    } catch (error) {
      if (!(error instanceof TributaryError && error.code === "no-examples")) throw error;
      notes.push(`silo ${name} is left out: ${error.message}`);
      lastError = error;
    }
  }
  if (silos.length === 0)
    throw (
      lastError ?? new TributaryError("no-examples", "data: no silo holds a record; look at the partition")
    );
  const heldOutExamples = (part: string, records: readonly DataRecord[]): readonly Example[] => {
    if (records.length === 0) return [];
    const made = encode(records);
    prepared.push({ ...made, part });
    return made.examples;
  };
  const validation = heldOutExamples("validation", read.validation);
  const test = heldOutExamples("test", read.test);
  notes.push(...notesOf(prepared, data.maxLength));
  if (data.packing) {
    const rows = silos.reduce((sum, { examples }) => sum + examples.length, 0);
    const packed = prepared.filter(({ part }) => part === "training");
    const number = packed.reduce((sum, { examples }) => sum + examples.length, 0);
    notes.push(`packing: ${number} training examples in ${rows} rows`);
  }
  return {
    silos,
    validation,
    test,
    picture: read.picture,
    ...(read.labels === undefined ? {} : { labels: read.labels }),
    notes,
  };
}

/** The records of which a run makes use: of what is held out, those that it evaluates. */
export function evaluatedRecords(
  { data, evaluation: { split, maxExamples } }: Pick<Job, "data" | "evaluation">,
  read: JobRecords,
): JobRecords {
  const held = read[split];
  // Packed blocks run across records: which of them are evaluated shows only after packing.
  const kept = data.pack ? held : spread(held, maxExamples);
  return { ...read, validation: [], test: [], [split]: kept };
}

/** Makes examples from records as the task wants them. */
export function encoder(
  { data, task }: Pick<Job, "data" | "task">,
  tokenizer: Tokenizer,
  first: DataRecord | undefined,
): (records: readonly DataRecord[]) => Prepared {
  const { maxLength, fields } = data;
  if (task === "causal-lm") {
    if (data.pack)
      return (records) =>
        packedExamples(records, { tokenizer, blockLength: maxLength, field: fields.text ?? "text" });
    const template = templateOf(data, tokenizer, first);
    return (records) => causalExamples(records, { tokenizer, template, maxLength });
  }
  if (task === "image-classification")
    return (records) =>
      imageExamples(records, {
        image: fields.image ?? "image",
        label: fields.label ?? "label",
        classes: data.classes ?? 2,
      });
  const texts = textFields(data, first);
  const options = { tokenizer, maxLength, ...texts, label: fields.label ?? "label" };
  return (records) =>
    task === "regression"
      ? regressionExamples(records, options)
      : classificationExamples(records, { ...options, classes: data.classes ?? 2 });
}

/** The template that a job names, or that fits its first record. */
export function templateOf(
  { template, fields }: DataJob,
  tokenizer: Tokenizer,
  first: DataRecord | undefined,
): Template {
  const named = Object.entries(fields).flatMap(([part, name]) =>
    name === undefined ? [] : [[part, name] as const],
  );
  if (template !== "auto")
    return namedTemplate({ name: template, fields: Object.fromEntries(named), tokenizer });
  // A record is looked at under the names of the parts, so that renamed fields count.
  const seen = { ...first, ...Object.fromEntries(named.map(([part, name]) => [part, first?.[name]])) };
  const name = guessTemplate(seen);
  if (name === undefined) {
    throw new TributaryError(
      "malformed-data",
      `data.template: no template fits a record with the fields ${Object.keys(first ?? {}).join(", ") || "(none)"}; name them in data.fields, or take one of ${templateNames.join(", ")}`,
    );
  }
  return namedTemplate({ name, fields: Object.fromEntries(named), tokenizer });
}

/** Evenly spread members of a list, `most` at most. */
export function spread<T>(items: readonly T[], most: number | undefined): readonly T[] {
  if (most === undefined || items.length <= most) return items;
  return Array.from({ length: most }, (_, i) => items[Math.floor((i * items.length) / most)] as T);
}

interface ReadRecord {
  readonly record: DataRecord;
  readonly path: string;
}

async function readPaths(
  paths: readonly string[],
  { limit, dropMalformed, preset }: DataJob,
  notes: string[],
): Promise<ReadRecord[]> {
  const read: ReadRecord[] = [];
  for (const path of paths) {
    const found = await readRecords(await localData(path), { dropMalformed });
    const { rows, dropped } = prepared(found, preset);
    for (const record of rows) read.push({ record, path });
    for (const [reason, number] of droppedReasons(dropped))
      notes.push(`${path}: ${number} left out: ${reason}`);
    if (rows.length === 0) notes.push(`${path} is left out: it holds no records`);
  }
  if (read.length === 0)
    throw new TributaryError(
      "no-examples",
      `data.path: ${paths.join(", ")} hold no records; give files with data`,
    );
  return limit === undefined ? read : read.slice(0, limit);
}

/** The rows of a file as the preset of the job makes them. */
function prepared({ rows, dropped }: Records, preset: string | undefined): Records {
  const prepare = preset === undefined ? undefined : presetNamed(preset)?.prepare;
  if (prepare === undefined) return { rows, dropped };
  const kept: DataRecord[] = [];
  const left = [...dropped];
  for (const [index, row] of prepare(rows).entries()) {
    if (typeof row === "string") left.push({ index, reason: row });
    else kept.push(row);
  }
  return { rows: kept, dropped: left };
}

async function fileOf(
  part: number | string | undefined,
  data: DataJob,
  notes: string[],
): Promise<DataRecord[]> {
  if (typeof part !== "string") return [];
  return (await readPaths([part], data, notes)).map(({ record }) => record);
}

const partNames: ReadonlyMap<string, Part> = new Map([
  ["train", "train"],
  ["validation", "validation"],
  ["valid", "validation"],
  ["val", "validation"],
  ["dev", "validation"],
  ["test", "test"],
]);

function partsOf(records: readonly DataRecord[], { splits: { field } }: DataJob): Part[] {
  return records.map((record, i) => {
    if (field === undefined) return "train";
    const part = partNames.get(String(record[field]).toLowerCase());
    if (part !== undefined) return part;
    throw new TributaryError(
      "malformed-data",
      `data.splits.field: record ${i} has ${JSON.stringify(record[field]) ?? "nothing"} in "${field}", expected train, validation or test`,
    );
  });
}

function byPath(read: readonly ReadRecord[], kept: readonly number[]): Partition {
  const silos = new Map<string, number[]>();
  for (const i of kept) {
    const path = read[i]?.path ?? "";
    const name = path.split(/[\\/]/).at(-1) ?? path;
    const key = name.replace(/(?:\.[a-z]+)(?:\.gz)?$/i, "");
    silos.set(key, [...(silos.get(key) ?? []), i]);
  }
  return silos;
}

function labelFieldOf(partition: Job["partition"], data: DataJob, task: Job["task"]): string | undefined {
  const named = "field" in partition && partition.kind !== "natural" ? partition.field : undefined;
  return named ?? (hasClasses(task) ? (data.fields.label ?? "label") : undefined);
}

function labelOf(record: DataRecord, field: string): Label {
  const value = record[field];
  return typeof value === "number" ? value : String(value);
}

/** More labels than this are no classes. */
const mostLabels = 200;

function labelCounts(partition: Partition, labels: readonly Label[]): LabelCounts | undefined {
  const found = new Set([...partition.values()].flatMap((indices) => indices.map((i) => labels[i] ?? "")));
  if (found.size > mostLabels) return undefined;
  return new Map(
    [...partition].map(([name, indices]) => {
      const counts = new Map<string, number>();
      for (const i of indices) {
        const label = String(labels[i]);
        counts.set(label, (counts.get(label) ?? 0) + 1);
      }
      return [name, Object.fromEntries(counts)];
    }),
  );
}

/** The name of a class that a record gives by its number. */
function classOf(label: Label, classes: DataJob["classes"]): Label {
  const number = Number(label);
  const numbered = typeof classes === "object" && label !== "" && Number.isInteger(number);
  return numbered ? (classes[number] ?? label) : label;
}

function divide(
  records: readonly DataRecord[],
  partition: Job["partition"],
  labelField: string | undefined,
  seed: number,
): Partition {
  const labels = (): Label[] => records.map((record) => labelOf(record, labelField ?? "label"));
  switch (partition.kind) {
    case "natural":
      return natural(records, partition);
    case "files":
      return new Map();
    case "iid":
      return iid(records.length, { ...partition, seed });
    case "contiguous":
      return contiguous(records.length, partition);
    case "linear":
      return linear(records.length, { ...partition, seed });
    case "square":
      return square(records.length, { ...partition, seed });
    case "exponential":
      return exponential(records.length, { ...partition, seed });
    case "quantity-skew":
      return quantityDirichlet(records.length, { ...partition, seed });
    case "dirichlet":
      return dirichlet(labels(), { ...partition, seed });
    case "shards":
      return shards(labels(), { ...partition, seed });
    case "pathological":
      return pathological(labels(), { ...partition, seed });
  }
}

function reindexed(partition: Partition, indices: readonly number[]): Partition {
  return new Map([...partition].map(([name, own]) => [name, own.map((i) => indices[i] ?? 0)]));
}

function heldOut(
  partition: Partition,
  { splits }: DataJob,
  seed: number,
): { train: Partition; validation: number[]; test: number[] } {
  const share = (part: number | string | undefined): number => (typeof part === "number" ? part : 0);
  const train = new Map<string, number[]>();
  const validation: number[] = [];
  const test: number[] = [];
  for (const [name, indices] of partition) {
    const at = (positions: readonly number[]): number[] => positions.map((p) => indices[p] ?? 0);
    const parts = split(indices.length, {
      validation: share(splits.validation),
      test: share(splits.test),
      seed,
      client: name,
    });
    train.set(name, at(parts.train));
    validation.push(...at(parts.validation));
    test.push(...at(parts.test));
  }
  return { train, validation, test };
}

function textFields({ fields }: DataJob, first: DataRecord = {}): { text: string; textPair?: string } {
  const known: readonly (readonly [string, string?])[] = [
    ["text"],
    ["sentence"],
    ["sentence1", "sentence2"],
    ["premise", "hypothesis"],
    ["question", "sentence"],
  ];
  const [text, pair] = known.find((names) =>
    names.every((name) => name !== undefined && first[name] !== undefined),
  ) ?? ["text"];
  if (fields.text !== undefined)
    return { text: fields.text, ...(fields.textPair === undefined ? {} : { textPair: fields.textPair }) };
  return {
    text,
    ...((fields.textPair ?? pair) === undefined ? {} : { textPair: fields.textPair ?? pair ?? "" }),
  };
}

type PreparedPart = Prepared & { readonly part: string };

/** What tokenizing left out or cut, a line for each reason. */
function notesOf(prepared: readonly PreparedPart[], maxLength: number): string[] {
  const parts = [...new Set(prepared.map(({ part }) => part))];
  const sum = (part: string, value: (one: Prepared) => number): number =>
    prepared.reduce((total, one) => total + (one.part === part ? value(one) : 0), 0);
  const counted = (numberIn: (part: string) => number | string): string =>
    parts.flatMap((part) => (numberIn(part) === 0 ? [] : [`${numberIn(part)} ${part}`])).join(", ");
  const reasons = droppedReasons(prepared.flatMap(({ dropped }) => dropped));
  const cut = counted((part) => {
    const truncated = sum(part, (one) => one.truncated);
    return truncated === 0 ? 0 : `${truncated} of ${sum(part, ({ examples }) => examples.length)}`;
  });
  return [
    ...[...reasons.keys()].map((reason) => {
      const numberIn = (part: string): number =>
        sum(part, ({ dropped }) => dropped.filter((one) => one.reason === reason).length);
      return `left out: ${counted(numberIn)}: ${reason}`;
    }),
    ...(cut === "" ? [] : [`cut to ${maxLength} tokens: ${cut} examples`]),
  ];
}
