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

// Every batch under way waits on the one signal of the run.
setMaxListeners(0);
await main(process.argv.slice(2));

/** Runs the command line; sets the exit code and never throws. */
async function main(argv: readonly string[]): Promise<void> {
  const json = argv.includes("--json");
  process.stdout.on("error", leaveQuietly);
  try {
    await dispatch(argv, json);
  } catch (error) {
    if (process.env.TRIBUTARY_DEBUG && error instanceof Error) process.stderr.write(`${error.stack}\n`);
    if (json) process.stdout.write(`${JSON.stringify(errorRecord(error))}\n`);
    else process.stderr.write(lines(colored(errorLines(error))));
    process.exitCode = exitCodeOf(error);
  }
}

async function dispatch(argv: readonly string[], json: boolean): Promise<void> {
  const [name = "--help", ...rest] = argv;
  if (name === "--version" || name === "-v") return dispatch(["version", ...rest], json);
  if (name === "--help" || name === "-h" || name === "help") return help(rest, json);
  const command = commandOf(name);
  const args = parseCommandArgs(command, rest);
  if (args.flags.has("help")) return write(commandHelp(command));
  const controller = new AbortController();
  const context: CommandContext = {
    terminal: systemTerminal(),
    signal: controller.signal,
    json,
    onInterrupt(say) {
      const stop = (): void => {
        if (controller.signal.aborted) process.exit(exitCodes.interrupted);
        controller.abort(new Error("interrupted"));
        say();
      };
      process.on("SIGINT", stop);
      process.on("SIGTERM", stop);
    },
  };
  await command.run(args, context);
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

/** A reader such as `head` that closes the pipe is no failure. */
function leaveQuietly(error: Error): void {
  if ("code" in error && error.code === "EPIPE") process.exit(exitCodes.success);
  throw error;
}
