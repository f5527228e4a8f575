import { flagAliases, flagSpelling, type JobFlag, jobFlags } from "../job/flags.ts";
import { commonFlags } from "./args.ts";
import type { Command, FlagSpec } from "./command.ts";
import { table } from "./progress/table.ts";

/** The overview of all commands. */
export function overview(commands: readonly Command[]): string[] {
  return [
    "tributary: federated fine-tuning of transformers with low-rank adapters",
    "",
    "usage: tributary COMMAND [arguments] [flags]",
    "",
    ...columns(commands.map(({ name, usage, summary }) => [`${name} ${usage}`.trim(), summary])),
    "",
    "examples:",
    ...examples([
      ["tributary init", "write a job file by questions"],
      ["tributary run job.yaml", "run it; the same line goes on after an interruption"],
      ['tributary generate runs/my-job --prompt "My fellow citizens"', "let the tuned model talk"],
    ]),
    "",
    "Every command has --json for machines and --help with its own examples.",
    "Exit codes: 0 success, 1 failure, 2 an error in what was typed or given, 130 interrupted.",
  ];
}

/** The help of one command. */
export function commandHelp(command: Command): string[] {
  const flags = [...command.flags, ...commonFlags].map((flag): [string, string] => [
    flagTitle(flag),
    flag.description,
  ]);
  const keys = command.takesJob === true ? frequentKeys() : [];
  return [
    `tributary ${command.name}: ${command.summary}`,
    "",
    `usage: tributary ${command.name} ${command.usage}`.trimEnd(),
    "",
    "flags:",
    ...columns(flags),
    ...(keys.length === 0
      ? []
      : ["", "frequent job keys as flags (tributary help keys lists all of them):", ...columns(keys)]),
    "",
    "examples:",
    ...examples(command.examples),
  ];
}

/** Every job key as a flag. */
export function keysHelp(): string[] {
  return [
    "Every key of a job file is also a flag, with its full path; flags win over the file.",
    "Lists are separated by commas, or the flag is repeated. Names may also be written in kebab-case.",
    "",
    ...columns(jobFlags().map(keyLine)),
  ];
}

function frequentKeys(): [string, string][] {
  const frequent = new Set([
    ...flagAliases.values(),
    "model",
    "rounds",
    "participation",
    "seed",
    "workers",
    "out",
  ]);
  return jobFlags()
    .filter(({ path }) => frequent.has(path))
    .map(keyLine);
}

function keyLine(flag: JobFlag): [string, string] {
  return [flagSpelling(flag.path), `${flag.description.replace(/\.$/, "")} (${flag.expects})`];
}

function flagTitle({ name, short, value }: FlagSpec): string {
  return `${short === undefined ? "" : `-${short}, `}--${name}${value === undefined ? "" : ` ${value}`}`;
}

function columns(pairs: readonly (readonly [string, string])[]): string[] {
  return table([{ title: "" }, { title: "" }], pairs)
    .slice(1)
    .map((line) => `  ${line}`);
}

function examples(pairs: readonly (readonly [string, string])[]): string[] {
  return columns(pairs.map(([line, what]) => [line, `# ${what}`]));
}
