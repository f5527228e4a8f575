import { either } from "../job/problem.ts";
import { type BasePrecision, basePrecisions } from "../models/precision.ts";
import type { FlagSpec } from "./command.ts";
import { usageError } from "./exit.ts";

/** The flag of commands that take a model. */
export const precisionSpec: FlagSpec = {
  name: "precision",
  value: basePrecisions.join("|"),
  description: "of a model, how its weights are held (default: float32); a run keeps its own",
};

/** How the weights of a model are to be held; undefined where nothing is said. */
export function precisionFlag(flags: ReadonlyMap<string, string>): BasePrecision | undefined {
  const text = flags.get(precisionSpec.name);
  if (text === undefined) return undefined;
  const found = basePrecisions.find((precision) => precision === text);
  if (found !== undefined) return found;
  throw usageError(
    `--${precisionSpec.name}: got ${JSON.stringify(text)}, expected ${either(basePrecisions)}; correct it`,
  );
}
