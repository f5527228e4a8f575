/**
 * Pretrains the example's base model from random weights, every parameter, with the traced step:
 *
 *     npx tsx --conditions=@tributary/source scripts/presidents/pretrain.ts [--epochs 8] [--out examples/presidents/base]
 *
 * Writes config.json, model.safetensors (float16), and training.json with the loss curve.
 */
import { mkdirSync, readFileSync, renameSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { runtime } from "#ort";
import { adaptedScope, adapterBase, startParams } from "../../src/adapters/adapter.ts";
import { denseSubset } from "../../src/adapters/dense-subset.ts";
import { type Batch, collate } from "../../src/data/batches.ts";
import { type Example, packedExamples } from "../../src/data/examples.ts";
import { loadTokenizer } from "../../src/data/tokenizer.ts";
import { writeSafetensors } from "../../src/formats/safetensors.ts";
import { llama } from "../../src/models/llama.ts";
import { modelInputs, taskLoss } from "../../src/models/task.ts";
import { adamw } from "../../src/optim/adam.ts";
import { cosine } from "../../src/optim/schedules.ts";
import { convert } from "../../src/tensor/convert.ts";
import type { Params } from "../../src/tensor/params.ts";
import { stream } from "../../src/tensor/random.ts";
import { type Tensor, tensor } from "../../src/tensor/tensor.ts";
import { runLocal } from "../../src/train/local.ts";
import { encode, initialState, traceStep } from "../../src/train/step.ts";
import { pretrainingPassages } from "./corpus.ts";

const { values } = parseArgs({
  options: {
    out: {
      type: "string",
      default: fileURLToPath(new URL("../../examples/presidents/base", import.meta.url)),
    },
    epochs: { type: "string", default: "8" },
    batch: { type: "string", default: "16" },
    block: { type: "string", default: "256" },
    rate: { type: "string", default: "3e-3" },
    seed: { type: "string", default: "1" },
    threads: { type: "string", default: "2" },
  },
});
const { out } = values;
const [epochs, batchSize, blockLength, learningRate, seed, threads] = [
  values.epochs,
  values.batch,
  values.block,
  values.rate,
  values.seed,
  values.threads,
].map(Number) as [number, number, number, number, number, number];

const json = {
  architectures: ["LlamaForCausalLM"],
  model_type: "llama",
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
  attention_bias: false,
  mlp_bias: false,
  initializer_range: 0.02,
  bos_token_id: 0,
  eos_token_id: 0,
  pad_token_id: 1,
  torch_dtype: "float16",
};
const config = llama.config(json);
const taskModel = { model: llama, config, task: "causal-lm" as const };

const read = (name: string): unknown => JSON.parse(readFileSync(join(out, name), "utf8"));
const tokenizer = loadTokenizer(read("tokenizer.json"), read("tokenizer_config.json"));
const passages = pretrainingPassages().map((passage) => ({ ...passage }));
const pack = (split: string): readonly Example[] =>
  packedExamples(
    passages.filter((passage) => passage.split === split),
    { tokenizer, blockLength },
  ).examples;
const [train, validation] = [pack("train"), pack("test")];

/** Matrices and embeddings N(0, 0.02²), the two that write into the residual stream divided by √(2 layers); norms 1. */
function randomStart(): Params {
  const weights = new Map<string, Tensor>();
  for (const [name, { shape, kind }] of llama.parameters(config, "causal-lm")) {
    const data = new Float32Array(shape.reduce((a, b) => a * b, 1));
    if (kind === "norm-weight") data.fill(1);
    else {
      const random = stream({ seed, purpose: `pretrain/${name}` });
      const residual = /o_proj|down_proj/.test(name) ? Math.sqrt(2 * config.numHiddenLayers) : 1;
      for (let i = 0; i < data.length; i++) data[i] = (random.normal() * config.initializerRange) / residual;
    }
    weights.set(name, tensor("float32", shape, data));
  }
  return weights;
}

const base = adapterBase(taskModel);
const dense = denseSubset({ target: ".*" }).attach(base);
const scope = adaptedScope(base, [dense]);
const loss = taskLoss(taskModel, scope, modelInputs(llama));
const trainable = new Map(
  [...dense.parameters.keys()].map((name) => {
    const value = scope.inputs.get(name);
    if (!value) throw new Error(`the loss does not read "${name}"`);
    return [name, value] as const;
  }),
);
const stepsPerEpoch = Math.floor(train.length / batchSize);
const totalSteps = Math.round(stepsPerEpoch * epochs);
const optimizer = adamw({
  learningRate: cosine({ learningRate, warmupSteps: 100, totalSteps }),
  betas: [0.9, 0.95],
  weightDecay: 0.1,
});
const graphs = traceStep({ loss, trainable, optimizer, clipNorm: 1 });
const session = await runtime.openSession(graphs.step, { threads });
const evaluation = await runtime.openSession(
  encode(
    new Map([
      ["loss", loss.sum],
      ["count", loss.count],
    ]),
  ),
  { threads },
);

const feedsOf = (batch: Batch): Params =>
  new Map<string, Tensor>([
    ["input_ids", batch.inputIds],
    ["attention_mask", batch.attentionMask],
    ["label_positions", batch.labelPositions],
    ["labels", batch.labels],
  ]);

async function validationLoss(params: Params): Promise<number> {
  let [sum, count] = [0, 0];
  for (let i = 0; i < validation.length; i += 32) {
    const outputs = await evaluation.run(
      new Map([...params, ...feedsOf(collate(validation.slice(i, i + 32)))]),
    );
    sum += Number(outputs.get("loss")?.data[0]);
    count += Number(outputs.get("count")?.data[0]);
  }
  return sum / count;
}

function save(params: Params, record: object): void {
  mkdirSync(out, { recursive: true });
  const half = new Map([...params].map(([name, value]) => [name, convert(value, "float16")] as const));
  writeFileSync(join(out, "model.safetensors.tmp"), writeSafetensors(half, new Map([["format", "pt"]])));
  renameSync(join(out, "model.safetensors.tmp"), join(out, "model.safetensors"));
  writeFileSync(join(out, "config.json"), `${JSON.stringify(json, null, 2)}\n`);
  writeFileSync(join(out, "training.json"), `${JSON.stringify(record, null, 2)}\n`);
}

let params: Params = startParams([dense], { seed, base: randomStart() });
let optimizerState = initialState(
  optimizer,
  new Map([...params].map(([name, { shape, dtype }]) => [name, { shape, dtype }])),
);
const count = [...params.values()].reduce((sum, { data }) => sum + data.length, 0);
const curve: { step: number; tokens: number; train: number; validation: number }[] = [];
console.log(
  `${count} parameters, ${train.length} blocks of ${blockLength} tokens, ${totalSteps} steps of ${batchSize}; validation ${validation.length} blocks`,
);
const began = performance.now();
let [running, seen] = [0, 0];
for (let step = 1; step <= totalSteps; step++) {
  const epoch = Math.floor((step - 1) / stepsPerEpoch);
  const at = (step - 1) % stepsPerEpoch;
  const order = stream({ seed, round: epoch, purpose: "pretrain/order" }).permutation(train.length);
  const rows = Array.from(order.slice(at * batchSize, (at + 1) * batchSize), (i) => train[i]).filter(
    (e) => e !== undefined,
  );
  const absent = (): never => {
    throw new Error("nothing is accumulated");
  };
  const outcome = await runLocal(
    { step: session, accumulate: absent, apply: absent },
    {
      base: new Map(),
      start: params,
      optimizerState,
      steps: [[feedsOf(collate(rows))]],
      scalars: [optimizer.scalars(step)],
    },
  );
  ({ params, optimizerState } = outcome);
  running += outcome.steps[0]?.loss ?? Number.NaN;
  seen++;
  if (step % 200 === 0 || step === totalSteps) {
    const seconds = (performance.now() - began) / 1000;
    const held = await validationLoss(params);
    curve.push({ step, tokens: step * batchSize * blockLength, train: running / seen, validation: held });
    console.log(
      `step ${step}/${totalSteps}  train ${(running / seen).toFixed(4)}  validation ${held.toFixed(4)}  ${((step * batchSize * blockLength) / seconds).toFixed(0)} tokens/s  ${seconds.toFixed(0)} s`,
    );
    [running, seen] = [0, 0];
    save(params, {
      parameters: count,
      seed,
      epochs,
      batchSize,
      blockLength,
      learningRate,
      totalSteps,
      seconds: Math.round(seconds),
      trainTokens: train.length * blockLength,
      curve,
    });
  } else if (step <= 3 || step === 50)
    console.log(
      `step ${step}  loss ${running / seen}  ${((performance.now() - began) / 1000 / step).toFixed(2)} s/step`,
    );
}
