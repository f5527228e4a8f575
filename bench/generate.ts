import { openFolder } from "../src/formats/files.node.ts";
import type { Activations } from "../src/graph/ops/blocks.ts";
import { describeModel, loadModel } from "../src/models/load.ts";
import type { BasePrecision } from "../src/models/precision.ts";
import { randomWeights } from "../src/models/random-weights.ts";
import type { TaskModel } from "../src/models/task.ts";
import type { Params } from "../src/tensor/params.ts";
import { generate } from "../src/train/generate.ts";
import { generateBatch } from "../src/train/generate-batch.ts";
import { openDecoder } from "../src/train/open-decoder.ts";
import { shapes } from "./step.ts";

export interface GenerateBenchOptions {
  /** "smollm2" for its shape with random weights, or the folder or file of a model. */
  readonly model: string;
  /** Rows that are continued together. Default: 1. */
  readonly batch?: number | undefined;
  /** Tokens of a prompt. Default: 44. */
  readonly length?: number | undefined;
  /** Token ids of the prompt of a single row, in place of invented ones. */
  readonly prompt?: readonly number[] | undefined;
  /** New tokens of each row after the first. Default: 128. */
  readonly tokens?: number | undefined;
  readonly threads?: number | undefined;
  /** How the weights are held. Default: "float32". */
  readonly precision?: BasePrecision | undefined;
  /** As in `tributary generate`. Default: "int8". */
  readonly activations?: Activations | undefined;
}

export interface GenerateFigures {
  readonly bench: "generate";
  readonly model: string;
  readonly batch: number;
  readonly threads: number;
  readonly precision: BasePrecision;
  readonly activations: Activations;
  readonly promptTokens: number;
  /** Until the first new token. */
  readonly promptSeconds: number;
  readonly newTokens: number;
  /** New tokens of all rows after the first pass, by the clock. */
  readonly tokensPerSecond: number;
  /** Processor time of all threads for one of these. */
  readonly cpuSecondsPerToken: number;
  readonly openSeconds: number;
  readonly peakMB: number;
}

async function open(
  model: string,
  precision: BasePrecision,
): Promise<TaskModel & { readonly weights: Params }> {
  if (model !== "smollm2") return loadModel(await openFolder(model), { task: "causal-lm", precision });
  if (precision !== "float32")
    throw new RangeError(
      `bench: got precision ${precision} for random weights, expected float32, or the file of a model`,
    );
  const described = describeModel(shapes.smollm2.json, { task: "causal-lm" });
  return { ...described, weights: randomWeights(described, 1) };
}

/** Times greedy decoding with a cache: prompts of one length, no stop tokens, a warm-up before. */
export async function benchGenerate({
  model,
  batch = 1,
  length = 44,
  tokens = 128,
  threads = 2,
  prompt: given,
  precision = "float32",
  activations = "int8",
}: GenerateBenchOptions): Promise<GenerateFigures> {
  const { weights, ...taskModel } = await open(model, precision);
  const opening = performance.now();
  const packed = { blocks: weights, activations };
  const { session, ...decoder } = await openDecoder(taskModel, [], { packed, threads });
  const openSeconds = (performance.now() - opening) / 1000;
  const { vocabSize } = taskModel.config;
  const prompts = Array.from({ length: batch }, (_, row) =>
    Array.from({ length }, (_, t) => 3 + (((row * length + t) * 7919) % (vocabSize - 3))),
  );
  const [only = []] = prompts;
  const continued = async (maxTokens: number, onFirst: () => void): Promise<void> => {
    if (batch > 1) {
      const onPass = (_: number, pass: number): void => {
        if (pass === 1) onFirst();
      };
      await generateBatch(decoder, session, weights, { prompts, maxTokens, onPass });
      return;
    }
    let made = 0;
    const options = { prompt: given ?? only, maxTokens };
    for await (const _ of generate(decoder, session, weights, options)) if (made++ === 0) onFirst();
  };
  await continued(8, () => {});
  const begun = performance.now();
  let [first, before] = [begun, process.cpuUsage()];
  await continued(tokens + 1, () => {
    [first, before] = [performance.now(), process.cpuUsage()];
  });
  const seconds = (performance.now() - first) / 1000;
  const { user, system } = process.cpuUsage(before);
  await session.dispose();
  return {
    bench: "generate",
    model,
    batch,
    threads,
    precision,
    activations,
    promptTokens: (given ?? only).length,
    promptSeconds: (first - begun) / 1000,
    newTokens: tokens,
    tokensPerSecond: (batch * tokens) / seconds,
    cpuSecondsPerToken: (user + system) / 1e6 / (batch * tokens),
    openSeconds,
    peakMB: Math.round(process.resourceUsage().maxRSS / 1024),
  };
}
