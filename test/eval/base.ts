import { fileURLToPath } from "node:url";
import { readTokenizer } from "../../src/data/files.node.ts";
import type { EvaluatedModel } from "../../src/eval/model.ts";
import { openFolder } from "../../src/formats/files.node.ts";
import { loadModel } from "../../src/models/load.ts";

/** Folder of the small model beside the example of the presidents. */
export const baseFolder: string = fileURLToPath(new URL("../../examples/presidents/base", import.meta.url));

/** The small model, as it is evaluated. */
export async function baseModel(): Promise<EvaluatedModel> {
  const model = await loadModel(await openFolder(baseFolder));
  const tokenizer = await readTokenizer(baseFolder);
  return { model, tokenizer, attached: [], base: model.weights, params: new Map() };
}
