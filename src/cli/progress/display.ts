import { isSpent } from "../../job/budget.ts";
import type { JobEvent } from "../../job/events.ts";
import { bytes } from "../../job/units.ts";
import { footerLines } from "./footer.ts";
import { clipped, duration } from "./format.ts";
import { headerLines } from "./header.ts";
import { currentLine, phaseLine, roundLine, startLine, titleLine, workingLine } from "./rounds.ts";
import { noProgress, type ProgressState, progressed, withPhase } from "./state.ts";
import type { Style } from "./style.ts";

/** Where a display writes, and when. */
export interface Screen {
  write(text: string): void;
  /** Characters in a line. */
  readonly columns: number;
  /** Whether lines can be drawn again in place. */
  readonly live: boolean;
  readonly style: Style;
  /** How a person starts this program. */
  readonly program: string;
  /** The working folder, below which paths are shown short. */
  readonly cwd?: string;
  /** Seconds of a clock that never goes back. */
  now(): number;
}

/** Shows a run as it goes on. */
export interface Display {
  show(event: JobEvent): void;
  /** Says what goes on until the next event. */
  wait(what: string): void;
  /** Draws the clock and the bar of the round under way again. */
  tick(): void;
  /** A line of its own above what is drawn in place. */
  say(text: string): void;
}

/** The lines that stay on the screen after an event; `state` is what is known with it. */
export function eventLines(
  event: JobEvent,
  state: ProgressState,
  screen: Pick<Screen, "columns" | "live" | "style" | "program" | "cwd">,
): string[] {
  const { style, columns, live, program, cwd } = screen;
  switch (event.type) {
    case "started":
      return headerLines(event.header, { style, cwd, ...(live ? { width: columns } : {}) });
    case "fetching":
      return event.done === event.total
        ? [
            style.quiet(
              clipped(`${" ".repeat(7)}fetched ${event.name}, ${bytes(event.total)}`, live ? columns : 1000),
            ),
          ]
        : [];
    case "resumed":
      return [
        continuedLine(event, state, style),
        titleLine(state, style),
        startLine(state),
        ...state.rounds.map((round) => roundLine(round, state)),
      ];
    case "evaluated": {
      const made = state.rounds.find(({ number }) => number === event.round);
      if (made !== undefined) return [roundLine(made, state)];
      return event.round === 0 ? [titleLine(state, style), startLine(state)] : [];
    }
    case "client-dropped":
      return [
        style.bad(
          clipped(
            `${" ".repeat(7)}${event.client} dropped: ${event.code}: ${event.reason}`,
            live ? columns : 1000,
          ),
        ),
      ];
    case "round-failed":
      return [
        style.bad(`${" ".repeat(7)}round ${event.round} failed at attempt ${event.attempt}: ${event.reason}`),
      ];
    case "finished":
      return footerLines(event.summary, { style, program, width: Math.min(columns, 100), whole: !live, cwd });
    default:
      return [];
  }
}

/** `continuing run X at round 3 of 8, 2 of 5 updates already in`. */
export function continuedLine(
  event: JobEvent & { readonly type: "resumed" },
  state: ProgressState,
  style: Style,
): string {
  const { header } = state;
  const total = header?.rounds ?? event.rounds.length;
  const at = event.openRound ?? event.rounds.length + 1;
  const name = header?.name ?? "the run";
  if (event.openRound === undefined && event.rounds.length >= total) {
    return style.good(
      `${name} has all its ${total} rounds already; --rounds takes it further, --fresh starts anew`,
    );
  }
  if (event.openRound === undefined && isSpent(header?.budget, event.rounds))
    return style.good(
      `${name} has used up its budget already; a larger one takes it further, --fresh starts anew`,
    );
  const kept =
    event.openRound === undefined ? "" : `, ${event.kept} of ${header?.perRound ?? "its"} updates already in`;
  return style.good(`continuing run ${name} at round ${at} of ${total}${kept}`);
}

/** A display that draws the round under way in place on a terminal, and writes plain lines elsewhere. */
export function openDisplay(screen: Screen): Display {
  let state: ProgressState = noProgress;
  let drawn = 0;

  function erase(): string {
    const text = drawn > 0 ? `\u001b[${drawn}A\u001b[0J` : "";
    drawn = 0;
    return text;
  }

  function live(): string {
    const { current } = state;
    if (!screen.live) return "";
    const lines = (
      current === undefined
        ? [phaseLine(state, screen.now(), screen.columns)]
        : [currentLine(state, screen.now(), screen.columns), workingLine(current, screen.columns)]
    ).filter((line) => line !== "");
    drawn = lines.length;
    return lines.map((line) => `${line}\n`).join("");
  }

  function put(lines: readonly string[]): void {
    const text = erase() + lines.map((line) => `${line}\n`).join("") + live();
    if (text !== "") screen.write(text);
  }

  return {
    show(event) {
      state = progressed(state, event, screen.now());
      const lines = eventLines(event, state, screen);
      if (!screen.live && event.type === "update-accepted" && state.current !== undefined) {
        const { accepted, target, since } = state.current;
        lines.push(
          screen.style.quiet(
            `${" ".repeat(7)}${event.client} in, loss ${event.loss.toFixed(4)} (${accepted.length} of ${target}, ${duration(screen.now() - since)})`,
          ),
        );
      }
      put(lines);
    },
    wait(what) {
      state = withPhase(state, what, screen.now());
      put([]);
    },
    tick: () => put([]),
    say: (text) => put([text]),
  };
}
