import type { Activations } from "../graph/ops/blocks.ts";
import { either } from "../job/problem.ts";
import type { FlagSpec } from "./command.ts";
import { usageError } from "./exit.ts";

const choices: readonly Activations[] = ["int8", "float32"];

/** The flag of commands that generate text. */
export const activationsSpec: FlagSpec = {
  name: "activations",
  value: choices.join("|"),
  description: "how what weights in blocks are multiplied with is rounded as text is made (default: int8)",
};

/** How activations are rounded where the base is in blocks. */
export function activationsFlag(flags: ReadonlyMap<string, string>): Activations {
  const text = flags.get(activationsSpec.name);
  if (text === undefined) return "int8";
  const found = choices.find((activations) => activations === text);
  if (found !== undefined) return found;
  throw usageError(
    `--${activationsSpec.name}: got ${JSON.stringify(text)}, expected ${either(choices)}; correct it`,
  );
}
