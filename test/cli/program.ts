import { spawn } from "node:child_process";
import { createServer } from "node:net";
import { fileURLToPath } from "node:url";

/** How a process ended, and all that it said. */
export interface Outcome {
  readonly code: number | null;
  readonly signal: NodeJS.Signals | null;
  readonly out: string;
  readonly err: string;
}

/** The command line as a process that runs, or has run. */
export interface Program {
  /** The first match in what it says, from now or before; rejects if it ends without one. */
  heard(pattern: RegExp): Promise<RegExpExecArray>;
  readonly ended: Promise<Outcome>;
  kill(signal?: NodeJS.Signals): void;
  /** Stops reading what it writes, as `head` does. */
  leave(): void;
}

const main = fileURLToPath(new URL("../../src/cli/main.ts", import.meta.url));
const source = ["--conditions=@tributary/source", "--import", import.meta.resolve("tsx"), main];

/** Starts the command line as a person would, without a terminal. */
export function startProgram(cwd: string, ...args: readonly string[]): Program {
  const { TRIBUTARY_DEBUG: _, ...env } = process.env;
  const child = spawn(process.execPath, [...source, ...args], {
    cwd,
    env,
    stdio: ["ignore", "pipe", "pipe"],
  });
  let [out, err, over] = ["", "", false];
  const listeners = new Set<() => void>();
  const tell = (): void => {
    for (const listener of listeners) listener();
  };
  child.stdout.on("data", (piece: Buffer) => {
    out += piece.toString();
    tell();
  });
  child.stderr.on("data", (piece: Buffer) => {
    err += piece.toString();
    tell();
  });
  const ended = new Promise<Outcome>((resolve, reject) => {
    child.once("error", reject);
    child.once("close", (code, signal) => {
      over = true;
      resolve({ code, signal, out, err });
      tell();
    });
  });
  return {
    ended,
    heard: (pattern) =>
      new Promise((resolve, reject) => {
        const look = (): void => {
          const found = pattern.exec(out) ?? pattern.exec(err);
          if (found) resolve(found);
          else if (over) reject(new Error(`${args.join(" ")} ended without ${pattern}:\n${out}${err}`));
          else return;
          listeners.delete(look);
        };
        listeners.add(look);
        look();
      }),
    kill: (signal = "SIGTERM") => void child.kill(signal),
    leave: () => void child.stdout.destroy(),
  };
}

/** Processes of one test file. */
export interface Programs {
  start(...args: readonly string[]): Program;
  /** Kills what still runs. */
  close(): Promise<void>;
}

/** Processes that run in a folder and are ended with the test. */
export function programsIn(folder: string): Programs {
  const running = new Set<Program>();
  return {
    start(...args) {
      const program = startProgram(folder, ...args);
      running.add(program);
      void program.ended.then(() => running.delete(program));
      return program;
    },
    async close() {
      const left = [...running];
      for (const program of left) program.kill("SIGKILL");
      await Promise.all(left.map(({ ended }) => ended));
    },
  };
}

/** A port that nothing listens on, for a server that comes back to the same one. */
export function freePort(): Promise<number> {
  return new Promise((resolve, reject) => {
    const server = createServer();
    server.once("error", reject);
    server.listen(0, "127.0.0.1", () => {
      const address = server.address();
      server.close(() => resolve(address !== null && typeof address === "object" ? address.port : 0));
    });
  });
}
