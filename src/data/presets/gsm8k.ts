import type { Preset } from "./preset.ts";

/** School problems with their way of solution. */
export const gsm8k: Preset = {
  name: "gsm8k",
  title: "GSM8K: school problems in words",
  paper: "Cobbe et al. 2021",
  source: "https://huggingface.co/datasets/openai/gsm8k",
  license: "MIT",
  columns: { question: "text", answer: "steps, then #### and the number" },
  splits:
    "7,473 train, 1,319 test. Name the test file in data.splits.test; without it a job holds out 5 % for validation",
  template: "Question: ... Answer: ..., the steps and the number are trained",
  job: {
    task: "causal-lm",
    data: { template: "question-answer", maxLength: 512, splits: { validation: 0.05 } },
    evaluation: { metrics: ["gsm8k", "gsm8kFlexible"], maxTokens: 256, stop: ["Question:"] },
  },
};
