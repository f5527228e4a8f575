import { existsSync } from "node:fs";
import { readdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import { runtime } from "#ort";
import {
  type AdapterBase,
  type AttachedAdapter,
  adaptedScope,
  adapterBase,
  startParams,
  trainableNames,
} from "../../src/adapters/adapter.ts";
import { denseSubset } from "../../src/adapters/dense-subset.ts";
import { mergeAdapters } from "../../src/adapters/merge.ts";
import { loadPeftAdapter } from "../../src/adapters/peft.ts";
import { peftName } from "../../src/adapters/peft-names.ts";
import { TributaryError } from "../../src/errors.ts";
import type { Folder } from "../../src/formats/byte-source.ts";
import { openFolder } from "../../src/formats/files.node.ts";
import { openCheckpoint, readTensors } from "../../src/formats/safetensors.ts";
import { gradients } from "../../src/graph/gradients.ts";
import { div } from "../../src/graph/ops.ts";
import type { Value } from "../../src/graph/value.ts";
import { checkpointTensors } from "../../src/models/checkpoint.ts";
import { describeModel, type LoadedModel, loadModel } from "../../src/models/load.ts";
import type { ModelInputs } from "../../src/models/model.ts";
import { modelInputs, type TaskModel, taskLoss, taskOutput } from "../../src/models/task.ts";
import { adamw } from "../../src/optim/adam.ts";
import { cosine } from "../../src/optim/schedules.ts";
import type { Params } from "../../src/tensor/params.ts";
import type { Tensor } from "../../src/tensor/tensor.ts";
import { generate, traceDecoder } from "../../src/train/generate.ts";
import { runLocal } from "../../src/train/local.ts";
import { encode, initialState, traceStep } from "../../src/train/step.ts";
import { collateLabels } from "./causal-targets.ts";
import type { ParityLine } from "./line.ts";

interface TrainingSteps {
  readonly steps: readonly {
    readonly batch: "first" | "second";
    readonly loss: number;
    readonly gradNorm: number;
  }[];
}

/** `meta.json` of a case. */
interface Meta {
  readonly tolerance: Readonly<Record<"output" | "loss" | "last_hidden_state" | "grad" | "after", number>>;
  readonly zeroGradients: readonly string[];
  readonly training: {
    readonly lr: number;
    readonly betas: readonly [number, number];
    readonly eps: number;
    readonly weight_decay: number;
    readonly clipGradNorm: number;
    readonly schedule: string;
    readonly warmupSteps: number;
    readonly totalSteps: number;
  };
  readonly lora?: TrainingSteps;
  readonly "lora-all"?: TrainingSteps;
}

interface Greedy {
  readonly prompt: readonly number[];
  readonly generated: readonly number[];
  readonly logProbs: readonly number[];
}

/** One golden case, as far as its model is supported. */
interface Case {
  readonly name: string;
  readonly path: string;
  readonly meta: Meta;
  readonly loaded: LoadedModel;
  readonly inputs: Params;
}

/** A tensor to compare; `allowed` replaces the case's tolerance by an absolute one. */
interface Pair {
  readonly key: string;
  readonly got: Tensor | undefined;
  readonly expected: Tensor | undefined;
  readonly allowed?: number;
}

const prefix = "base_model.model.";
/** Gradients that are 0 in exact arithmetic may be this large. */
const ZERO = 1e-6;

const json = async <T>(path: string): Promise<T> => JSON.parse(await readFile(path, "utf8")) as T;
const tensorsOf = async (folder: Folder, stem: string): Promise<Params> =>
  readTensors(await openCheckpoint(folder, stem));

/** Compares the models of the goldens folder `dir` with the recorded outputs, gradients, training and decoding. */
export async function* modelCases(dir: string): AsyncIterable<ParityLine> {
  const root = join(dir, "models");
  if (!existsSync(root)) return;
  for (const entry of (await readdir(root)).sort()) {
    const path = join(root, entry);
    if (!existsSync(join(path, "config.json"))) continue;
    const name = `models/${entry}`;
    try {
      const loaded = await loadModel(await openFolder(path));
      const meta = await json<Meta>(join(path, "meta.json"));
      yield* caseLines({
        name,
        path,
        meta,
        loaded,
        inputs: await tensorsOf(await openFolder(path), "inputs"),
      });
    } catch (error) {
      const unsupported = error instanceof TributaryError && error.code === "unsupported-model";
      const note = error instanceof Error ? error.message.replace(/\s+/g, " ") : String(error);
      yield {
        name,
        what: "model",
        maxAbs: Number.NaN,
        maxRel: Number.NaN,
        tolerance: 0,
        verdict: unsupported ? "unsupported" : "failed",
        note,
      };
    }
  }
}

async function* caseLines(golden: Case): AsyncIterable<ParityLine> {
  const { path, loaded } = golden;
  const folder = await openFolder(path);
  const expected = await tensorsOf(folder, "expected");
  yield* forwardLines(golden, loaded, expected, "config.json");
  if (folder.has("config.v4.json")) {
    const older = describeModel(await json(join(path, "config.v4.json")), { task: loaded.task });
    yield* forwardLines(golden, older, expected, "config.v4.json");
  }
  const dense = denseSubset({ target: "all" }).attach(adapterBase(loaded));
  yield* lossLines(golden, [dense], startParams([dense], { seed: 0, base: loaded.weights }), expected, {
    label: "dense",
    rename: (key) => key,
  });
  for (const kind of ["lora", "lora-all"] as const) {
    if (existsSync(join(path, kind))) yield* adapterLines(golden, kind);
  }
  if (existsSync(join(path, "lora-v4"))) yield* olderNamesLine(golden);
  if (folder.has("greedy.json")) yield* greedyLines(golden, await json<Greedy>(join(path, "greedy.json")));
}

/** The inputs of a batch: "" for the first, "second." or "left." for others. */
function batchOf({ loaded, inputs }: Case, batch: string): Params {
  const feeds = new Map<string, Tensor>();
  for (const field of ["input_ids", "attention_mask", "token_type_ids", "position_ids", "pixel_values"]) {
    const value = inputs.get(batch + field);
    if (value) feeds.set(field, value);
  }
  const labels = inputs.get(`${batch}labels`);
  if (labels && loaded.task === "causal-lm") {
    for (const [key, value] of collateLabels(labels)) feeds.set(key, value);
  } else if (labels) feeds.set("labels", labels);
  return feeds;
}

function inputsOf({ model, config }: TaskModel, feeds: Params): ModelInputs {
  const optional = (["token_type_ids", "position_ids"] as const).filter((name) => feeds.has(name));
  return modelInputs(model, { optional, image: config.image });
}

async function evaluate(outputs: ReadonlyMap<string, Value>, feeds: Params): Promise<Params> {
  const session = await runtime.openSession(encode(outputs));
  try {
    return await session.run(feeds);
  } finally {
    await session.dispose();
  }
}

/** Output and last hidden state of a batch, with rows of padding at 0 as in the goldens. */
async function forward(
  taskModel: TaskModel,
  attached: readonly AttachedAdapter[],
  weights: Params,
  batch: Params,
): Promise<{ readonly output: Tensor; readonly states: Tensor }> {
  const w = adaptedScope(adapterBase(taskModel), attached);
  const inputs = inputsOf(taskModel, batch);
  const { output, states } = taskOutput(taskModel, w, inputs);
  const got = await evaluate(
    new Map([
      ["output", output],
      ["states", states],
    ]),
    new Map([...weights, ...batch]),
  );
  const mask = batch.get("attention_mask");
  const masked = (name: string): Tensor => {
    const value = got.get(name);
    if (!value) throw new Error(`parity: no output named ${name}`);
    return mask && value.shape.length === 3 ? maskRows(value, mask) : value;
  };
  return { output: masked("output"), states: masked("states") };
}

function maskRows(value: Tensor, mask: Tensor): Tensor {
  const width = value.shape[2] ?? 1;
  const data = Float32Array.from(Array.from(value.data, Number), (x, i) =>
    Number(mask.data[Math.floor(i / width)]) === 0 ? 0 : x,
  );
  return { dtype: "float32", shape: value.shape, data };
}

async function* forwardLines(
  golden: Case,
  taskModel: TaskModel,
  expected: Params,
  config: string,
): AsyncIterable<ParityLine> {
  const { name, meta, loaded, inputs } = golden;
  const outputName = loaded.task === "embeddings" ? "embeddings" : "logits";
  for (const batch of ["", "second.", "left."]) {
    if (!inputs.has(`${batch}input_ids`) && !inputs.has(`${batch}pixel_values`)) continue;
    const got = await forward(taskModel, [], loaded.weights, batchOf(golden, batch));
    for (const [what, tensor, tolerance] of [
      [`${batch}${outputName}`, got.output, meta.tolerance.output],
      [`${batch}last_hidden_state`, got.states, meta.tolerance.last_hidden_state],
    ] as const) {
      if (!expected.has(what)) continue;
      const pair = { key: what, got: tensor, expected: expected.get(what) };
      yield compare(name, `${config} ${what}`, tolerance, [pair]);
    }
  }
}

interface Labelled {
  /** What the lines are about. */
  readonly label: string;
  /** From a key of the golden file to the parameter's name. */
  readonly rename: (key: string) => string;
}

/** Losses of the batches, and the gradients of the first one's. */
async function* lossLines(
  golden: Case,
  attached: readonly AttachedAdapter[],
  params: Params,
  expected: Params,
  { label, rename }: Labelled,
): AsyncIterable<ParityLine> {
  const { name, meta, loaded } = golden;
  const names = trainableNames(attached);
  for (const batch of ["", "second."]) {
    const wanted = expected.get(`${batch}loss`);
    if (!wanted) continue;
    const feeds = batchOf(golden, batch);
    const w = adaptedScope(adapterBase(loaded), attached);
    const { sum, count } = taskLoss(loaded, w, inputsOf(loaded, feeds));
    const mean = div(sum, count);
    const outputs = new Map([["loss", mean]]);
    if (batch === "") {
      gradients(
        mean,
        names.map((each) => w.get(each)),
      ).forEach((value, i) => {
        outputs.set(`grad.${names[i]}`, value);
      });
    }
    const got = await evaluate(outputs, new Map([...loaded.weights, ...params, ...feeds]));
    const slopes = checkpointTensors(
      loaded,
      new Map([...got].map(([each, value]) => [each.replace(/^grad\./, ""), value])),
    );
    const pair = { key: "loss", got: got.get("loss"), expected: wanted };
    yield compare(name, `${label} ${batch}loss`, meta.tolerance.loss, [pair]);
    if (batch !== "") continue;
    const keys = [...expected.keys()].filter((key) => key.startsWith("grad."));
    yield compare(
      name,
      `${label} grad (${keys.length} tensors)`,
      meta.tolerance.grad,
      keys.map((key) => ({
        key,
        got: slopes.get(rename(key.slice("grad.".length))),
        expected: expected.get(key),
        ...(meta.zeroGradients.includes(key.slice("grad.".length)) ? { allowed: ZERO } : {}),
      })),
    );
  }
}

async function* adapterLines(golden: Case, kind: "lora" | "lora-all"): AsyncIterable<ParityLine> {
  const { name, path, meta, loaded } = golden;
  const folder = await openFolder(join(path, kind));
  const adapter = await loadPeftAdapter(folder, adapterBase(loaded));
  const [attached, params] = [[adapter.attached], adapter.params];
  const expected = await tensorsOf(folder, "expected");
  const outputName = loaded.task === "embeddings" ? "embeddings" : "logits";
  const weights = new Map([...loaded.weights, ...params]);

  const adapted = await forward(loaded, attached, weights, batchOf(golden, ""));
  yield compare(name, `${kind} ${outputName}`, meta.tolerance.output, [
    { key: outputName, got: adapted.output, expected: expected.get(outputName) },
  ]);
  const rename = fromPeft(adapterBase(loaded), params);
  yield* lossLines(golden, attached, params, expected, { label: kind, rename });
  yield* trainingLines(golden, kind, attached, params, expected);
  if (!folder.has("merged.safetensors")) return;
  const merged = await tensorsOf(folder, "merged");
  const folded = mergeAdapters(loaded.weights, attached, params);
  const got = checkpointTensors(loaded, folded);
  const keys = [...merged.keys()].filter((key) => key !== "output");
  yield compare(
    name,
    `${kind} merged weights (${keys.length} tensors)`,
    meta.tolerance.output,
    keys.map((key) => ({ key, got: got.get(key), expected: merged.get(key) })),
  );
  const whole = await forward(loaded, [], folded, batchOf(golden, ""));
  yield compare(name, `${kind} merged output`, meta.tolerance.output, [
    { key: "output", got: whole.output, expected: merged.get("output") },
  ]);
}

/** The adapter `lora` in the module names of Transformers 4. */
async function* olderNamesLine(golden: Case): AsyncIterable<ParityLine> {
  const { name, path, meta, loaded } = golden;
  const { attached, params } = await loadPeftAdapter(
    await openFolder(join(path, "lora-v4")),
    adapterBase(loaded),
  );
  const expected = await tensorsOf(await openFolder(join(path, "lora")), "expected");
  const { output } = await forward(
    loaded,
    [attached],
    new Map([...loaded.weights, ...params]),
    batchOf(golden, ""),
  );
  yield compare(name, "lora-v4 logits", meta.tolerance.output, [
    { key: "logits", got: output, expected: expected.get("logits") },
  ]);
}

async function* trainingLines(
  golden: Case,
  kind: "lora" | "lora-all",
  attached: readonly AttachedAdapter[],
  params: Params,
  expected: Params,
): AsyncIterable<ParityLine> {
  const { name, meta, loaded } = golden;
  const { lr, betas, eps, weight_decay, clipGradNorm, schedule, warmupSteps, totalSteps } = meta.training;
  if (schedule !== "cosine") throw new TributaryError("unsupported-model", `schedule ${schedule}`);
  const steps = meta[kind]?.steps ?? [];
  const optimizer = adamw({
    learningRate: cosine({ learningRate: lr, warmupSteps, totalSteps }),
    betas,
    epsilon: eps,
    weightDecay: weight_decay,
  });
  const w = adaptedScope(adapterBase(loaded), attached);
  const batches = { first: batchOf(golden, ""), second: batchOf(golden, "second.") };
  const loss = taskLoss(loaded, w, inputsOf(loaded, batches.first));
  const trainable = new Map(trainableNames(attached).map((each) => [each, w.get(each)] as const));
  const graphs = traceStep({ loss, trainable, optimizer, clipNorm: clipGradNorm });
  const session = await runtime.openSession(graphs.step);
  const halves = async (): Promise<never> => {
    throw new Error("parity: these steps are not accumulated");
  };
  const start = new Map([...params].filter(([each]) => trainable.has(each)));
  const outcome = await runLocal(
    { step: session, accumulate: halves, apply: halves },
    {
      base: loaded.weights,
      start,
      optimizerState: initialState(
        optimizer,
        new Map([...start].map(([each, { dtype, shape }]) => [each, { dtype, shape }])),
      ),
      steps: steps.map(({ batch }) => [batches[batch]]),
      scalars: steps.map((_, i) => optimizer.scalars(i + 1)),
    },
  );
  await session.dispose();
  const rename = fromPeft(adapterBase(loaded), params);
  const keys = [...expected.keys()].filter((key) => key.startsWith("after."));
  yield compare(
    name,
    `${kind} after ${steps.length} AdamW steps (${keys.length} tensors)`,
    meta.tolerance.after,
    keys.map((key) => ({
      key,
      got: outcome.params.get(rename(key.slice("after.".length))),
      expected: expected.get(key),
    })),
  );
  const vector = (values: readonly number[]): Tensor => ({
    dtype: "float64",
    shape: [values.length],
    data: Float64Array.from(values),
  });
  yield compare(name, `${kind} training losses`, Math.max(meta.tolerance.loss, meta.tolerance.after), [
    {
      key: "loss",
      got: vector(outcome.steps.map(({ loss: mean }) => mean)),
      expected: vector(steps.map(({ loss: mean }) => mean)),
    },
  ]);
  yield compare(name, `${kind} gradient norms`, Math.max(meta.tolerance.grad, meta.tolerance.after), [
    {
      key: "norm",
      got: vector(outcome.steps.map(({ norm }) => norm)),
      expected: vector(steps.map(({ gradNorm }) => gradNorm)),
    },
  ]);
}

async function* greedyLines({ name, loaded, meta }: Case, greedy: Greedy): AsyncIterable<ParityLine> {
  const { graph, ...decoder } = traceDecoder(loaded);
  const session = await runtime.openSession(graph);
  const ids: number[] = [];
  const logProbs: number[] = [];
  const options = { prompt: greedy.prompt, maxTokens: greedy.generated.length };
  for await (const token of generate(decoder, session, loaded.weights, options)) {
    ids.push(token.id);
    logProbs.push(token.logProb());
  }
  await session.dispose();
  const vector = (values: readonly number[]): Tensor => ({
    dtype: "float64",
    shape: [values.length],
    data: Float64Array.from(values),
  });
  yield compare(name, `greedy tokens (${greedy.generated.length})`, 0, [
    { key: "tokens", got: vector(ids), expected: vector(greedy.generated) },
  ]);
  yield compare(name, "greedy log-probabilities", meta.tolerance.output, [
    { key: "logProbs", got: vector(logProbs), expected: vector(greedy.logProbs) },
  ]);
}

/** PEFT's keys as names of parameters. */
function fromPeft(base: AdapterBase, params: Params): (key: string) => string {
  const names = new Map([...params.keys()].map((name) => [`${prefix}${peftName(base, name)}`, name]));
  return (key) => names.get(key) ?? key;
}

/** The line of a comparison: `max|got - expected| <= tolerance * max|expected|`, tensor by tensor. */
function compare(name: string, what: string, tolerance: number, pairs: readonly Pair[]): ParityLine {
  let [maxAbs, maxRel] = [0, 0];
  const wrong: string[] = [];
  for (const { key, got, expected, allowed } of pairs) {
    if (!got || !expected || got.shape.join() !== expected.shape.join()) {
      wrong.push(
        `${key}: got ${got ? `[${got.shape}]` : "nothing"}, expected ${expected ? `[${expected.shape}]` : "nothing"}`,
      );
      continue;
    }
    const [difference, scale] = distance(got, expected);
    maxAbs = Math.max(maxAbs, difference);
    if (allowed === undefined) maxRel = Math.max(maxRel, scale === 0 ? difference : difference / scale);
    if (!(difference <= (allowed ?? tolerance * scale))) wrong.push(`${key}: ${difference} of ${scale}`);
  }
  if (pairs.length === 0) wrong.push("nothing to compare");
  return {
    name,
    what,
    maxAbs,
    maxRel,
    tolerance,
    verdict: wrong.length === 0 ? "passed" : "failed",
    ...(wrong.length === 0 ? {} : { note: wrong.slice(0, 3).join("; ") }),
  };
}

/** The largest difference, NaN where a number is none, and the largest expected size. */
function distance(got: Tensor, expected: Tensor): [difference: number, scale: number] {
  let [difference, scale] = [0, 0];
  for (let i = 0; i < expected.data.length; i++) {
    const [x, y] = [Number(got.data[i]), Number(expected.data[i])];
    const d = Math.abs(x - y);
    difference = Number.isNaN(d) || Number.isNaN(difference) ? Number.NaN : Math.max(difference, d);
    scale = Math.max(scale, Math.abs(y));
  }
  return [difference, scale];
}
