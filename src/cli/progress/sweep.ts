import { shareSpent } from "../../job/budget.ts";

import type { SweepEvent } from "../../sweep/run-sweep.node.ts";
import type { RunRow, SweepRun } from "../../sweep/sweep.ts";
import type { Screen } from "./display.ts";
import { bar, clipped, duration, measure as measureText, shortPath } from "./format.ts";
import { shownMeasure } from "./rounds.ts";
import { noProgress, type ProgressState, progressed, shareDone } from "./state.ts";
import { table } from "./table.ts";

/** Shows a sweep as it goes on. */
export interface SweepDisplay {
  show(event: SweepEvent): void;
  /** Draws the clock and the runs under way again. */
  tick(): void;
  /** A line of its own above what is drawn in place. */
  say(text: string): void;
}

interface Going {
  readonly run: SweepRun;
  readonly state: ProgressState;
  /** Share that was done before this process. */
  readonly kept: number;
}

/** Draws the runs under way as one table in place on a terminal, and writes plain lines elsewhere. */
export function openSweepDisplay(screen: Screen): SweepDisplay {
  const { style } = screen;
  const going = new Map<string, Going>();
  const began = screen.now();
  let drawn = 0;
  let title = "";
  let [all, ended, failed, fresh] = [0, 0, 0, 0];

  function secondsLeft(): number | undefined {
    const runs = [...going.values()];
    const made = fresh + runs.reduce((sum, one) => sum + shareOf(one) - one.kept, 0);
    const rest = all - ended - runs.reduce((sum, one) => sum + shareOf(one), 0);
    return made > 0.02 ? ((screen.now() - began) * rest) / made : undefined;
  }

  function live(): string[] {
    if (!screen.live || all === 0 || ended === all) return [];
    const left = secondsLeft();
    const head = [
      `${title}: ${ended} of ${all} runs done`,
      ...(failed === 0 ? [] : [`${failed} failed`]),
      duration(screen.now() - began),
      ...(left === undefined ? [] : [`${duration(left)} left`]),
    ].join(", ");
    const columns = [{ title: "run" }, { title: "round" }, { title: "" }, { title: "loss" }];
    const rows = [...going.values()].map((one) => [
      nameOf(one.run),
      roundText(one),
      bar(shareOf(one), 16),
      measureText("loss", one.state.rounds.at(-1)?.loss),
    ]);
    return [head, ...(rows.length === 0 ? [] : table(columns, rows))].map((line) =>
      clipped(line, screen.columns),
    );
  }

  function put(lines: readonly string[]): void {
    const erase = drawn > 0 ? `\u001b[${drawn}A\u001b[0J` : "";
    const below = live();
    drawn = below.length;
    const text = erase + [...lines, ...below].map((line) => `${line}\n`).join("");
    if (text !== "") screen.write(text);
  }

  function linesOf(event: SweepEvent): string[] {
    switch (event.type) {
      case "sweep-started": {
        title = event.name;
        [all, ended] = [event.runs, event.finished];
        const kept = event.finished === 0 ? "" : `, ${event.finished} of them finished before`;
        const side = event.workers === 1 ? "one at a time" : `${event.workers} side by side`;
        return [
          style.heading(`${title}: ${event.runs} runs${kept}, ${side}`),
          `  results in ${shortPath(event.folder, screen.cwd)}`,
        ];
      }
      case "run-started":
        going.set(event.run.id, { run: event.run, state: noProgress, kept: 0 });
        return screen.live ? [] : [style.quiet(`${nameOf(event.run)} started`)];
      case "run-event": {
        const before = going.get(event.run.id);
        if (before === undefined) return [];
        const state = progressed(before.state, event.event, screen.now());
        const now = { ...before, state };
        const resumed = event.event.type === "resumed";
        going.set(event.run.id, resumed ? { ...now, kept: shareOf(now) } : now);
        if (screen.live || event.event.type !== "round-committed") return [];
        const loss = measureText("loss", event.event.round.loss);
        return [`${nameOf(event.run)}: round ${roundText(now)}, loss ${loss}`];
      }
      case "run-ended": {
        const kept = going.get(event.run.id)?.kept ?? 0;
        going.delete(event.run.id);
        ended++;
        fresh += 1 - kept;
        if (event.row.failure !== undefined) failed++;
        return [endLine(event.row)];
      }
      case "sweep-finished":
        return [];
    }
  }

  function endLine(row: RunRow): string {
    const done = `${ended}/${all}  ${row.method}, ${row.partition}, seed ${row.seed}`;
    if (row.failure !== undefined) return style.bad(`${done} failed: ${row.failure.split("\n")[0] ?? ""}`);
    const name = shownMeasure(row.after);
    const held =
      name === undefined
        ? ""
        : `: ${name} ${measureText(name, row.before[name])} -> ${measureText(name, row.after[name])}`;
    return `${done}${held} in ${duration(row.seconds)}`;
  }

  return {
    show: (event) => put(linesOf(event)),
    tick: () => put([]),
    say: (text) => put([text]),
  };
}

function nameOf({ method, partition, seed }: SweepRun): string {
  return `${method}, ${partition}, seed ${seed}`;
}

function roundText({ state, run: { job } }: Going): string {
  const at = state.current?.number ?? state.rounds.length;
  return `${at} of ${job.budget === undefined ? "" : "at most "}${job.rounds}`;
}

/** Share of a run that is done, the round under way included. */
function shareOf({ state: { rounds, current }, run: { job } }: Going): number {
  const now = current === undefined ? 0 : shareDone(current);
  return Math.min(1, Math.max((rounds.length + now) / job.rounds, shareSpent(job.budget, rounds)));
}
