import { describe, expect, it } from "vitest";
import { openDisplay } from "../../src/cli/progress/display.ts";
import { footerLines } from "../../src/cli/progress/footer.ts";
import { duration, percent, size, wrapped } from "../../src/cli/progress/format.ts";
import { headerLines } from "../../src/cli/progress/header.ts";
import { phaseLine } from "../../src/cli/progress/rounds.ts";
import { noProgress, progressed } from "../../src/cli/progress/state.ts";
import { textStyle } from "../../src/cli/progress/style.ts";
import type { Round } from "../../src/federation/round.ts";
import type { JobEvent, RunHeader, RunSummary } from "../../src/job/events.ts";
import { bytes, count } from "../../src/job/units.ts";

const plain = textStyle(false);

const header: RunHeader = {
  name: "letters",
  folder: "runs/letters",
  model: { path: "base", family: "llama", parameters: 2_750_000 },
  task: "causal-lm",
  adapter: "LoRA of rank 4, alpha 8, on q_proj",
  trainable: 12_800,
  strategy: { name: "FedIT", paper: "a paper" },
  silos: [
    { name: "north", examples: 1200 },
    { name: "south", examples: 300 },
  ],
  picture: "client  examples\nnorth       1200\nsouth        300",
  perRound: 2,
  rounds: 2,
  heldOut: { split: "test", examples: 90 },
  device: "cpu",
  workers: 2,
  threads: 1,
  why: "2 cores, one a client",
  notes: ["3 left out: no text"],
};

const round: Round = {
  number: 1,
  clients: ["north", "south"],
  accepted: ["north", "south"].map((client) => ({
    client,
    numExamples: 10,
    norm: 1,
    loss: 4.2,
    metrics: {},
    bytes: 80_000,
  })),
  rejected: [],
  failedAttempts: 0,
  loss: 4.2,
  metrics: {},
  measurements: {},
  evaluation: {},
  bytesDown: 160_000,
  bytesUp: 160_000,
  bytesFull: 44_000_000,
  seconds: 2.34,
  phases: { train: 2, aggregate: 0.2, commit: 0.14 },
  state: "0".repeat(64),
  model: "1".repeat(64),
  baseVersion: "base",
};

const summary: RunSummary = {
  folder: "runs/letters",
  task: "causal-lm",
  adapter: "runs/letters/adapter",
  rounds: 2,
  before: { loss: 4.7, perplexity: 109.95 },
  after: { loss: 4.1, perplexity: 60.34 },
  bytesDown: 320_000,
  bytesUp: 320_000,
  bytesFull: 88_000_000,
  seconds: 4.9,
  peakBytes: 250e6,
  samples: { prompt: "Once", before: " there was", after: " upon a time" },
};

const events: readonly JobEvent[] = [
  { type: "started", header },
  { type: "evaluated", round: 0, metrics: { loss: 4.7, perplexity: 109.95 }, seconds: 1 },
  { type: "round-opened", round: 1, attempt: 1, cohort: ["north", "south"], target: 2, quorum: 1 },
  { type: "client-started", round: 1, client: "north" },
  { type: "client-progress", round: 1, client: "north", progress: { step: 1, steps: 4 } },
  { type: "update-accepted", round: 1, client: "north", loss: 4.25, numExamples: 10, bytes: 80_000 },
  {
    type: "client-dropped",
    round: 1,
    client: "south",
    code: "loss-not-finite",
    reason: "the training loss is NaN",
  },
  { type: "round-closed", round: 1, accepted: ["north"], why: "all-answered" },
  { type: "round-committed", round },
  { type: "evaluated", round: 1, metrics: { loss: 4.3, perplexity: 73.7 }, seconds: 1 },
];

/** What a display writes for some events; the clock goes on by a second with each. */
function shown(list: readonly JobEvent[], live: boolean): string {
  let text = "";
  let now = 0;
  const display = openDisplay({
    write: (piece) => (text += piece),
    columns: 90,
    live,
    style: plain,
    program: "tributary",
    now: () => now,
  });
  for (const event of list) {
    now++;
    display.show(event);
  }
  return text;
}

describe("the header", () => {
  it("says what runs on what, for whom and why", () => {
    expect(headerLines(header, { style: plain })).toEqual([
      "letters: 2 rounds, causal-lm",
      "  model       base (llama, 2.75 M parameters)",
      "  trains      LoRA of rank 4, alpha 8, on q_proj: 12,800 parameters, 0.47 % of the model",
      "  strategy    FedIT (a paper)",
      "  silos       2 with 1,500 training examples",
      "  held out    90 examples (test)",
      "  runs on     cpu: 2 workers, 1 thread each (2 cores, one a client)",
      "  run folder  runs/letters",
      "",
      "  client  examples",
      "  north       1200",
      "  south        300",
      "  note  3 left out: no text",
      "",
    ]);
  });
});

