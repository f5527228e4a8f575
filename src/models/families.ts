import { TributaryError } from "../errors.ts";
import { bert } from "./bert.ts";
import { deit } from "./deit.ts";
import { distilbert } from "./distilbert.ts";
import { gemma } from "./gemma.ts";
import { gemma2 } from "./gemma2.ts";
import { gemma3 } from "./gemma3.ts";
import { gpt2 } from "./gpt2.ts";
import { llama } from "./llama.ts";
import { mistral } from "./mistral.ts";
import type { Model } from "./model.ts";
import { phi3 } from "./phi3.ts";
import { qwen2 } from "./qwen2.ts";
import { roberta } from "./roberta.ts";
import { siglip } from "./siglip.ts";
import { vit } from "./vit.ts";

/** Every model family. */
export const families: readonly Model[] = [
  bert,
  deit,
  distilbert,
  gemma,
  gemma2,
  gemma3,
  gpt2,
  llama,
  mistral,
  phi3,
  qwen2,
  roberta,
  siglip,
  vit,
];

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
