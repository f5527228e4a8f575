import { TributaryError } from "../errors.ts";
import { bert } from "./bert.ts";
import { llama } from "./llama.ts";
import type { Model } from "./model.ts";

/** Every model family. */
export const families: readonly Model[] = [bert, llama];

/** The family of a `model_type`. Throws TributaryError `unsupported-model` that lists the known ones. */
export function familyOf(modelType: unknown): Model {
  const found = families.find((family) => family.type === modelType);
  if (found) return found;
  const known = families.map((family) => family.type).join(", ");
  throw new TributaryError(
    "unsupported-model",
    `model: config.json has model_type ${JSON.stringify(modelType)}; supported are ${known}`,
  );
}
