import { availableParallelism } from "node:os";
import { localModel } from "../../job/hub.node.ts";
import { placedModel } from "../../job/load.node.ts";
import { isRunFolder } from "../../job/run-files.node.ts";
import { sampleText } from "../../job/sample.ts";
import { openTuned } from "../../job/tuned.ts";
import { activationsFlag, activationsSpec } from "../activations-flag.ts";
import { clientSpec } from "../client-flag.ts";
import type { Command } from "../command.ts";
import { usageError } from "../exit.ts";
import { numberFlag } from "../number-flag.ts";
import { precisionFlag, precisionSpec } from "../precision-flag.ts";

/** `tributary generate`. */
export const generate: Command = {
  name: "generate",
  summary: "let the model of a run, or a base model, continue a text",
  usage: "RUN|MODEL --prompt TEXT [flags]",
  arguments: [1, 1],
  flags: [
    { name: "prompt", short: "p", value: "TEXT", description: "how the text begins" },
    { name: "max-tokens", value: "N", description: "most new tokens (default: 64)" },
    { name: "temperature", value: "T", description: "0 takes the likeliest token (default: 0.8)" },
    { name: "top-k", value: "K", description: "draw from the K likeliest tokens only" },
    { name: "top-p", value: "P", description: "draw from the likeliest tokens of joint probability P" },
    { name: "seed", value: "N", description: "seed of the drawn tokens (default: 0)" },
    precisionSpec,
    activationsSpec,
    clientSpec,
    { name: "base", description: "the base model of the run, without what was trained" },
  ],
  examples: [
    ['tributary generate runs/my-job --prompt "My fellow citizens"', "a sample"],
    ['tributary generate runs/my-job -p "The budget" --temperature 0', "always the likeliest token"],
    ['tributary generate runs/my-job -p "The budget" --base', "the same from the base model"],
  ],
  async run({ positionals: [path = ""], flags }, { terminal, signal, json, onInterrupt }) {
    const prompt = flags.get("prompt");
    if (prompt === undefined)
      throw usageError('generate: got no prompt, expected --prompt "how the text begins"');
    const options = {
      prompt,
      maxTokens: numberFlag(flags, "max-tokens", { fallback: 64, minimum: 1, whole: true }),
      temperature: numberFlag(flags, "temperature", { fallback: 0.8, minimum: 0 }),
      topK: numberFlag(flags, "top-k", { fallback: 0, minimum: 0, whole: true }),
      topP: numberFlag(flags, "top-p", { fallback: 1, minimum: 0, maximum: 1 }),
      seed: numberFlag(flags, "seed", { fallback: 0, minimum: 0, whole: true }),
      signal,
    };
    const precision = precisionFlag(flags);
    const computed = { activations: activationsFlag(flags), threads: availableParallelism() };
    onInterrupt(() => {});
    const folder = await localModel(placedModel(path, terminal.cwd));
    if (precision !== undefined && (await isRunFolder(folder)))
      throw usageError("--precision: a run has its own job; leave it out, or give a model");
    const { model, tokenizer, attached, params, base } = await openTuned(folder, {
      precision,
      client: flags.get(clientSpec.name),
    });
    const source = flags.has("base")
      ? { ...computed, model, tokenizer, attached: [], weights: model.weights }
      : { ...computed, model, tokenizer, attached, weights: new Map([...base, ...params]) };
    if (!json) terminal.out(prompt);
    let text = "";
    for await (const piece of sampleText(source, options)) {
      text += piece;
      if (!json) terminal.out(piece);
    }
    terminal.out(json ? `${JSON.stringify({ prompt, text })}\n` : "\n");
  },
};
