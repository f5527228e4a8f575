import { runtime } from "#ort";
import { adaptedScope, adapterBase, startParams } from "../src/adapters/adapter.ts";
import { lora } from "../src/adapters/lora.ts";
import { encodeOnnx } from "../src/graph/onnx.ts";
import { matMul } from "../src/graph/ops.ts";
import type { RecomputeLevel } from "../src/graph/passes/recompute.ts";
import { type Dim, factorsOf } from "../src/graph/shape.ts";
import { input, isOp, topological, type Value } from "../src/graph/value.ts";
import { describeModel } from "../src/models/load.ts";
import { randomWeights } from "../src/models/random-weights.ts";
import { modelInputs, type TaskModel, taskLoss } from "../src/models/task.ts";
import { adamw } from "../src/optim/adam.ts";
import type { Params } from "../src/tensor/params.ts";
import { type Tensor, tensor } from "../src/tensor/tensor.ts";
import { runLocal } from "../src/train/local.ts";
import { initialState, stepOutputs, traceStep } from "../src/train/step.ts";

/** Shapes of the two models that the peers were measured on. */
export const shapes = {
  smollm2: {
    json: {
      model_type: "llama",
      architectures: ["LlamaForCausalLM"],
      vocab_size: 49152,
      hidden_size: 576,
      intermediate_size: 1536,
      num_hidden_layers: 30,
      num_attention_heads: 9,
      num_key_value_heads: 3,
      head_dim: 64,
      hidden_act: "silu",
      max_position_embeddings: 2048,
      rms_norm_eps: 1e-5,
      rope_theta: 100000,
      tie_word_embeddings: true,
    },
    task: "causal-lm",
    target: ["q_proj", "v_proj"],
    modulesToSave: [],
    batch: 4,
    length: 128,
    prompt: 20,
    numLabels: undefined,
  },
  minilm: {
    json: {
      model_type: "bert",
      architectures: ["BertModel"],
      vocab_size: 30522,
      hidden_size: 384,
      intermediate_size: 1536,
      num_hidden_layers: 6,
      num_attention_heads: 12,
      hidden_act: "gelu",
      max_position_embeddings: 512,
      type_vocab_size: 2,
      layer_norm_eps: 1e-12,
      pad_token_id: 0,
    },
    task: "sequence-classification",
    target: ["query", "value"],
    modulesToSave: ["classifier"],
    batch: 32,
    length: 64,
    prompt: 0,
    numLabels: 16,
  },
  /** The base model of the example on presidents. */
  presidents: {
    json: {
      model_type: "llama",
      architectures: ["LlamaForCausalLM"],
      vocab_size: 4096,
      hidden_size: 192,
      intermediate_size: 512,
      num_hidden_layers: 5,
      num_attention_heads: 6,
      num_key_value_heads: 2,
      head_dim: 32,
      hidden_act: "silu",
      max_position_embeddings: 512,
      rms_norm_eps: 1e-5,
      rope_theta: 10000,
      tie_word_embeddings: true,
    },
    task: "causal-lm",
    target: "all-linear",
    modulesToSave: [],
    batch: 8,
    length: 256,
    prompt: 1,
    numLabels: undefined,
  },
} as const;

export type ShapeName = keyof typeof shapes;

export interface StepBenchOptions {
  readonly model: ShapeName;
  readonly batch?: number | undefined;
  readonly length?: number | undefined;
  readonly threads?: number | undefined;
  /** "cheap" or "layers": what the backward pass computes again. */
  readonly recompute?: RecomputeLevel | undefined;
  readonly steps?: number | undefined;
  readonly warmup?: number | undefined;
}

export interface StepFigures {
  readonly bench: "step";
  readonly model: ShapeName;
  readonly batch: number;
  readonly length: number;
  readonly threads: number;
  readonly recompute: RecomputeLevel | "none";
  /** Median and fastest step. */
  readonly secondsPerStep: number;
  readonly fastest: number;
  /** Processor time of all threads for the median step. */
  readonly cpuSecondsPerStep: number;
  readonly openSeconds: number;
  readonly firstStep: number;
  readonly tokensPerSecond: number;
  /** Floating-point operations of the step's matrix products. */
  readonly productGflop: number;
  readonly gflopPerSecond: number;
  /** Best rate of a large float32 product in the same process. */
  readonly peakGflopPerSecond: number;
  readonly shareOfPeak: number;
  readonly peakMB: number;
  readonly losses: readonly [number, number];
  readonly nodes: number;
}

/** 2 m n k of every product in a graph, with its symbols bound. */
export function productFlops(outputs: Iterable<Value>, symbols: Readonly<Record<string, number>>): number {
  const size = (dim: Dim): number => {
    const { coefficient, symbols: names } = factorsOf(dim);
    return names.reduce((product, name) => product * (symbols[name] ?? Number.NaN), coefficient);
  };
  let total = 0;
  for (const node of topological([...outputs])) {
    if (!isOp(node, "MatMul") && !isOp(node, "Gemm")) continue;
    const [a] = node.inputs;
    const [y] = node.outputs;
    if (!a || !y) continue;
    const transA = isOp(node, "MatMul") && node.attributes.transA;
    const inner = a.shape.at(transA ? -2 : -1) ?? 1;
    total += 2 * y.shape.reduce<number>((product, dim) => product * size(dim), 1) * size(inner);
  }
  return total;
}

