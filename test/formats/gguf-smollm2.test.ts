import { readFileSync } from "node:fs";
import { expect, it } from "vitest";
import { runtime } from "#ort";
import { readTokenizer } from "../../src/data/files.node.ts";
import { chat } from "../../src/data/templates.ts";
import { openFolder } from "../../src/formats/files.node.ts";
import { loadModel } from "../../src/models/load.ts";
import { generate, traceDecoder } from "../../src/train/generate.ts";
import { farthest } from "../nn/evaluate.ts";
import { shared } from "../shared.ts";

interface Expected {
  readonly greedy: {
    readonly continuations: readonly {
      readonly messages: readonly Record<string, unknown>[];
      readonly prompt: string;
      readonly promptIds: number[];
      readonly ids: number[];
      readonly logprobs: number[];
    }[];
  };
}

it.skipIf(shared === undefined)(
  "SmolLM2's GGUF file alone answers in its chat template, token for token (skipped without it)",
  async () => {
    const folder = `${shared}/models/SmolLM2-135M-Instruct`;
    const path = `${folder}/SmolLM2-135M-Instruct.Q4_1.gguf`;
    const { greedy }: Expected = JSON.parse(readFileSync(`${folder}/expected.json`, "utf8"));
    const loaded = await loadModel(await openFolder(path));
    expect([loaded.initialized, loaded.ignored]).toEqual([[], []]);
    const tokenizer = await readTokenizer(path);
    const { renderMessages } = chat(tokenizer);
    const { graph, ...decoder } = traceDecoder(loaded);
    const session = await runtime.openSession(graph);
    for (const { messages, prompt, promptIds, ids, logprobs } of greedy.continuations) {
      const rendered = renderMessages(messages, { addGenerationPrompt: true });
      expect(rendered).toBe(prompt);
      expect(tokenizer.encode(rendered, { addSpecialTokens: false }).ids).toEqual(promptIds);
      const made: { readonly id: number; logProb(): number }[] = [];
      const options = { prompt: promptIds, maxTokens: ids.length };
      for await (const token of generate(decoder, session, loaded.weights, options)) made.push(token);
      expect(made.map(({ id }) => id)).toEqual(ids);
      expect(
        farthest(
          made.map((token) => token.logProb()),
          logprobs,
        ),
      ).toBeLessThan(1e-4);
    }
    await session.dispose();
  },
  120_000,
);
