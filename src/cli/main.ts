#!/usr/bin/env node
import { setMaxListeners } from "node:events";
import process from "node:process";
import { nearest } from "../job/nearest.ts";
import { parseCommandArgs } from "./args.ts";
import type { Command, CommandContext } from "./command.ts";
import { data } from "./commands/data.ts";
import { evaluate } from "./commands/eval.ts";
import { exportRun } from "./commands/export.ts";
import { generate } from "./commands/generate.ts";
import { init } from "./commands/init.ts";
import { inspect } from "./commands/inspect.ts";
import { join } from "./commands/join.ts";
import { methods } from "./commands/methods.ts";
import { clients, invite, kick, pause, resume, status, stop } from "./commands/operate.ts";
import { report } from "./commands/report.ts";
import { run } from "./commands/run.ts";
import { serve } from "./commands/serve.ts";
import { sweep } from "./commands/sweep.ts";
import { verify } from "./commands/verify.ts";
import { version } from "./commands/version.ts";
import { errorLines, errorRecord, exitCodeOf, exitCodes, usageError } from "./exit.ts";
import { commandHelp, keysHelp, overview } from "./help.ts";
import { textStyle } from "./progress/style.ts";
import { lines, type Terminal } from "./terminal.ts";

const commands: readonly Command[] = [
  run,
  sweep,
  serve,
  join,
  status,
  clients,
  pause,
  resume,
  stop,
  kick,
  invite,
  evaluate,
  generate,
  exportRun,
  inspect,
  methods,
  report,
  data,
  verify,
  init,
  version,
];

/** Milliseconds in which a signal that comes again is the same: npm passes on what a terminal sends to all of a group. */
const SAME_SIGNAL = 300;

// Every batch under way waits on the one signal of the run.
setMaxListeners(0);
await main(process.argv.slice(2));

/** Runs the command line; sets the exit code and never throws. */
async function main(argv: readonly string[]): Promise<void> {
  const json = argv.includes("--json");
  const stopping = stoppable();
  let unread = false;
  process.stdout.on("error", (error: Error) => {
    // A reader such as `head` that closes the pipe is no failure.
    if (!("code" in error) || error.code !== "EPIPE") throw error;
    unread = true;
    if (!stopping.stop("nobody reads the output")) process.exit(exitCodes.success);
  });
  try {
    await dispatch(argv, json, stopping);
  } catch (error) {
    if (unread) return;
    if (process.env.TRIBUTARY_DEBUG && error instanceof Error) process.stderr.write(`${error.stack}\n`);
    if (json) process.stdout.write(`${JSON.stringify(errorRecord(error))}\n`);
    else process.stderr.write(lines(colored(errorLines(error))));
    process.exitCode = exitCodeOf(error);
  }
}

async function dispatch(argv: readonly string[], json: boolean, stopping: Stopping): Promise<void> {
  const [name = "--help", ...rest] = argv;
  if (name === "--version" || name === "-v") return dispatch(["version", ...rest], json, stopping);
  if (name === "--help" || name === "-h" || name === "help") return help(rest, json);
  const command = commandOf(name);
  const args = parseCommandArgs(command, rest);
  if (args.flags.has("help")) return write(commandHelp(command));
  const { signal, onInterrupt } = stopping;
  const context: CommandContext = { terminal: systemTerminal(), signal, json, onInterrupt };
  await command.run(args, context);
}

/** How a command is stopped. */
interface Stopping extends Pick<CommandContext, "signal" | "onInterrupt"> {
  /** Aborts the command; false where it does not listen. */
  stop(why: string): boolean;
}

/** The first signal asks a command that listens to stop, the second one ends the process. */
function stoppable(): Stopping {
  const controller = new AbortController();
  const { signal } = controller;
  let listens = false;
  let since = Number.NEGATIVE_INFINITY;
  const stop = (why: string): boolean => {
    if (listens) controller.abort(new Error(why));
    return listens;
  };
  return {
    signal,
    stop,
    onInterrupt(say) {
      listens = true;
      const interrupt = (name: NodeJS.Signals): void => {
        if (!signal.aborted) {
          since = performance.now();
          stop("interrupted");
          say();
        } else if (performance.now() - since > SAME_SIGNAL) {
          // Not process.exit: it stops worker threads inside ONNX Runtime, which then aborts the process.
          process.removeListener(name, interrupt);
          process.kill(process.pid, name);
        }
      };
      process.on("SIGINT", interrupt);
      process.on("SIGTERM", interrupt);
    },
  };
}

function help([topic]: readonly string[], json: boolean): void {
  if (json) {
    const described = commands.map(({ name, summary, usage, flags }) => ({ name, summary, usage, flags }));
    process.stdout.write(`${JSON.stringify({ commands: described, exitCodes })}\n`);
  } else if (topic === "keys") write(keysHelp());
  else
    write(topic === undefined || topic.startsWith("-") ? overview(commands) : commandHelp(commandOf(topic)));
}

function commandOf(name: string): Command {
  const found = commands.find((command) => command.name === name);
  if (found !== undefined) return found;
  const names = commands.map((command) => command.name);
  const meant = nearest(name, names);
  throw usageError(
    `${name}: unknown ${name.startsWith("-") ? "flag" : "command"}, expected one of ${names.join(", ")}; ${meant === undefined ? "see tributary --help" : `did you mean ${meant}?`}`,
  );
}

function write(text: readonly string[]): void {
  process.stdout.write(lines(text));
}

function systemTerminal(): Terminal {
  const { stdout, stderr, stdin } = process;
  return {
    out: (text) => stdout.write(text),
    err: (text) => stderr.write(text),
    interactive: stdin.isTTY === true && stdout.isTTY === true,
    live: stdout.isTTY === true && process.env.TERM !== "dumb",
    // A terminal that does not tell its size says 0.
    columns: stdout.columns || 100,
    style: textStyle(colors(stdout)),
    cwd: process.cwd(),
    program: process.env.npm_command === undefined ? "tributary" : "npx tributary",
  };
}

function colors(stream: { readonly isTTY?: boolean }): boolean {
  return stream.isTTY === true && !process.env.NO_COLOR && process.env.TERM !== "dumb";
}

function colored([first = "", ...rest]: readonly string[]): string[] {
  const style = textStyle(colors(process.stderr));
  return [first.replace(/^error:/, (word) => style.bad(word)), ...rest];
}
