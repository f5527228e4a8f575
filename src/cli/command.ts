import type { TypedFlag } from "../job/flags.ts";
import type { Terminal } from "./terminal.ts";

/** A flag of one command. */
export interface FlagSpec {
  readonly name: string;
  readonly short?: string;
  /** What the value is, such as `DIR`; a flag without one is on or off. */
  readonly value?: string;
  readonly description: string;
}

/** What a person typed after the command. */
export interface ParsedArgs {
  readonly positionals: readonly string[];
  /** Text of each given flag; empty for those without a value. */
  readonly flags: ReadonlyMap<string, string>;
  /** Job keys given as flags. */
  readonly job: readonly TypedFlag[];
}

export interface CommandContext {
  readonly terminal: Terminal;
  /** Aborted by the first Ctrl-C. */
  readonly signal: AbortSignal;
  /** What to say when it is. */
  onInterrupt(say: () => void): void;
  /** Whether machines read the output: one JSON object, or JSON lines. */
  readonly json: boolean;
}

/** One verb of the command line. */
export interface Command {
  readonly name: string;
  readonly summary: string;
  /** What follows the name, such as `JOB [flags]`. */
  readonly usage: string;
  /** Typed lines with what they do. */
  readonly examples: readonly (readonly [line: string, what: string])[];
  readonly flags: readonly FlagSpec[];
  /** Whether job keys are flags of it. */
  readonly takesJob?: boolean;
  /** Fewest and most arguments. */
  readonly arguments: readonly [number, number];
  run(args: ParsedArgs, context: CommandContext): Promise<void>;
}
