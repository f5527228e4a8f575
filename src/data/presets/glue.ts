import type { DataRecord } from "../record.ts";
import type { Preset } from "./preset.ts";

interface GlueTask {
  readonly name: string;
  readonly title: string;
  readonly paper: string;
  readonly license: string;
  /** Fields of the texts. */
  readonly texts: readonly [string, string?];
  /** Names of the classes from 0; absent for a number. */
  readonly classes?: readonly string[];
  readonly metrics: readonly string[];
  readonly sizes: string;
}

function glue({
  name,
  title,
  paper,
  license,
  texts: [text, textPair],
  classes,
  metrics,
  sizes,
}: GlueTask): Preset {
  return {
    name,
    title,
    paper: `${paper}; in GLUE, Wang et al., ICLR 2019`,
    source: `https://huggingface.co/datasets/nyu-mll/glue (${name === "sst-2" ? "sst2" : name === "sts-b" ? "stsb" : name})`,
    license,
    columns: {
      [text]: "text",
      ...(textPair === undefined ? {} : { [textPair]: "text" }),
      label:
        classes === undefined ? "a number from 0 to 5" : classes.map((one, i) => `${i} ${one}`).join(", "),
    },
    splits: `${sizes}; the labels of the test part are not public. Name the validation file in data.splits.validation; without it a job holds out 10 %`,
    template: textPair === undefined ? `one text, ${text}` : `a pair of texts, ${text} and ${textPair}`,
    job: {
      task: classes === undefined ? "regression" : "sequence-classification",
      data: {
        fields: { text, ...(textPair === undefined ? {} : { textPair }) },
        ...(classes === undefined ? {} : { classes }),
        maxLength: 128,
        splits: { validation: 0.1 },
      },
      evaluation: { metrics },
    },
    prepare: (rows) => rows.map((row) => (isHidden(row, classes) ? "a label that is not public" : row)),
  };
}

/** The test parts have -1 in place of labels. */
function isHidden({ label }: DataRecord, classes: readonly string[] | undefined): boolean {
  return Number(label) === -1 && (classes === undefined || !classes.includes(String(label)));
}

const entailment = ["entailment", "not_entailment"];

/** Corpus of Linguistic Acceptability. */
export const cola: Preset = glue({
  name: "cola",
  title: "CoLA: is the sentence grammatical",
  paper: "Warstadt et al., TACL 2019",
  license: "published sentences of linguistics, for research",
  texts: ["sentence"],
  classes: ["unacceptable", "acceptable"],
  metrics: ["mcc", "accuracy"],
  sizes: "8,551 train, 1,043 validation",
});

/** Recognizing Textual Entailment. */
export const rte: Preset = glue({
  name: "rte",
  title: "RTE: does the first sentence entail the second",
  paper: "Dagan et al. 2006, Bar Haim et al. 2006, Giampiccolo et al. 2007, Bentivogli et al. 2009",
  license: "for research",
  texts: ["sentence1", "sentence2"],
  classes: entailment,
  metrics: ["accuracy"],
  sizes: "2,490 train, 277 validation",
});

/** Stanford Sentiment Treebank, two classes. */
export const sst2: Preset = glue({
  name: "sst-2",
  title: "SST-2: is the review positive",
  paper: "Socher et al., EMNLP 2013",
  license: "for research",
  texts: ["sentence"],
  classes: ["negative", "positive"],
  metrics: ["accuracy"],
  sizes: "67,349 train, 872 validation",
});

/** Microsoft Research Paraphrase Corpus. */
export const mrpc: Preset = glue({
  name: "mrpc",
  title: "MRPC: do the sentences say the same",
  paper: "Dolan and Brockett, IWP 2005",
  license: "Microsoft Research, for research",
  texts: ["sentence1", "sentence2"],
  classes: ["not_equivalent", "equivalent"],
  metrics: ["accuracy", "f1"],
  sizes: "3,668 train, 408 validation",
});

/** Semantic Textual Similarity Benchmark. */
export const stsb: Preset = glue({
  name: "sts-b",
  title: "STS-B: how alike are the sentences",
  paper: "Cer et al., SemEval 2017",
  license: "CC BY-SA 4.0 and those of its sources, for research",
  texts: ["sentence1", "sentence2"],
  metrics: ["pearson", "spearman"],
  sizes: "5,749 train, 1,500 validation",
});

/** Question Answering as Natural Language Inference. */
export const qnli: Preset = glue({
  name: "qnli",
  title: "QNLI: does the sentence answer the question",
  paper: "Rajpurkar et al., EMNLP 2016",
  license: "CC BY-SA 4.0",
  texts: ["question", "sentence"],
  classes: entailment,
  metrics: ["accuracy"],
  sizes: "104,743 train, 5,463 validation",
});
