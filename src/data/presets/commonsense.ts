import type { DataRecord } from "../record.ts";
import { type Preset, textIn } from "./preset.ts";

interface CommonsenseTask {
  readonly name: string;
  readonly title: string;
  readonly paper: string;
  readonly license: string;
  /** Its folder in the source. */
  readonly folder: string;
  readonly sizes: string;
}

/** One of the eight sets as LLM-Adapters (Hu et al., EMNLP 2023) writes them. https://arxiv.org/abs/2304.01933 */
function commonsense({ name, title, paper, license, folder, sizes }: CommonsenseTask): Preset {
  return {
    name,
    title,
    paper: `${paper}; instructions of Hu et al., EMNLP 2023`,
    source: `https://github.com/AGI-Edgerunners/LLM-Adapters (dataset/${folder})`,
    license: `${license}; instructions Apache-2.0`,
    columns: {
      instruction: "question, choices and the format of the answer",
      input: "empty",
      output: "the correct answer is ...",
      answer: "such as true or answer2",
    },
    splits: `${sizes}. Name the test file in data.splits.test; without it a job holds out 10 % for validation`,
    template: "Alpaca's prompt, the output is trained; the choices are those of the answer's format",
    job: {
      task: "causal-lm",
      data: { template: "alpaca", maxLength: 512, splits: { validation: 0.1 } },
      evaluation: { metrics: ["exactMatch", "acc"], maxTokens: 16 },
    },
    prepare: (rows) => rows.map(withChoices),
  };
}

/** The choices that the instruction ends in, as answers, and which of them is right. */
function withChoices(row: DataRecord): DataRecord | string {
  const format = /Answer format:\s*(\S+)\s*$/.exec(textIn(row, "instruction"))?.[1];
  const names = format?.split("/") ?? [];
  const gold = names.indexOf(textIn(row, "answer"));
  if (textIn(row, "output") === "") return "an empty output";
  if (gold < 0) return "an answer that is none of the choices of the instruction";
  return { ...row, choices: names.map((one) => `the correct answer is ${one}`), gold };
}

/** Yes-or-no questions of a search engine. */
export const boolq: Preset = commonsense({
  name: "boolq",
  title: "BoolQ: yes-or-no questions",
  paper: "Clark et al., NAACL 2019",
  license: "CC BY-SA 3.0",
  folder: "boolq",
  sizes: "9,427 train, 3,270 test",
});

/** Physical commonsense. */
export const piqa: Preset = commonsense({
  name: "piqa",
  title: "PIQA: how to do everyday things",
  paper: "Bisk et al., AAAI 2020",
  license: "AFL 3.0",
  folder: "piqa",
  sizes: "16,113 train, 1,838 test",
});

/** Social commonsense. */
export const socialIqa: Preset = commonsense({
  name: "social-iqa",
  title: "SIQA: why people do what they do",
  paper: "Sap et al., EMNLP 2019",
  license: "CC BY 4.0",
  folder: "social_i_qa",
  sizes: "33,410 train, 1,954 test",
});

/** The end of an everyday story. */
export const hellaswag: Preset = commonsense({
  name: "hellaswag",
  title: "HellaSwag: what happens next",
  paper: "Zellers et al., ACL 2019",
  license: "MIT",
  folder: "hellaswag",
  sizes: "39,905 train, 10,042 test",
});

/** Pronouns that need knowledge of the world. */
export const winogrande: Preset = commonsense({
  name: "winogrande",
  title: "WinoGrande: who is meant",
  paper: "Sakaguchi et al., AAAI 2020",
  license: "CC BY 4.0",
  folder: "winogrande",
  sizes: "40,398 train, 1,267 test",
});

/** Science questions of schools, the easier part. */
export const arcEasy: Preset = commonsense({
  name: "arc-easy",
  title: "ARC-e: science questions, easy",
  paper: "Clark et al. 2018",
  license: "CC BY-SA 4.0",
  folder: "ARC-Easy",
  sizes: "2,251 train, 2,376 test",
});

/** Science questions of schools, the harder part. */
export const arcChallenge: Preset = commonsense({
  name: "arc-challenge",
  title: "ARC-c: science questions, hard",
  paper: "Clark et al. 2018",
  license: "CC BY-SA 4.0",
  folder: "ARC-Challenge",
  sizes: "1,119 train, 1,172 test",
});

/** Questions about a small book of facts. */
export const openbookqa: Preset = commonsense({
  name: "openbookqa",
  title: "OpenBookQA: facts put to use",
  paper: "Mihaylov et al., EMNLP 2018",
  license: "Apache-2.0",
  folder: "openbookqa",
  sizes: "4,957 train, 500 test",
});
