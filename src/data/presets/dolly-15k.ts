import { type Preset, textIn } from "./preset.ts";

/** Instructions written by the staff of Databricks. */
export const dolly15k: Preset = {
  name: "dolly-15k",
  title: "Dolly 15k: instructions of eight kinds",
  paper: "Conover et al., Databricks 2023",
  source: "https://huggingface.co/datasets/databricks/databricks-dolly-15k",
  license: "CC BY-SA 3.0",
  columns: {
    instruction: "text",
    context: "text, often empty",
    response: "text",
    category: "one of eight kinds, by which silos can be made",
  },
  splits: "published as one; a job holds out 5 % for validation",
  template: "Alpaca's prompt with context as input, the response is trained",
  job: {
    task: "causal-lm",
    data: {
      template: "alpaca",
      fields: { input: "context", output: "response" },
      maxLength: 512,
      splits: { validation: 0.05 },
    },
    evaluation: { metrics: ["rougeL"], maxTokens: 128 },
  },
  prepare: (rows) => rows.map((row) => (textIn(row, "response").trim() === "" ? "an empty response" : row)),
};
