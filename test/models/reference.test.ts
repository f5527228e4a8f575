import { readFileSync } from "node:fs";
import { describe, expect, it } from "vitest";
import { runtime } from "#ort";
import { adaptedScope, adapterBase } from "../../src/adapters/adapter.ts";
import { gradients } from "../../src/graph/gradients.ts";
import { div } from "../../src/graph/ops.ts";
import type { Value } from "../../src/graph/value.ts";
import { describeModel } from "../../src/models/load.ts";
import { modelInputs, type TaskModel, taskLoss, taskOutput } from "../../src/models/task.ts";
import type { Params } from "../../src/tensor/params.ts";
import { float32, sizeOf, type Tensor, tensor } from "../../src/tensor/tensor.ts";
import { generate, traceDecoder } from "../../src/train/generate.ts";
import { encode } from "../../src/train/step.ts";
import { farthest } from "../nn/evaluate.ts";

interface Case {
  readonly config: Readonly<Record<string, unknown>>;
  readonly logits: readonly number[];
  readonly loss: number;
  /** Products of the gradients with generated numbers. */
  readonly gradients: Readonly<Record<string, number>>;
  readonly greedy?: readonly number[];
  readonly logProbs?: readonly number[];
}

const { ids, cases } = JSON.parse(
  readFileSync(new URL("./reference/numbers.json", import.meta.url), "utf8"),
) as { readonly ids: readonly number[][]; readonly cases: Readonly<Record<string, Case>> };

/** The generator of reference/make.py. */
function* numbers(seed: number): Generator<number, never> {
  let state = BigInt(seed);
  while (true) {
    state = (1103515245n * state + 12345n) % 2147483648n;
    yield Number(state) / 2147483648 - 0.5;
  }
}

function filled(
  shape: readonly number[],
  source: Iterator<number, never>,
  offset = 0,
  scale = 0.8,
): Tensor<"float32"> {
  return float32(
    shape,
    Float32Array.from({ length: sizeOf(shape) }, () => offset + scale * source.next().value),
  );
}

function weightsOf({ model, config, task }: TaskModel): Params {
  const source = numbers(1);
  const parameters = [...model.parameters(config, task)].sort(([a], [b]) => (a < b ? -1 : 1));
  return new Map(
    parameters.map(([name, { shape }]) => [
      name,
      filled(shape, source, shape.length === 1 && name.endsWith("weight") ? 0.5 : 0),
    ]),
  );
}

const int64 = (shape: readonly number[], values: readonly number[]): Tensor =>
  tensor("int64", shape, BigInt64Array.from(values, BigInt));

/** The batch of the reference, and the logits that it holds. */
function batchOf({ config, task }: TaskModel): { readonly feeds: Params; readonly rows: number } {
  if (task === "image-classification") {
    const { channels = 0, height = 0, width = 0 } = config.image ?? {};
    const pixels = filled([2, channels, height, width], numbers(3), 0, 2);
    return {
      feeds: new Map([
        ["pixel_values", pixels],
        ["labels", int64([2], [2, 0])],
      ]),
      rows: 1,
    };
  }
  const length = ids[0]?.length ?? 0;
  const positions = ids.flatMap((row, b) => row.slice(1).map((_, t) => b * length + t));
  return {
    feeds: new Map([
      ["input_ids", int64([ids.length, length], ids.flat())],
      ["attention_mask", int64([ids.length, length], ids.flat().fill(1))],
      ["label_positions", int64([positions.length], positions)],
      [
        "labels",
        int64(
          [positions.length],
          ids.flatMap((row) => row.slice(1)),
        ),
      ],
    ]),
    rows: length,
  };
}

async function run(outputs: ReadonlyMap<string, Value>, feeds: Params): Promise<Params> {
  const session = await runtime.openSession(encode(outputs));
  try {
    return await session.run(feeds);
  } finally {
    await session.dispose();
  }
}

const list = (value: Tensor | undefined): number[] => Array.from(value?.data ?? [], Number);

/** Float32 against float64. */
const TOLERANCE = 2e-5;

describe.each(Object.entries(cases))("%s as Transformers computes it", (_, golden) => {
  const taskModel = describeModel(golden.config);
  const weights = weightsOf(taskModel);
  const { feeds, rows } = batchOf(taskModel);
  const inputs = modelInputs(taskModel.model, { image: taskModel.config.image });

  it("gives its logits", async () => {
    const w = adaptedScope(adapterBase(taskModel));
    const { output } = taskOutput(taskModel, w, inputs);
    const got = list(
      (await run(new Map([["output", output]]), new Map([...weights, ...feeds]))).get("output"),
    );
    const width = got.length / (2 * rows);
    const last = got.filter((_, i) => rows === 1 || Math.floor(i / width) % rows >= rows - 2);
    expect(farthest(last, golden.logits)).toBeLessThan(TOLERANCE);
  });

  it("gives its loss and gradients", async () => {
    const w = adaptedScope(adapterBase(taskModel));
    const { sum, count } = taskLoss(taskModel, w, inputs);
    const loss = div(sum, count);
    const names = Object.keys(golden.gradients).sort();
    expect(names).toEqual([...weights.keys()].sort());
    const slopes = gradients(
      loss,
      names.map((name) => w.get(name)),
    );
    const outputs = new Map([
      ["loss", loss],
      ...slopes.map((slope, i) => [`slope ${names[i]}`, slope] as const),
    ]);
    const got = await run(outputs, new Map([...weights, ...feeds]));
    expect(Math.abs(Number(got.get("loss")?.data[0]) - golden.loss)).toBeLessThan(TOLERANCE);
    const source = numbers(2);
    for (const name of names) {
      const slope = list(got.get(`slope ${name}`));
      const terms = slope.map((x) => x * Math.fround(0.8 * source.next().value));
      const along = terms.reduce((total, x) => total + x, 0);
      const size = terms.reduce((total, x) => total + Math.abs(x), 1);
      const wrong = Math.abs(along - (golden.gradients[name] ?? Number.NaN));
      expect(wrong / size, name).toBeLessThan(TOLERANCE);
    }
  });

  const { greedy, logProbs = [] } = golden;
  if (greedy === undefined) return;
  it("writes its tokens through the cache", async () => {
    const { graph, ...decoder } = traceDecoder(taskModel);
    const session = await runtime.openSession(graph);
    const got: { id: number; logProb(): number }[] = [];
    const options = { prompt: ids[0]?.slice(0, 4) ?? [], maxTokens: greedy.length };
    for await (const token of generate(decoder, session, weights, options)) got.push(token);
    await session.dispose();
    expect(got.map(({ id }) => id)).toEqual(greedy);
    expect(
      farthest(
        got.map((token) => token.logProb()),
        logProbs,
      ),
    ).toBeLessThan(TOLERANCE);
  });
});
