import type { Preset } from "./preset.ts";

/** Medical questions and answers of the National Institutes of Health. */
export const medquad: Preset = {
  name: "medquad",
  title: "MedQuAD: medical questions and answers",
  paper: "Ben Abacha and Demner-Fushman, BMC Bioinformatics 2019",
  source: "https://github.com/abachaa/MedQuAD",
  license: "CC BY 4.0",
  columns: {
    question: "text",
    answer: "text; three of its twelve sources have none, for reasons of copyright",
    source: "institute that wrote it",
    question_type: "such as symptoms or treatment",
  },
  splits: "published as one; a job holds out 5 % each for validation and test",
  template: "Question: ... Answer: ..., the answer is trained",
  job: {
    task: "causal-lm",
    data: { template: "question-answer", maxLength: 512, splits: { validation: 0.05, test: 0.05 } },
    evaluation: { metrics: ["rougeL", "bleu"], maxTokens: 128 },
  },
};
