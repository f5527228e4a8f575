import { runtime } from "#ort";
import { adaptedScope, adapterBase, startParams } from "../src/adapters/adapter.ts";
import { lora } from "../src/adapters/lora.ts";
import { bucketed, collate, lengthsOf, paddingShare } from "../src/data/batches.ts";
import { causalExamples, classificationExamples, type Example } from "../src/data/examples.ts";
import { readRecords, readTokenizer } from "../src/data/files.node.ts";
import { chat } from "../src/data/templates.ts";
import { batchFeeds } from "../src/federation/trainer.ts";
import { openFolder } from "../src/formats/files.node.ts";
import { loadModel } from "../src/models/load.ts";
import { modelInputs, taskLoss } from "../src/models/task.ts";
import { adamw } from "../src/optim/adam.ts";
import { stream } from "../src/tensor/random.ts";
import { runLocal } from "../src/train/local.ts";
import { initialState, traceStep } from "../src/train/step.ts";

export interface MixedBenchOptions {
  /** Folder of a model in Hugging Face layout. */
  readonly folder: string;
  /** SST-2 (`sentence`, `label`) for an encoder, MedQuAD (`question`, `answer`) for a language model. */
  readonly data: string;
  readonly examples: number;
  readonly batch: number;
  readonly maxLength: number;
  readonly threads?: number;
}

export interface MixedFigures {
  readonly bench: "mixed";
  readonly model: string;
  readonly examples: number;
  readonly batch: number;
  readonly maxLength: number;
  readonly threads: number;
  readonly meanTokens: number;
  /** Share of padding in all places of the batches. */
  readonly padding: number;
  readonly seconds: number;
  readonly examplesPerSecond: number;
  readonly losses: readonly [number, number];
  readonly peakMB: number;
}

/**
 * Times one pass of LoRA training (rank 8 on query and value) over real examples with their mixed lengths, as a client
 * runs it: batches of like length. One step of the longest batch comes first and is not counted.
 */
export async function benchMixed({
  folder,
  data,
  examples: count,
  batch: batchSize,
  maxLength,
  threads = 2,
}: MixedBenchOptions): Promise<MixedFigures> {
  const tokenizer = await readTokenizer(folder);
  const { rows } = await readRecords(data);
  const pairs = rows[0]?.question !== undefined;
  const kept = pairs ? rows.filter(({ answer }) => typeof answer === "string" && answer !== "") : rows;
  const records = kept.slice(0, count);
  const { examples } = pairs
    ? causalExamples(records, {
        tokenizer,
        template: chat(tokenizer, { user: "question", assistant: "answer" }),
        maxLength,
      })
    : classificationExamples(records, { tokenizer, maxLength, text: "sentence", classes: 2 });
  const model = await loadModel(await openFolder(folder), {
    task: pairs ? "causal-lm" : "sequence-classification",
    ...(pairs ? {} : { numLabels: 2 }),
  });
  const base = adapterBase(model);
  const attached = lora({
    rank: 8,
    alpha: 16,
    target: pairs ? ["q_proj", "v_proj"] : ["query", "value"],
    modulesToSave: pairs ? [] : ["classifier"],
  }).attach(base);
  const scope = adaptedScope(base, [attached]);
  const trainable = new Map([...attached.parameters.keys()].map((name) => [name, scope.get(name)] as const));
  const optimizer = adamw({ learningRate: 2e-4 });
  const loss = taskLoss(model, scope, modelInputs(model.model));
  const session = await runtime.openSession(traceStep({ loss, trainable, optimizer }).step, { threads });
  const start = startParams([attached], { seed: 1, base: model.weights });

  const lengths = lengthsOf(examples);
  const plan = bucketed(lengths, { batchSize, random: stream({ seed: 1, purpose: "bench" }) });
  const pick = (indices: readonly number[]): Example[] => indices.flatMap((i) => examples[i] ?? []);
  const longest = [...plan].sort(
    (a, b) => Math.max(...b.map((i) => lengths[i] ?? 0)) - Math.max(...a.map((i) => lengths[i] ?? 0)),
  )[0];
  const batches = [...(longest ? [longest] : []), ...plan].map((indices) => [
    batchFeeds(collate(pick(indices)), model.task),
  ]);
  const losses: number[] = [];
  let from = performance.now();
  const never = (): never => {
    throw new Error("nothing is accumulated");
  };
  await runLocal(
    { step: session, accumulate: never, apply: never },
    {
      base: model.weights,
      start,
      optimizerState: initialState(optimizer, start),
      steps: batches,
      scalars: batches.map((_, i) => optimizer.scalars(i + 1)),
    },
    {
      onStep({ step, loss: value }) {
        if (step === 1) from = performance.now();
        else losses.push(value);
      },
    },
  );
  const seconds = (performance.now() - from) / 1000;
  await session.dispose();
  return {
    bench: "mixed",
    model: model.model.type,
    examples: examples.length,
    batch: batchSize,
    maxLength,
    threads,
    meanTokens: lengths.reduce((sum, n) => sum + n, 0) / lengths.length,
    padding: paddingShare(lengths, plan),
    seconds,
    examplesPerSecond: examples.length / seconds,
    losses: [losses[0] ?? Number.NaN, losses.at(-1) ?? Number.NaN],
    peakMB: Math.round(process.resourceUsage().maxRSS / 1024),
  };
}
