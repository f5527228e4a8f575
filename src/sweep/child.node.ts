import { spawn } from "node:child_process";
import process from "node:process";
import { createInterface } from "node:readline";
import type { JobEvent } from "../job/events.ts";

export interface ChildOptions {
  /** The command line of this program: an executable and its arguments before the verb. */
  readonly program: readonly string[];
  /** A run folder that holds its job. */
  readonly folder: string;
  /** Stops the run after its current step. */
  readonly signal: AbortSignal;
  readonly onEvent: (event: JobEvent) => void;
}

/** How a run in a process of its own ended. */
export type ChildOutcome =
  | { readonly kind: "finished" }
  | { readonly kind: "failed"; readonly reason: string; readonly code?: string }
  | { readonly kind: "stopped" };

/** What a run writes for machines. */
type ChildLine = JobEvent | { readonly type: "error"; readonly code: string; readonly message: string };

/** Runs the job of a folder in a process of its own, which ends with this one. */
export function runInChild({ program, folder, signal, onEvent }: ChildOptions): Promise<ChildOutcome> {
  const [executable = process.execPath, ...before] = program;
  return new Promise((resolve, reject) => {
    // In a group of its own it does not hear the Ctrl-C of the terminal, and is told by `signal` alone.
    const child = spawn(executable, [...before, "run", folder, "--json"], {
      detached: true,
      stdio: ["ignore", "pipe", "pipe"],
    });
    let finished = false;
    let error: (ChildLine & { readonly type: "error" }) | undefined;
    let noise = "";
    const stop = (): void => {
      child.kill("SIGINT");
    };
    const end = (): void => {
      child.kill("SIGKILL");
    };
    createInterface({ input: child.stdout }).on("line", (line) => {
      const found = parsed(line);
      if (found === undefined) return;
      if (found.type === "error") error = found;
      else {
        finished ||= found.type === "finished";
        onEvent(found);
      }
    });
    child.stderr.on("data", (piece: Buffer) => {
      noise = (noise + piece.toString()).slice(-2000);
    });
    signal.addEventListener("abort", stop, { once: true });
    process.once("exit", end);
    child.on("error", reject);
    child.on("close", (code, killed) => {
      signal.removeEventListener("abort", stop);
      process.off("exit", end);
      if (finished && code === 0) resolve({ kind: "finished" });
      else if (signal.aborted) resolve({ kind: "stopped" });
      else if (error !== undefined) resolve({ kind: "failed", reason: error.message, code: error.code });
      else resolve({ kind: "failed", reason: endOf({ code, killed, noise }) });
    });
    if (signal.aborted) stop();
  });
}

/** A line of a run; undefined for what a library may have printed in between, and for a line that was cut short. */
function parsed(line: string): ChildLine | undefined {
  try {
    return JSON.parse(line);
  } catch {
    return undefined;
  }
}

function endOf({
  code,
  killed,
  noise,
}: {
  readonly code: number | null;
  readonly killed: NodeJS.Signals | null;
  readonly noise: string;
}): string {
  const how = killed === null ? `ended with status ${code}` : `was ended by ${killed}`;
  const last = noise.trim().split("\n").at(-1) ?? "";
  return `its process ${how}${last === "" ? "" : `: ${last}`}`;
}
