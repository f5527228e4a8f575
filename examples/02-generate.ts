// Reads a PEFT adapter and continues a text with it. Run after 01: npx tsx examples/02-generate.ts [FOLDER]
import { fileURLToPath } from "node:url";
import { loadModel, sampleText } from "tributary";
import { adapterBase } from "tributary/adapters/adapter";
import { loadPeftAdapter } from "tributary/adapters/peft";
import { openFolder, readTokenizer } from "tributary/node";

const [folder = "runs/01-fedit"] = process.argv.slice(2);
const path = fileURLToPath(new URL("presidents/base", import.meta.url));
const model = await loadModel(await openFolder(path));
const tokenizer = await readTokenizer(path);
const { attached, params } = await loadPeftAdapter(await openFolder(folder), adapterBase(model));

const prompt = "My fellow Americans";
const pieces = sampleText(
  { model, tokenizer, attached: [attached], weights: new Map([...model.weights, ...params]) },
  { prompt, maxTokens: 30, temperature: 0.5, seed: 7 },
);
process.stdout.write(prompt);
for await (const piece of pieces) process.stdout.write(piece);
process.stdout.write("\n");
