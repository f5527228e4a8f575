import { type Example, ignored } from "../../data/examples.ts";
import { readTokenizer } from "../../data/files.node.ts";
import type { Tokenizer } from "../../data/tokenizer.ts";
import { readJobRecords, type Silo, tokenizeRecords } from "../../job/data.ts";
import { loadJob } from "../../job/load.node.ts";
import { count } from "../../job/units.ts";
import type { Command } from "../command.ts";
import { usageError } from "../exit.ts";
import { numberFlag } from "../number-flag.ts";
import type { Style } from "../progress/style.ts";
import { lines } from "../terminal.ts";

/** `tributary data show`. */
export const data: Command = {
  name: "data",
  summary: "show samples as the model sees them, what is trained of them, and who holds what",
  usage: "show JOB [flags]",
  arguments: [1, 2],
  takesJob: true,
  flags: [{ name: "samples", value: "N", description: "samples shown, from as many silos (default: 2)" }],
  examples: [
    ["tributary data show job.yaml", "two samples and the partition"],
    [
      "tributary data show job.yaml --samples 5 --partition dirichlet --clients 8 --partition.alpha 0.3",
      "another split",
    ],
  ],
  async run({ positionals: [verb, path], flags, job: typed }, { terminal, json }) {
    if (verb !== "show")
      throw usageError(`data: got ${verb}, expected show; did you mean tributary data show JOB?`);
    const samples = numberFlag(flags, "samples", { fallback: 2, minimum: 0, whole: true });
    const { job } = await loadJob({
      flags: typed,
      cwd: terminal.cwd,
      ...(path === undefined ? {} : { path }),
    });
    const tokenizer = await readTokenizer(job.model);
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
