import {
  type BleuOptions,
  bleuCounts,
  bleuOf,
  bleuSignature,
  referenceCount,
  sentenceBleu,
  type TextCase,
} from "./bleu.ts";
import { expectedCalibrationError } from "./calibration.ts";
import { type ChrfOptions, chrfCounts, chrfOf, chrfSignature } from "./chrf.ts";
import { cider } from "./cider.ts";
import { accuracy, binaryF1, f1 } from "./classification.ts";
import { cocoBleuCounts, cocoBleuOf } from "./coco-bleu.ts";
import { cocoRougeL } from "./coco-rouge.ts";
import { meanSquaredError, pearson, spearman } from "./correlation.ts";
import { type Gsm8kExtraction, gsm8kMatch } from "./gsm8k.ts";
import { matthewsCorrelation } from "./matthews.ts";
import { meteor, type Synonyms } from "./meteor.ts";
import {
  type ClassCase,
  type LossCase,
  type Measurement,
  type Metric,
  type MetricNeeds,
  type MetricOf,
  meanOf,
  measured,
} from "./metric.ts";
import { type ChoiceNormalization, chosen } from "./multiple-choice.ts";
import { nistCounts, nistOf } from "./nist.ts";
import { nltkBleu, type TokenCase } from "./nltk-bleu.ts";
import { perplexity, type TextLoss, type TextPerplexity, textLoss, textPerplexity } from "./perplexity.ts";
import { bestRouge, type RougeKind } from "./rouge.ts";
import { tokenize13a } from "./tokenize-13a.ts";

/** Metrics by their names. Those of texts are 0 to 1, but for sacrebleu's BLEU and chrF, NIST and CIDEr. */
export const metrics: readonly Metric[] = [
  ...(["rouge1", "rouge2", "rougeL", "rougeLsum"] as const).flatMap((kind) => [
    rougeMetric(kind, kind, false),
    rougeMetric(`${kind}Stem`, kind, true),
  ]),
  bleuMetric("bleu", "BLEU-4", {}),
  bleuMetric("bleu1", "BLEU-1", { order: 1 }),
  bleuMetric("bleu2", "BLEU-2", { order: 2 }),
  bleuMetric("bleu3", "BLEU-3", { order: 3 }),
  bleuMetric("bleuLower", "BLEU-4 of lower-case text", { lowercase: true }),
  ...[1, 2, 3, 4].map(nltkBleuMetric),
  ...[1, 2, 3, 4].map(cocoBleuMetric),
  chrfMetric("chrf", "chrF2", {}),
  chrfMetric("chrf++", "chrF2++", { wordOrder: 2 }),
  {
    name: "nist",
    needs: "texts",
    title: "NIST-5",
    better: "higher",
    decimals: 3,
    signature: (cases) => `nltk|n:5|tok:13a|case:mixed|nrefs:${referenceCount(cases)}`,
    measure: (cases) => measured(nistCounts(cases.map(tokens13a)), nistOf),
  },
  meteorMetric("meteor", "METEOR of equal words and stems"),
  ciderMetric("cider", "CIDEr-D, as COCO and E2E print it", true),
  ciderMetric("ciderPlain", "CIDEr of the paper, without clipping", false),
  {
    name: "rougeLCoco",
    needs: "texts",
    title: "ROUGE-L of the COCO caption evaluation",
    better: "higher",
    signature: (cases) => `pycocoevalcap|beta:1.2|tok:13a|case:lc|nrefs:${referenceCount(cases)}`,
    ...meanOfEach((one: TextCase) => cocoRougeL(cocoCase(one))),
  },
  {
    name: "exactMatch",
    needs: "texts",
    title: "answers equal to a reference",
    better: "higher",
    signature: () => "trimmed|case:mixed",
    ...meanOfEach(exactMatch),
  },
  gsm8kMetric("gsm8k", "strict"),
  gsm8kMetric("gsm8kFlexible", "flexible"),
  classMetric("accuracy", "right classes", "all classes", accuracy),
  classMetric("f1", "F1 of class 1", "positive:1|zero_division:0", binaryF1),
  classMetric("f1Macro", "mean F1 of the classes", "macro|zero_division:0", (p, a) => f1(p, a, "macro")),
  classMetric("f1Micro", "F1 of all counts", "micro|zero_division:0", (p, a) => f1(p, a, "micro")),
  classMetric("f1Weighted", "F1 weighted by examples", "weighted|zero_division:0", (p, a) =>
    f1(p, a, "weighted"),
  ),
  classMetric("mcc", "Matthews' correlation", "multiclass|constant:0", matthewsCorrelation),
  {
    name: "ece",
    needs: "classes",
    title: "expected calibration error",
    better: "lower",
    signature: () => "bins:15|equal width",
    measure: (cases) =>
      measured(
        cases.map(({ predicted, actual, confidence }) => ({ confidence, correct: predicted === actual })),
        (some) => expectedCalibrationError(some),
      ),
  },
  {
    name: "crossEntropy",
    needs: "classes",
    title: "mean loss of an example",
    better: "lower",
    signature: () => "nats",
    ...meanOfEach(({ loss }: ClassCase) => loss),
  },
  numberMetric("pearson", "Pearson's correlation", "higher", pearson),
  numberMetric("spearman", "Spearman's correlation", "higher", spearman),
  numberMetric("mse", "mean squared error", "lower", meanSquaredError),
  choiceMetric("acc", "right choices by log-likelihood", "none"),
  choiceMetric("accNorm", "right choices by log-likelihood a character", "characters"),
  choiceMetric("accBytes", "right choices by log-likelihood a byte", "bytes"),
  lossMetric("loss", "mean loss of a token", (some) => Math.log(perplexity(some))),
  { ...lossMetric("perplexity", "perplexity of a token", perplexity), decimals: 2 },
  { ...textLossMetric("wordPerplexity", "perplexity of a word"), decimals: 2 },
  textLossMetric("bytePerplexity", "perplexity of a byte"),
  textLossMetric("bitsPerByte", "bits of loss a byte"),
  {
    name: "tokenAccuracy",
    needs: "losses",
    title: "tokens that are the likeliest in their place",
    better: "higher",
    signature: () => "labelled tokens",
    measure: (cases) =>
      measured(cases, (some) => total(some, ({ correct }) => correct) / total(some, ({ tokens }) => tokens)),
    single: ({ correct, tokens }) => correct / tokens,
  },
];

