import { type Example, ignored } from "../../data/examples.ts";
import type { Preset } from "../../data/presets/preset.ts";
import { presetNamed, presets } from "../../data/presets/presets.ts";
import type { Tokenizer } from "../../data/tokenizer.ts";
import { readJobRecords, type Silo, tokenizeRecords } from "../../job/data.ts";
import { loadJob } from "../../job/load.node.ts";
import { readModelTokenizer } from "../../job/model.node.ts";
import { nearest } from "../../job/nearest.ts";
import { count } from "../../job/units.ts";
import type { Command } from "../command.ts";
import { usageError } from "../exit.ts";
import { numberFlag } from "../number-flag.ts";
import { hanging } from "../progress/format.ts";
import type { Style } from "../progress/style.ts";
import { table } from "../progress/table.ts";
import { lines } from "../terminal.ts";

/** `tributary data show` and `tributary data presets`. */
export const data: Command = {
  name: "data",
  summary: "show samples as the model sees them, what is trained of them, and who holds what; list data sets",
  usage: "show JOB | presets [NAME] [flags]",
  arguments: [1, 2],
  takesJob: true,
  flags: [{ name: "samples", value: "N", description: "samples shown, from as many silos (default: 2)" }],
  examples: [
    ["tributary data show job.yaml", "two samples and the partition"],
    [
      "tributary data show job.yaml --samples 5 --partition dirichlet --clients 8 --partition.alpha 0.3",
      "another split",
    ],
    ["tributary data presets", "the public data sets that a job can name"],
    ["tributary data presets gsm8k", "source, licence, columns, splits, template and metrics of one"],
  ],
  async run({ positionals: [verb, path], flags, job: typed }, { terminal, json }) {
    if (verb === "presets") return terminal.out(presetText(path, json));
    if (verb !== "show")
      throw usageError(`data: got ${verb}, expected show or presets; did you mean tributary data show JOB?`);
    const samples = numberFlag(flags, "samples", { fallback: 2, minimum: 0, whole: true });
    const { job } = await loadJob({
      flags: typed,
      cwd: terminal.cwd,
      ...(path === undefined ? {} : { path }),
    });
    const tokenizer = await readModelTokenizer(job.model);
    const found = tokenizeRecords(job, await readJobRecords(job), tokenizer);
    const shown = found.silos.slice(0, samples).flatMap((silo) => sampleOf(silo, tokenizer));
    if (json) {
      const silos = found.silos.map(({ name, examples }) => ({
        name,
        examples: examples.length,
        tokens: tokensOf(examples),
      }));
      const { validation, test, notes } = found;
      return terminal.out(
        `${JSON.stringify({ silos, validation: validation.length, test: test.length, notes, samples: shown })}\n`,
      );
    }
    const all = found.silos.flatMap(({ examples }) => examples);
    const trained = all.reduce((sum, example) => sum + trainedIn(example), 0);
    terminal.out(
      lines([
        found.picture,
        "",
        `${count(all.length)} training examples with ${count(tokensOf(all))} tokens, ${count(trained)} ${all[0]?.labels === undefined ? "labels" : "of them trained"}; held out: ${count(found.validation.length)} validation, ${count(found.test.length)} test`,
        ...found.notes.map((note) => `note: ${note}`),
        ...shown.flatMap((sample) => ["", ...sampleLines(sample, terminal.style)]),
      ]),
    );
  },
};

function presetText(name: string | undefined, json: boolean): string {
  if (name === undefined) {
    if (json) return `${JSON.stringify({ presets: presets.map(({ prepare: _, ...facts }) => facts) })}\n`;
    const columns = [{ title: "preset" }, { title: "task" }, { title: "what it is" }, { title: "metrics" }];
    const rows = presets.map(({ name, title, job }) => [
      name,
      job.task,
      title.replace(/^[^:]*: /, ""),
      (job.evaluation.metrics ?? []).join(", "),
    ]);
    const next =
      "tributary data presets NAME shows one; a job names it in data.preset, and its files in data.path.";
    return lines([...table(columns, rows), "", next]);
  }
  const preset = presetNamed(name);
  if (preset === undefined) {
    const meant = nearest(
      name,
      presets.map((one) => one.name),
    );
    throw usageError(
      `data: got the preset ${name}, expected one that tributary data presets lists${meant === undefined ? "" : `; did you mean ${meant}?`}`,
    );
  }
  const { prepare: _, ...facts } = preset;
  return json ? `${JSON.stringify(facts)}\n` : lines(presetLines(preset));
}

function presetLines({
  name,
  title,
  paper,
  source,
  license,
  columns,
  splits,
  template,
  job,
}: Preset): string[] {
  const { splits: held, ...data } = job.data;
  const facts: readonly (readonly [string, string])[] = [
    ["paper", paper],
    ["source", source],
    ["license", license],
    [
      "columns",
      Object.entries(columns)
        .map(([column, holds]) => `${column} (${holds})`)
        .join("; "),
    ],
    ["splits", splits],
    ["template", template],
    ["metrics", (job.evaluation.metrics ?? []).join(", ")],
    [
      "in a job",
      `task: ${job.task}; data: ${JSON.stringify({ preset: name, path: "FILE", ...data, splits: held })}`,
    ],
  ];
  return [
    `${name}: ${title}`,
    "",
    ...facts.flatMap(([key, text]) =>
      hanging(key.padEnd(10), text, 100).map((line, i) => (i === 0 ? key.padEnd(10) + line : line)),
    ),
  ];
}

interface Sample {
  readonly silo: string;
  readonly tokens: number;
  readonly trained: number;
  readonly label?: number;
  /** Stretches of the text, trained or not. */
  readonly spans: readonly { readonly text: string; readonly trained: boolean }[];
}

function sampleOf({ name, examples: [example] }: Silo, tokenizer: Tokenizer): Sample[] {
  if (example === undefined) return [];
  return [
    {
      silo: name,
      tokens: example.inputIds.length,
      trained: trainedIn(example),
      ...(example.label === undefined ? {} : { label: example.label }),
      spans: spansOf(example, tokenizer),
    },
  ];
}

/** The text of an example in stretches that are trained or not, special tokens included. */
function spansOf({ inputIds, labels }: Example, tokenizer: Tokenizer): Sample["spans"] {
  const spans: { ids: number[]; trained: boolean }[] = [];
  for (const [i, id] of inputIds.entries()) {
    // The first token has nothing before it that could predict it.
    const trained = i > 0 && labels !== undefined && labels[i] !== ignored;
    const last = spans.at(-1);
    if (last?.trained === trained) last.ids.push(id);
    else spans.push({ ids: [id], trained });
  }
  return spans.map(({ ids, trained }) => ({
    text: tokenizer.decode(ids, { skipSpecialTokens: false }),
    trained,
  }));
}

function sampleLines({ silo, tokens, trained, label, spans }: Sample, style: Style): string[] {
  const what = label === undefined ? `${trained} trained, between « and »` : `label ${label}`;
  const text = spans
    .map((span) => (span.trained ? `«${style.good(span.text)}»` : style.quiet(span.text)))
    .join("");
  return [
    style.heading(`${silo}: ${tokens} tokens, ${what}`),
    ...text.split("\n").map((line) => `  ${line}`),
  ];
}

function trainedIn({ labels, label }: Example): number {
  if (labels === undefined) return label === undefined ? 0 : 1;
  return labels.subarray(1).reduce((sum, id) => sum + (id === ignored ? 0 : 1), 0);
}

function tokensOf(examples: readonly Example[]): number {
  return examples.reduce((sum, { inputIds }) => sum + inputIds.length, 0);
}