/** Best rate of a 1536 x 1536 x 1536 float32 product over some repetitions. */
export async function gemmPeak(threads: number): Promise<number> {
  const n = 1536;
  const [a, b] = [input("a", "float32", [n, n]), input("b", "float32", [n, n])];
  const session = await runtime.openSession(
    encodeOnnx({ outputs: new Map([["y", matMul(a, b, { transB: true })]]) }),
    { threads },
  );
  const square = tensor("float32", [n, n], new Float32Array(n * n).fill(0.5));
  const feeds = new Map([
    ["a", square],
    ["b", square],
  ]);
  let best = 0;
  for (let i = 0; i < 12; i++) {
    const start = performance.now();
    await session.run(feeds);
    best = Math.max(best, (2 * n ** 3) / (performance.now() - start) / 1e6);
  }
  await session.dispose();
  return best;
}

function ids(count: number, limit: number, stride: number): BigInt64Array {
  return BigInt64Array.from({ length: count }, (_, i) => BigInt(3 + ((i * stride) % (limit - 3))));
}

function batchFeeds(
  chosen: TaskModel,
  batch: number,
  length: number,
  prompt: number,
): { feeds: Params; labels: number } {
  const tokens = batch * length;
  const { vocabSize, numLabels } = chosen.config;
  const feeds = new Map<string, Tensor>([
    ["input_ids", tensor("int64", [batch, length], ids(tokens, vocabSize, 7919))],
    ["attention_mask", tensor("int64", [batch, length], new BigInt64Array(tokens).fill(1n))],
  ]);
  if (chosen.task !== "causal-lm") {
    feeds.set(
      "labels",
      tensor(
        "int64",
        [batch],
        BigInt64Array.from({ length: batch }, (_, i) => BigInt(i % numLabels)),
      ),
    );
    return { feeds, labels: batch };
  }
  const positions = Array.from({ length: tokens }, (_, i) => i).filter(
    (i) => i % length >= prompt - 1 && i % length < length - 1,
  );
  feeds.set("label_positions", tensor("int64", [positions.length], BigInt64Array.from(positions, BigInt)));
  feeds.set("labels", tensor("int64", [positions.length], ids(positions.length, vocabSize, 104729)));
  return { feeds, labels: positions.length };
}

const median = (values: readonly number[]): number =>
  [...values].sort((x, y) => x - y)[values.length >> 1] ?? Number.NaN;

/** Times the LoRA training step of a model's shape with random weights, one session in this process. */
export async function benchStep({
  model,
  threads = 2,
  steps = 8,
  warmup = 2,
  ...options
}: StepBenchOptions): Promise<StepFigures> {
  const shape = shapes[model];
  const { batch = shape.batch, length = shape.length } = options;
  const chosen = describeModel(shape.json, { task: shape.task, numLabels: shape.numLabels });
  const base = adapterBase(chosen);
  const attached = lora({
    rank: 8,
    alpha: 16,
    target: shape.target,
    modulesToSave: shape.modulesToSave,
  }).attach(base);
  const scope = adaptedScope(base, [attached]);
  const loss = taskLoss(chosen, scope, modelInputs(chosen.model));
  const trainable = new Map([...attached.parameters.keys()].map((name) => [name, scope.get(name)] as const));
  const optimizer = adamw({ learningRate: 2e-4 });
  const traced = { loss, trainable, optimizer, recompute: options.recompute };
  const weights = randomWeights(chosen, 1);
  const start = startParams([attached], { seed: 1, base: weights });
  const { feeds, labels } = batchFeeds(chosen, batch, length, shape.prompt);
  const opening = performance.now();
  const session = await runtime.openSession(traceStep(traced).step, { threads });
  const openSeconds = (performance.now() - opening) / 1000;
  const outputs = stepOutputs(traced);
  const flops = productFlops(outputs.values(), { batch, sequence: length, labels });
  const times: number[] = [];
  const cpuTimes: number[] = [];
  const losses: number[] = [];
  const never = (): never => {
    throw new Error("nothing is accumulated");
  };
  let [last, lastCpu] = [performance.now(), process.cpuUsage()];
  await runLocal(
    { step: session, accumulate: never, apply: never },
    {
      base: weights,
      start,
      optimizerState: initialState(optimizer, start),
      steps: Array.from({ length: warmup + steps }, () => [feeds]),
      scalars: Array.from({ length: warmup + steps }, (_, i) => optimizer.scalars(i + 1)),
    },
    {
      onStep(record) {
        times.push((performance.now() - last) / 1000);
        losses.push(record.loss);
        const { user, system } = process.cpuUsage(lastCpu);
        cpuTimes.push((user + system) / 1e6);
        [last, lastCpu] = [performance.now(), process.cpuUsage()];
      },
    },
  );
  await session.dispose();
  const secondsPerStep = median(times.slice(warmup));
  const peak = await gemmPeak(threads);
  const rate = flops / secondsPerStep / 1e9;
  return {
    bench: "step",
    model,
    batch,
    length,
    threads,
    recompute: options.recompute ?? "none",
    secondsPerStep,
    fastest: Math.min(...times.slice(warmup)),
    cpuSecondsPerStep: median(cpuTimes.slice(warmup)),
    openSeconds,
    firstStep: times[0] ?? Number.NaN,
    tokensPerSecond: (batch * length) / secondsPerStep,
    productGflop: flops / 1e9,
    gflopPerSecond: rate,
    peakGflopPerSecond: peak,
    shareOfPeak: rate / peak,
    peakMB: Math.round(process.resourceUsage().maxRSS / 1024),
    losses: [losses[0] ?? Number.NaN, losses.at(-1) ?? Number.NaN],
    nodes: topological([...outputs.values()]).length,
  };
}
