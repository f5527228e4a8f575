import { type ChildProcess, spawn } from "node:child_process";
import { mkdirSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { build } from "esbuild";

/** A line that a program says. */
export interface Said {
  readonly type: string;
  readonly [key: string]: unknown;
}

/** A program that runs, or has run. */
export interface Program {
  readonly pid: number;
  readonly said: readonly Said[];
  /** The first line of a kind, from now or before; rejects if the program ends without it. */
  heard(type: string, fits?: (line: Said) => boolean): Promise<Said>;
  /** How it ended. */
  readonly ended: Promise<{ readonly code: number | null; readonly signal: NodeJS.Signals | null }>;
  kill(signal?: NodeJS.Signals): void;
  /** What it wrote to its standard error. */
  complaints(): string;
}

/** Programs of this folder, bundled so that a process starts without compiling TypeScript. */
export interface Programs {
  start(options: {
    readonly name: string;
    readonly settings: object;
    readonly env?: Readonly<Record<string, string>>;
    /** Runs the program under another, e.g. `["unshare", "-m"]`. */
    readonly under?: readonly string[];
  }): Program;
  /** Kills what still runs and removes the bundles. */
  close(): Promise<void>;
}

const here = fileURLToPath(new URL(".", import.meta.url));

/** Bundles programs of this folder. */
export async function programs(names: readonly string[], from: string = here): Promise<Programs> {
  // Beside the packages, which the bundles import by name.
  const folder = join(
    here,
    "..",
    "..",
    "node_modules",
    ".cache",
    `tributary-processes-${process.pid}-${performance.now()}`,
  );
  mkdirSync(folder, { recursive: true });
  await build({
    entryPoints: names.map((name) => join(from, `${name}.ts`)),
    outdir: folder,
    outExtension: { ".js": ".mjs" },
    bundle: true,
    packages: "external",
    platform: "node",
    format: "esm",
    target: "node20",
    conditions: ["@tributary/source"],
  });
  const running = new Set<Program>();
  let started = 0;
  return {
    start({ name, settings, env = {}, under = [] }) {
      const path = join(folder, `settings-${started++}.json`);
      writeFileSync(path, JSON.stringify(settings));
      const command = [...under, process.execPath, join(folder, `${name}.mjs`), path];
      const program = follow(
        spawn(command[0] ?? "", command.slice(1), {
          stdio: ["ignore", "pipe", "pipe"],
          env: { ...process.env, ...env },
        }),
        name,
      );
      running.add(program);
      void program.ended.then(() => running.delete(program));
      return program;
    },
    async close() {
      const left = [...running];
      for (const program of left) program.kill();
      await Promise.all(left.map(({ ended }) => ended));
      rmSync(folder, { recursive: true, force: true });
    },
  };
}

function follow(child: ChildProcess, name: string): Program {
  const said: Said[] = [];
  const listeners = new Set<() => void>();
  let [rest, complaints] = ["", ""];
  let over = false;
  child.stdout?.on("data", (piece: Buffer) => {
    const lines = (rest + piece.toString()).split("\n");
    rest = lines.pop() ?? "";
    for (const line of lines) said.push(JSON.parse(line) as Said);
    for (const listener of listeners) listener();
  });
  child.stderr?.on("data", (piece: Buffer) => {
    complaints += piece.toString();
  });
  const ended = new Promise<{ code: number | null; signal: NodeJS.Signals | null }>((resolve) => {
    child.once("close", (code, signal) => {
      over = true;
      for (const listener of listeners) listener();
      resolve({ code, signal });
    });
  });
  return {
    pid: child.pid ?? 0,
    said,
    ended,
    heard: (type, fits = () => true) =>
      new Promise((resolve, reject) => {
        const look = (): void => {
          const line = said.find((one) => one.type === type && fits(one));
          if (line) resolve(line);
          else if (over)
            reject(
              new Error(`${name} ended without "${type}": ${JSON.stringify(said.at(-1))} ${complaints}`),
            );
          else return;
          listeners.delete(look);
        };
        listeners.add(look);
        look();
      }),
    kill: (signal = "SIGKILL") => void child.kill(signal),
    complaints: () => complaints,
  };
}
