import { TributaryError } from "../../errors.ts";
import { quote } from "../json.ts";
import type { Architecture } from "./architectures/architecture.ts";
import { bert } from "./architectures/bert.ts";
import { gemma, gemma2, gemma3 } from "./architectures/gemma.ts";
import { gpt2 } from "./architectures/gpt2.ts";
import { llama, qwen2 } from "./architectures/llama.ts";
import { phi3 } from "./architectures/phi3.ts";

const architectures: readonly Architecture[] = [llama, qwen2, gemma, gemma2, gemma3, phi3, gpt2, bert];

/** The architecture that a file names. Throws TributaryError `unsupported-model` that lists the known ones. */
export function architectureOf(name: string | undefined, file: string): Architecture {
  const found = architectures.find((each) => each.name === name);
  if (found !== undefined) return found;
  const known = architectures.map((each) => each.name).join(", ");
  throw new TributaryError(
    "unsupported-model",
    `${file}: general.architecture is ${name === undefined ? "absent" : quote(name)}; supported are ${known}`,
  );
}

/** The architecture as which a `model_type` is stored. Throws TributaryError `unsupported-model`. */
export function architectureFor(modelType: unknown): Architecture {
  const found = architectures.find((each) => each.modelTypes.some((type) => type === modelType));
  if (found !== undefined) return found;
  const known = architectures.flatMap((each) => each.modelTypes).join(", ");
  throw new TributaryError(
    "unsupported-model",
    `GGUF: got model_type ${JSON.stringify(modelType)}; models that can be written are ${known}`,
  );
}
