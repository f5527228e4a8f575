import { type ChildProcess, spawn } from "node:child_process";
import type { JobEvent } from "../../src/job/events.ts";

/** The parts of a run between which its events pass. */
export type Phase = "start" | "training" | "aggregation" | "writing";

/** When a process is killed: so many milliseconds after it started, or after it entered a phase for the nth time. */
export interface Moment {
  readonly phase?: Phase;
  /** From 1. */
  readonly nth?: number;
  readonly ms: number;
}

/** An event of a process with its time. */
export interface TimedEvent {
  /** Milliseconds after the process was started. */
  readonly at: number;
  readonly event: JobEvent;
}

/** What became of one process. */
export interface Life {
  readonly events: readonly TimedEvent[];
  /** Milliseconds until it ended or was killed. */
  readonly ms: number;
  readonly killed: boolean;
  readonly code: number | null;
  readonly err: string;
}

/** The phase that a run is in once it has reported an event; the others do not change it. */
export function phaseAfter({ type }: JobEvent): Phase | undefined {
  switch (type) {
    case "round-opened":
    case "client-started":
      return "training";
    case "round-closed":
      return "aggregation";
    case "round-committed":
    case "run-ended":
      return "writing";
    default:
      return undefined;
  }
}

/** The phase that a process was in at its end. */
export function lastPhase({ events }: Pick<Life, "events">): Phase {
  return events.reduce<Phase>((phase, { event }) => phaseAfter(event) ?? phase, "start");
}

/** Runs a command that writes one event a line, and sends SIGKILL to its whole process group at a moment. */
export function live(
  command: readonly string[],
  { cwd, moment }: { readonly cwd: string; readonly moment?: Moment },
): Promise<Life> {
  return new Promise((resolve, reject) => {
    const [program = "", ...args] = command;
    const began = performance.now();
    const child = spawn(program, args, { cwd, detached: true, stdio: ["ignore", "pipe", "pipe"] });
    const events: TimedEvent[] = [];
    let timer: NodeJS.Timeout | undefined;
    let killed = false;
    let phase: Phase = "start";
    let entered = 0;
    let [rest, err] = ["", ""];
    const aim = (ms: number): void => {
      timer = setTimeout(() => {
        killed = killGroup(child);
      }, ms);
    };
    if (moment && (moment.phase === undefined || moment.phase === "start")) aim(moment.ms);
    child.stdout.on("data", (piece: Buffer) => {
      const lines = (rest + piece.toString()).split("\n");
      rest = lines.pop() ?? "";
      for (const line of lines) {
        // Every line of the command is an event; the kill may cut the last one, which then is no whole line.
        const event = JSON.parse(line) as JobEvent;
        events.push({ at: performance.now() - began, event });
        const next = phaseAfter(event) ?? phase;
        if (next !== phase && next === moment?.phase && ++entered === moment.nth) aim(moment.ms);
        phase = next;
      }
    });
    child.stderr.on("data", (piece: Buffer) => {
      err += piece.toString();
    });
    child.on("error", reject);
    child.on("close", (code) => {
      clearTimeout(timer);
      resolve({ events, ms: performance.now() - began, killed: killed && code === null, code, err });
    });
  });
}

/** Whether there was still something to kill. */
function killGroup({ pid }: ChildProcess): boolean {
  if (pid === undefined) return false;
  try {
    return process.kill(-pid, "SIGKILL");
  } catch {
    return false;
  }
}
