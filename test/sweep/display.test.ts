import { describe, expect, it } from "vitest";
import { textStyle } from "../../src/cli/progress/style.ts";
import { openSweepDisplay } from "../../src/cli/progress/sweep.ts";
import type { SweepEvent } from "../../src/sweep/run-sweep.node.ts";
import { planOf, rowWith } from "./results.ts";

const plan = planOf({ methods: [{ label: "A", slug: "a" }], seeds: [1, 2, 3] });
const [first, second] = plan.runs;
if (first === undefined || second === undefined) throw new RangeError("the plan has three runs");

const control = "\u001b[";

/** What a person sees at the end: the text with its erased lines taken away. */
function screenOf(text: string): string[] {
  const lines: string[] = [];
  for (const part of text.split("\n")) {
    const [, up = "", ...rest] = part.split(control);
    if (up !== "") lines.splice(lines.length - Number.parseInt(up, 10));
    lines.push(up === "" ? part : rest.join("").replace(/^0J/, ""));
  }
  return lines.slice(0, -1);
}

function shown(events: readonly SweepEvent[], live: boolean): string[] {
  let [text, seconds] = ["", 0];
  const display = openSweepDisplay({
    write: (piece) => {
      text += piece;
    },
    columns: 80,
    live,
    style: textStyle(false),
    program: "tributary",
    cwd: "/",
    now: () => seconds,
  });
  for (const event of events) {
    seconds += 4;
    display.show(event);
  }
  return screenOf(text);
}

const opened = (round: number): SweepEvent => ({
  type: "run-event",
  run: first,
  event: { type: "round-opened", round, attempt: 1, cohort: ["a", "b"], target: 2, quorum: 1 },
});
const events: readonly SweepEvent[] = [
  { type: "sweep-started", name: "letters", folder: "/runs/letters", runs: 3, finished: 1, workers: 2 },
  { type: "run-started", run: first },
  opened(1),
  {
    type: "run-event",
    run: first,
    event: { type: "update-accepted", round: 1, client: "a", loss: 2, numExamples: 3, bytes: 10 },
  },
];

describe("the display of a sweep", () => {
  it("draws the runs under way as a table in place, with the time that is left", () => {
    expect(shown(events, true)).toEqual([
      "letters: 3 runs, 1 of them finished before, 2 side by side",
      "  results in runs/letters",
      // Half of one of three rounds in 16 s; the rest of two runs is eleven times as much.
      "letters: 1 of 3 runs done, 16 s, 2:56 min left",
      "run              round                     loss",
      "A, even, seed 1  1 of 3  ███░░░░░░░░░░░░░  -",
    ]);
  });

  it("leaves a line for every run that ended, the reason where it failed", () => {
    const failed = rowWith("A", 2, 0, { failure: "no memory\nat all" });
    const ended = [
      ...events,
      { type: "run-ended", run: first, row: rowWith("A", 1, 0.75) },
      { type: "run-ended", run: second, row: failed },
    ] satisfies SweepEvent[];
    expect(shown(ended, true).slice(2)).toEqual([
      "2/3  A, even, seed 1: accuracy 50.0 % -> 75.0 % in 11 s",
      "3/3  A, even, seed 2 failed: no memory",
    ]);
  });

  it("writes plain lines where nothing can be drawn again", () => {
    expect(shown(events, false)).toEqual([
      "letters: 3 runs, 1 of them finished before, 2 side by side",
      "  results in runs/letters",
      "A, even, seed 1 started",
    ]);
  });
});
