import { parseCommandArgs } from "../../src/cli/args.ts";
import type { Command, ParsedArgs } from "../../src/cli/command.ts";
import { textStyle } from "../../src/cli/progress/style.ts";
import type { Terminal } from "../../src/cli/terminal.ts";

/** What a command prints in a folder, without a process of its own; its arguments as they are typed. */
export async function printed(cwd: string, command: Command, ...argv: readonly string[]): Promise<string> {
  let text = "";
  const terminal: Terminal = {
    out: (more) => {
      text += more;
    },
    err: () => {},
    interactive: false,
    live: false,
    columns: 80,
    style: textStyle(false),
    cwd,
    program: "tributary",
  };
  const args: ParsedArgs = parseCommandArgs(command, argv);
  const { signal } = new AbortController();
  await command.run(args, { terminal, signal, onInterrupt: () => {}, json: args.flags.has("json") });
  return text;
}
