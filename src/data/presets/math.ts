import { type Preset, textIn } from "./preset.ts";

/** Problems of competitions with their solutions. */
export const math: Preset = {
  name: "math",
  title: "MATH: problems of competitions",
  paper: "Hendrycks et al., NeurIPS 2021",
  source: "https://github.com/hendrycks/math",
  license: "MIT",
  columns: {
    problem: "LaTeX",
    solution: "LaTeX, the result in \\boxed{}",
    level: "Level 1 to 5",
    type: "one of seven subjects, by which silos can be made",
  },
  splits:
    "7,500 train, 5,000 test. Name the test file in data.splits.test; without it a job holds out 5 % for validation",
  template: "Problem: ... Solution: ..., as Lewkowycz et al. (2022) write it; the solution is trained",
  job: {
    task: "causal-lm",
    data: { template: "prompt-completion", maxLength: 512, splits: { validation: 0.05 } },
    evaluation: { metrics: ["perplexity", "tokenAccuracy"] },
  },
  prepare: (rows) =>
    rows.map((row) => {
      const [problem, solution] = [textIn(row, "problem"), textIn(row, "solution")];
      if (problem === "" || solution === "") return "no problem or no solution";
      return { ...row, prompt: `Problem:\n${problem}\n\nSolution:`, completion: ` ${solution}` };
    }),
};