/** The name of the METEOR that needs WordNet's database. */
export const meteorWordNetName = "meteorWordNet";

/** The names of all metrics that need one of these kinds of data. */
export function metricNames(needs: readonly MetricNeeds[]): string[] {
  const names = metrics.filter((metric) => needs.includes(metric.needs)).map(({ name }) => name);
  return needs.includes("texts") ? [...names, meteorWordNetName] : names;
}

/** A metric by its name; undefined for no metric. */
export function metricNamed(name: string): Metric | undefined {
  return metrics.find((metric) => metric.name === name);
}

/** Digits after the point with which a metric is written. */
export function decimalsOf(name: string): number {
  return metricNamed(name)?.decimals ?? 4;
}

/** The best of some values of a metric; undefined where there are none. */
export function bestOf(name: string, values: readonly number[]): number | undefined {
  if (values.length === 0) return undefined;
  return metricNamed(name)?.better === "lower" ? Math.min(...values) : Math.max(...values);
}

/** METEOR with a third stage of synonyms, where they are given. */
export function meteorMetric(name: string, title: string, synonyms?: Synonyms): MetricOf<"texts"> {
  const score = (one: TextCase): number => {
    const { prediction, references } = tokens13a(one);
    return meteor(prediction, references, synonyms === undefined ? {} : { synonyms });
  };
  const stages = synonyms === undefined ? "exact+stem" : "exact+stem+wordnet3.1 (no exception lists)";
  return {
    name,
    needs: "texts",
    title,
    better: "higher",
    signature: (cases) => `nltk|${stages}|alpha:0.9|beta:3|gamma:0.5|tok:13a|nrefs:${referenceCount(cases)}`,
    ...meanOfEach(score),
  };
}

const total = <T>(items: readonly T[], value: (item: T) => number): number =>
  items.reduce((sum, item) => sum + value(item), 0);

function tokens13a({ prediction, references }: TextCase): TokenCase {
  return { prediction: tokenize13a(prediction), references: references.map(tokenize13a) };
}

/** Texts as the COCO evaluation takes them: tokens of 13a in lower case, with blanks between. */
function cocoCase({ prediction, references }: TextCase): TextCase {
  const text = (one: string): string => tokenize13a(one).join(" ").toLowerCase();
  return { prediction: text(prediction), references: references.map(text) };
}

function exactMatch({ prediction, references }: TextCase): number {
  return Number(references.some((reference) => reference.trim() === prediction.trim()));
}

/** The measuring of a metric that is the mean of what each example has by itself. */
function meanOfEach<Case>(single: (one: Case) => number): {
  measure(cases: readonly Case[]): Measurement;
  single(one: Case): number;
} {
  return { measure: (cases) => meanOf(cases.map(single)), single };
}

function rougeMetric(name: string, kind: RougeKind, stem: boolean): MetricOf<"texts"> {
  const score = ({ prediction, references }: TextCase): number =>
    bestRouge(kind, prediction, references, { stem }).fmeasure;
  return {
    name,
    needs: "texts",
    title: `ROUGE-${kind.slice("rouge".length)}${stem ? " of stems" : ""}`,
    better: "higher",
    signature: (cases) =>
      `rouge-score:0.1.2|F1|stemmer:${stem ? "porter" : "no"}|best reference|nrefs:${referenceCount(cases)}`,
    ...meanOfEach(score),
  };
}

function bleuMetric(name: string, title: string, options: BleuOptions): MetricOf<"texts"> {
  return {
    name,
    needs: "texts",
    title: `${title} of sacrebleu, 0 to 100`,
    better: "higher",
    decimals: 2,
    signature: (cases) => bleuSignature(cases, options),
    measure: (cases) =>
      measured(
        cases.map((one) => bleuCounts(one, options)),
        (some) => bleuOf(some, options).score,
      ),
    single: (one) => sentenceBleu(one, options).score,
  };
}

