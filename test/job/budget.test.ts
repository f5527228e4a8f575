import { describe, expect, it } from "vitest";
import type { Round } from "../../src/federation/round.ts";
import { isSpent, shareSpent, spentBy } from "../../src/job/budget.ts";
import { checkJob } from "../../src/job/check.ts";
import { jobDifferences, resultKeys } from "../../src/job/differences.ts";
import type { BudgetJob, Job } from "../../src/job/job.ts";
import { rawJob } from "./job.ts";

/** A round of two clients that made 3 and 4 steps, 100 bytes down and 50 up. */
const round: Round = {
  number: 1,
  clients: ["a", "b"],
  accepted: [3, 4].map((steps) => ({
    client: `c${steps}`,
    numExamples: 1,
    norm: 1,
    loss: 1,
    metrics: { steps },
    bytes: 25,
  })),
  rejected: [],
  failedAttempts: 0,
  loss: 1,
  metrics: {},
  measurements: {},
  evaluation: {},
  bytesDown: 100,
  bytesUp: 50,
  bytesFull: 0,
  seconds: 1,
  phases: { train: 1, aggregate: 0, commit: 0 },
  state: "",
  model: null,
  baseVersion: "",
};

describe("what rounds use of a budget", () => {
  it("are their bytes both ways, and the steps of all clients", () => {
    expect(spentBy([round, round])).toEqual({ bytes: 300, steps: 14 });
  });

  it.each<[budget: BudgetJob | undefined, rounds: number]>([
    [{ bytes: 150 }, 1],
    [{ bytes: 151 }, 2],
    [{ steps: 14 }, 2],
    [{ steps: 15 }, 3],
  ])("%o is used up after %d", (budget, rounds) => {
    const made = Array.from({ length: rounds }, () => round);
    expect(isSpent(budget, made)).toBe(true);
    expect(isSpent(budget, made.slice(1))).toBe(false);
  });

  it("is nothing where there is no budget", () => {
    expect(shareSpent(undefined, [round])).toBe(0);
    expect(isSpent(undefined, [round])).toBe(false);
  });
});

describe("the budget of a job", () => {
  it.each([{}, { bytes: 1, steps: 1 }])("is one of bytes and steps, not %o", (budget) => {
    expect(() => checkJob(rawJob({ budget }))).toThrow("expected one of bytes and steps");
  });

  it("may grow or go while a run goes on, and may not shrink or come", () => {
    const job = (budget?: BudgetJob): Job => checkJob(rawJob(budget === undefined ? {} : { budget }));
    const keys = (before: Job, now: Job): string[] => jobDifferences(before, now).map(({ path }) => path);
    expect(keys(job({ bytes: 5 }), job({ bytes: 6 }))).toEqual([]);
    expect(keys(job({ bytes: 5 }), job())).toEqual([]);
    expect(keys(job({ bytes: 5 }), job({ bytes: 4 }))).toEqual(["budget.bytes"]);
    expect(keys(job(), job({ steps: 4 }))).toEqual(["budget.steps"]);
    expect(resultKeys(job({ steps: 4 }))).toEqual(resultKeys(job()));
  });
});
