import { type Preset, textIn } from "./preset.ts";

/** Instructions written by a language model from 175 seeds. */
export const alpacaSet: Preset = {
  name: "alpaca",
  title: "Alpaca: 52,002 instructions",
  paper: "Taori et al., Stanford 2023",
  source: "https://huggingface.co/datasets/tatsu-lab/alpaca",
  license: "CC BY-NC 4.0",
  columns: { instruction: "text", input: "text, often empty", output: "text" },
  splits: "published as one; a job holds out 2 % for validation",
  template: "the prompt of its authors, the output is trained",
  job: {
    task: "causal-lm",
    data: { template: "alpaca", maxLength: 512, splits: { validation: 0.02 } },
    evaluation: { metrics: ["rougeL"], maxTokens: 128 },
  },
  prepare: (rows) => rows.map((row) => (textIn(row, "output").trim() === "" ? "an empty output" : row)),
};