function nltkBleuMetric(order: number): MetricOf<"texts"> {
  return {
    name: `bleuNltk${order}`,
    needs: "texts",
    title: `BLEU-${order} of nltk, 0 to 1`,
    better: "higher",
    signature: (cases) => `nltk|n:${order}|smooth:none|tok:13a|case:mixed|nrefs:${referenceCount(cases)}`,
    measure: (cases) => measured(cases.map(tokens13a), (some) => nltkBleu(some, { order })),
  };
}

function cocoBleuMetric(order: number): MetricOf<"texts"> {
  return {
    name: `bleuCoco${order}`,
    needs: "texts",
    title: `BLEU-${order} of the COCO caption evaluation, 0 to 1`,
    better: "higher",
    signature: (cases) => `pycocoevalcap|n:${order}|tok:13a|case:lc|nrefs:${referenceCount(cases)}`,
    measure: (cases) =>
      measured(
        cases.map((one) => cocoBleuCounts(cocoCase(one))),
        (some) => cocoBleuOf(some)[order - 1],
      ),
  };
}

function chrfMetric(name: string, title: string, options: ChrfOptions): MetricOf<"texts"> {
  return {
    name,
    needs: "texts",
    title: `${title} of sacrebleu, 0 to 100`,
    better: "higher",
    decimals: 2,
    signature: (cases) => chrfSignature(cases, options),
    measure: (cases) =>
      measured(
        cases.map((one) => chrfCounts(one, options)),
        chrfOf,
      ),
    single: (one) => chrfOf([chrfCounts(one, options)]),
  };
}

/** Its weights come from all the references, so one example has no CIDEr by itself. */
function ciderMetric(name: string, title: string, clipped: boolean): MetricOf<"texts"> {
  return {
    name,
    needs: "texts",
    title,
    better: "higher",
    decimals: 3,
    signature: (cases) =>
      `pycocoevalcap|n:4|${clipped ? "sigma:6" : "unclipped"}|times:10|tok:13a|case:lc|nrefs:${referenceCount(cases)}`,
    measure: (cases) => meanOf(cider(cases.map(cocoCase), { clipped })),
  };
}

function gsm8kMetric(name: string, extraction: Gsm8kExtraction): MetricOf<"texts"> {
  const match = ({ prediction, references }: TextCase): number =>
    Number(references.some((reference) => gsm8kMatch(prediction, reference, extraction)));
  return {
    name,
    needs: "texts",
    title: `right numbers of GSM8K, ${extraction} extraction`,
    better: "higher",
    signature: () => `lm-evaluation-harness:0.4|gsm8k:3|filter:${extraction}`,
    ...meanOfEach(match),
  };
}

type Lists = (predicted: readonly number[], actual: readonly number[]) => number | undefined;

function paired<Case extends { readonly predicted: number; readonly actual: number }>(
  cases: readonly Case[],
  value: Lists,
): Measurement {
  return measured(cases, (some) =>
    value(
      some.map(({ predicted }) => predicted),
      some.map(({ actual }) => actual),
    ),
  );
}

function classMetric(name: string, title: string, signature: string, value: Lists): MetricOf<"classes"> {
  return {
    name,
    needs: "classes",
    title,
    better: "higher",
    signature: () => `scikit-learn|${signature}`,
    measure: (cases) => paired(cases, value),
  };
}

function numberMetric(
  name: string,
  title: string,
  better: "higher" | "lower",
  value: Lists,
): MetricOf<"numbers"> {
  return {
    name,
    needs: "numbers",
    title,
    better,
    signature: () => (name === "mse" ? "mean" : "undefined where a side is constant"),
    measure: (cases) => paired(cases, value),
  };
}

function choiceMetric(name: string, title: string, normalization: ChoiceNormalization): MetricOf<"choices"> {
  return {
    name,
    needs: "choices",
    title,
    better: "higher",
    signature: () => `lm-evaluation-harness:0.4|normalized by:${normalization}`,
    ...meanOfEach((one) => Number(chosen(one, normalization) === one.gold)),
  };
}

function lossMetric(
  name: string,
  title: string,
  value: (some: readonly LossCase[]) => number,
): MetricOf<"losses"> {
  return {
    name,
    needs: "losses",
    title,
    better: "lower",
    signature: () => "labelled tokens of all texts",
    measure: (cases) => measured(cases, value),
    single: (one) => value([one]),
  };
}

function textLossMetric(name: keyof TextPerplexity, title: string): MetricOf<"losses"> {
  const parts = (cases: readonly LossCase[]): TextLoss[] => cases.map(({ text, sum }) => textLoss(text, sum));
  return {
    ...lossMetric(name, title, (some) => textPerplexity(parts(some))[name]),
    measure: (cases) => measured(parts(cases), (some) => textPerplexity(some)[name]),
  };
}
