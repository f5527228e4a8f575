import { parseArgs } from "node:util";
import { flagHint, flagNames, flagPath, type JobFlag, jobFlags, type TypedFlag } from "../job/flags.ts";
import { nearest } from "../job/nearest.ts";
import type { Command, FlagSpec, ParsedArgs } from "./command.ts";
import { usageError } from "./exit.ts";

/** Flags that every command has. */
export const commonFlags: readonly FlagSpec[] = [
  { name: "json", description: "write JSON for machines: one object, or one a line" },
  { name: "help", short: "h", description: "show this help" },
];

/** Reads what was typed after a command. Throws TributaryError `usage` that lists every unknown or incomplete flag. */
export function parseCommandArgs(command: Command, argv: readonly string[]): ParsedArgs {
  const own = [...command.flags, ...commonFlags];
  const keys = command.takesJob === true ? jobFlags() : [];
  const { args, given, problems } = resolved(argv, own, keys);
  const booleans = new Set([
    ...own.filter(({ value }) => value === undefined).map(({ name }) => name),
    ...keys.filter((key) => key.boolean).map(({ path }) => path),
  ]);
  const names = [...own.map(({ name }) => name), ...keys.map(({ path }) => path)];
  const { tokens, positionals } = parseArgs({
    args,
    strict: false,
    allowNegative: true,
    allowPositionals: true,
    tokens: true,
    options: Object.fromEntries(
      names.map((name) => {
        const short = own.find((flag) => flag.name === name)?.short;
        return [
          name,
          {
            type: booleans.has(name) ? "boolean" : "string",
            multiple: true,
            ...(short === undefined ? {} : { short }),
          } as const,
        ];
      }),
    ),
  });
  const flags = new Map<string, string>();
  const job = new Map<string, string[]>(given);
  for (const token of tokens) {
    if (token.kind !== "option") continue;
    const negative = token.name.startsWith("no-") && !names.includes(token.name);
    const name = negative ? token.name.slice(3) : token.name;
    if (!names.includes(name))
      problems.push(`-${token.name}: unknown flag; see tributary ${command.name} --help`);
    else if (own.some((flag) => flag.name === name)) {
      if (!booleans.has(name) && token.value === undefined) problems.push(missingValue(name, own));
      flags.set(name, token.value ?? "");
    } else if (booleans.has(name)) job.set(name, [negative ? "false" : "true"]);
    else if (token.value === undefined)
      problems.push(`--${name}: got no value, expected ${keys.find(({ path }) => path === name)?.expects}`);
    else job.set(name, [...(job.get(name) ?? []), token.value]);
  }
  const [least, most] = command.arguments;
  if (problems.length === 0 && !flags.has("help")) {
    if (positionals.length < least)
      problems.push(`${command.name}: got ${positionals.length} arguments, expected ${command.usage}`);
    if (positionals.length > most)
      problems.push(
        `${command.name}: got a surplus argument ${positionals[most]}, expected ${command.usage}`,
      );
  }
  if (problems.length > 0) throw usageError(problems.join("\n"));
  return { positionals, flags, job: [...job].map(([path, texts]): TypedFlag => ({ path, texts })) };
}

interface Resolved {
  readonly args: string[];
  readonly given: [string, string[]][];
  readonly problems: string[];
}

/** The arguments with every long flag under its full name, and the errors of unknown ones. */
function resolved(argv: readonly string[], own: readonly FlagSpec[], keys: readonly JobFlag[]): Resolved {
  const args: string[] = [];
  const given: [string, string[]][] = [];
  const problems: string[] = [];
  const end = argv.indexOf("--");
  for (const [i, arg] of argv.entries()) {
    const match = /^--([^=]+)(=.*)?$/s.exec(arg);
    if (match === null || (end >= 0 && i >= end)) {
      args.push(arg);
      continue;
    }
    const [, flag = "", assigned] = match;
    const positive = flag.startsWith("no-") ? flag.slice(3) : flag;
    const key = flagPath(positive, keys);
    const boolean = key !== undefined && keys.some((known) => known.path === key && known.boolean);
    const mine = own.find(({ name }) => name === flag || camelCase(name) === flag);
    if (mine !== undefined) args.push(`--${mine.name}${assigned ?? ""}`);
    else if (boolean && assigned !== undefined) given.push([key, [assigned.slice(1)]]);
    else if (key !== undefined && (positive === flag || boolean))
      args.push(`--${positive === flag ? "" : "no-"}${key}${assigned ?? ""}`);
    else problems.push(`--${flag}: unknown flag; ${hint(flag, own, keys)}`);
  }
  return { args, given, problems };
}

/** Job keys are flags in their own spelling and with dashes; so are the flags of commands. */
function camelCase(name: string): string {
  return name.replace(/-(\w)/g, (_, letter: string) => letter.toUpperCase());
}

function hint(flag: string, own: readonly FlagSpec[], keys: readonly JobFlag[]): string {
  const mine = nearest(
    flag,
    own.map(({ name }) => name),
  );
  return mine === undefined
    ? flagHint(flag, keys.length === 0 ? [] : flagNames(keys))
    : `did you mean --${mine}?`;
}

function missingValue(name: string, own: readonly FlagSpec[]): string {
  return `--${name}: got no value, expected ${own.find((flag) => flag.name === name)?.value ?? "one"}`;
}
