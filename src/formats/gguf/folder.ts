import { TributaryError } from "../../errors.ts";
import type { Folder } from "../byte-source.ts";
import { type Gguf, isGgufName, openGguf } from "./gguf.ts";

/** Opens the GGUF file of a model folder that holds no safetensors; undefined where there is none. */
export async function openGgufOf(folder: Folder): Promise<Gguf | undefined> {
  if (folder.has("model.safetensors") || folder.has("model.safetensors.index.json")) return undefined;
  const [first, second] = [...folder].filter(([name]) => isGgufName(name));
  if (first === undefined) return undefined;
  if (second !== undefined) {
    throw new TributaryError(
      "unsupported-model",
      `model: the folder holds ${first[0]} and ${second[0]}; give the path of one of them`,
    );
  }
  const [name, source] = first;
  return openGguf(source, name);
}