describe("the header of a run below the working folder", () => {
  it("shows short paths, and breaks long lines under their beginning", () => {
    const long = { ...header, folder: "/home/ann/runs/letters", notes: ["a note that is too long for it"] };
    const lines = headerLines(long, { style: plain, width: 30, cwd: "/home/ann" });
    expect(lines).toContain("  run folder  runs/letters");
    expect(lines.slice(-3)).toEqual(["  note  a note that is too", "        long for it", ""]);
    expect(headerLines(long, { style: plain, cwd: "/home/ben" })).toContain(
      "  run folder  /home/ann/runs/letters",
    );
  });
});

describe("the rounds", () => {
  it("are plain lines where there is no terminal", () => {
    const lines = shown(events.slice(1), false).split("\n");
    expect(lines).toEqual([
      "round  clients    loss  held-out  perplexity     down       up  in full    time",
      "start                     4.7000      109.95",
      "       north in, loss 4.2500 (1 of 2, 3.0 s)",
      "       south dropped: loss-not-finite: the training loss is NaN",
      "  1/1  2/2      4.2000    4.3000       73.70   160 kB   160 kB  44.0 MB   2.3 s",
      "",
    ]);
  });

  it("are drawn in place on a terminal: a bar, who works, and the time left", () => {
    const text = shown(events.slice(0, 5), true);
    expect(text).toContain(
      "  1/2  ██░░░░░░░░░░░░░░ 0/2 clients, 2.0 s, 14 s left, run 30 s\n       north 25 %\n",
    );
    expect(text).toContain("\u001b[2A\u001b[0J");
  });

  it("are preceded on a terminal by what goes on before them, and by nothing elsewhere", () => {
    const written = (live: boolean): string => {
      let text = "";
      const write = (piece: string): void => {
        text += piece;
      };
      const screen = { write, columns: 80, live, style: plain, program: "tributary", now: () => 1 };
      openDisplay(screen).wait("reading the model and the data");
      return text;
    };
    expect(written(true)).toBe("       reading the model and the data, 0.0 s\n");
    expect(written(false)).toBe("");
  });

  it("never hold control characters where there is no terminal", () => {
    expect(shown(events, false)).not.toContain("\u001b");
  });

  it("go on where an interrupted run stopped, and say so", () => {
    const kept = { ...round, evaluation: { loss: 4.3, perplexity: 73.7 } };
    const text = shown(
      [
        { type: "started", header },
        {
          type: "resumed",
          rounds: [kept],
          evaluation: { loss: 4.7, perplexity: 109.95 },
          openRound: 2,
          kept: 1,
        },
      ],
      false,
    );
    expect(text).toContain("continuing run letters at round 2 of 2, 1 of 2 updates already in\n");
    expect(text).toContain("start                     4.7000      109.95\n");
    expect(text).toContain("  1/2  2/2      4.2000    4.3000       73.70");
  });
});

describe("a model that is fetched", () => {
  const fetching = (done: number): JobEvent => ({
    type: "fetching",
    name: "hf://org/name@main",
    done,
    total: 4e8,
  });

  it("shows how much is there and what is left at this speed", () => {
    const begun = progressed(noProgress, fetching(1e8), 10);
    const later = progressed(begun, fetching(2e8), 30);
    expect(phaseLine(later, 30, 100).trim()).toMatch(
      /^\S+ +200 MB of 400 MB, 40 s left, fetching hf:\/\/org\/name@main$/,
    );
    expect(phaseLine(begun, 10, 100)).not.toContain("left");
  });
});

describe("the footer", () => {
  it("tells what was gained, what travelled, and what to type next", () => {
    expect(footerLines(summary, { style: plain, program: "tributary" })).toEqual([
      "",
      "2 rounds in 4.9 s; held-out loss 4.7000 -> 4.1000, perplexity 109.95 -> 60.34 (-45 %)",
      "traffic: 320 kB down, 320 kB up; full weights would have cost 88.0 MB, this is 0.73 % of it",
      "",
      "sample before",
      "  Once there was",
      "sample after",
      "  Once upon a time",
      "",
      "adapter: runs/letters/adapter (PEFT layout)",
      "next:",
      '  tributary generate runs/letters --prompt "..."',
      "  tributary export merged runs/letters --out merged",
    ]);
  });
});

describe("figures", () => {
  it("have three digits and a unit", () => {
    expect([0, 999, 1000, 12_345, 999_600, 5_630_000_000].map(bytes)).toEqual([
      "0 B",
      "999 B",
      "1.00 kB",
      "12.3 kB",
      "1.00 MB",
      "5.63 GB",
    ]);
    expect([999, 1_500_000, 135e6, 7e9].map(size)).toEqual(["999", "1.50 M", "135 M", "7.00 B"]);
    expect(count(1_234_567)).toBe("1,234,567");
    expect([0.04, 9.94, 59.6, 3599.6, 7260].map(duration)).toEqual([
      "0.0 s",
      "9.9 s",
      "1:00 min",
      "1:00 h",
      "2:01 h",
    ]);
    expect([0, 0.0047, 0.05, 0.5].map(percent)).toEqual(["0 %", "0.47 %", "5.0 %", "50 %"]);
  });

  it("and samples fit their lines", () => {
    expect(wrapped("one two  three", 9, "  ")).toEqual(["  one two", "  three"]);
  });
});
