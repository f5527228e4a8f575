import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { adaptedScope, adapterBase, startParams } from "../../src/adapters/adapter.ts";
import { dora, doraName } from "../../src/adapters/dora.ts";
import { loraNames } from "../../src/adapters/lora.ts";
import { mergeAdapters } from "../../src/adapters/merge.ts";
import { modelInputs, taskOutput } from "../../src/models/task.ts";
import { adamw } from "../../src/optim/adam.ts";
import { fedIt } from "../../src/strategies/fedit.ts";
import { matmul, matrixOf } from "../../src/tensor/matrix.ts";
import type { Params } from "../../src/tensor/params.ts";
import { stream } from "../../src/tensor/random.ts";
import { float32, type Tensor, tensor, zeros } from "../../src/tensor/tensor.ts";
import type { Pool } from "../../src/train/pool.node.ts";
import { bertJson, llamaJson, tinyModel } from "../models/tiny.ts";
import { evaluate, farthest } from "../nn/evaluate.ts";
import { openTinyPool, tiny, tinyRun } from "../strategies/tiny-run.ts";

const int64 = (values: readonly number[]): Tensor =>
  tensor("int64", [2, 4], BigInt64Array.from(values, BigInt));
const tokens = new Map([
  ["input_ids", int64([3, 9, 27, 1, 8, 8, 2, 0])],
  ["attention_mask", int64([1, 1, 1, 1, 1, 1, 1, 0])],
]);

function disturbed(params: Params): Params {
  return new Map(
    [...params].map(([name, { shape, data }]) => {
      const noise = new Float32Array(data.length);
      stream({ seed: 12, purpose: name }).fillNormal(noise, 0, 0.3);
      return [
        name,
        float32(
          shape,
          noise.map((x, i) => x + Number(data[i])),
        ),
      ] as const;
    }),
  );
}

const models = {
  "a Llama": { ...tinyModel(llamaJson), target: ["q_proj", "down_proj"] },
  "a BERT, whose layers have biases": { ...tinyModel(bertJson), target: ["query", "intermediate.dense"] },
};

describe.each(Object.entries(models))("DoRA on %s", (_, { taskModel, weights, target }) => {
  const base = adapterBase(taskModel);
  const attached = [dora({ rank: 3, alpha: 6, target }).attach(base)];
  const start = startParams(attached, { seed: 3, base: weights });

  async function outputOf(params: Params, adapters: typeof attached): Promise<readonly number[]> {
    const inputs = modelInputs(taskModel.model);
    const { output } = taskOutput(taskModel, adaptedScope(base, adapters), inputs);
    const found = await evaluate({ output }, new Map([...params, ...tokens]));
    return found.output ?? [];
  }

  it("leaves the model as it is at the start", async () => {
    const plain = await outputOf(weights, []);
    expect(farthest(await outputOf(new Map([...weights, ...start]), attached), plain)).toBeLessThan(1e-5);
  });

  it("merged equals applied", async () => {
    const params = disturbed(start);
    const merged = mergeAdapters(weights, attached, params);
    const [applied, plain] = [
      await outputOf(new Map([...weights, ...params]), attached),
      await outputOf(merged, []),
    ];
    const scale = Math.max(...plain.map(Math.abs));
    expect(farthest(applied, plain) / scale).toBeLessThan(1e-5);
  });

  it("gives the rows of the merged weight the length of their magnitude, in the direction of W + s B A", () => {
    const params = disturbed(start);
    const merged = mergeAdapters(weights, attached, params);
    const chosen = [...params.keys()].flatMap(
      (name) => name.match(/^(.*)\.lora_magnitude_vector$/)?.[1] ?? [],
    );
    expect(chosen.length).toBe(4);
    for (const module of chosen) {
      const { loraA, loraB } = loraNames(module);
      const at = (name: string, of: Params): Tensor => of.get(name) ?? zeros("float32", [1, 1]);
      const product = matmul(matrixOf(at(loraB, params)), matrixOf(at(loraA, params)));
      const w = matrixOf(at(`${module}.weight`, weights));
      const got = matrixOf(at(`${module}.weight`, merged));
      for (let i = 0; i < w.rows; i++) {
        const v = Array.from({ length: w.cols }, (_, j) => {
          const k = i * w.cols + j;
          return (w.data[k] ?? 0) + 2 * (product.data[k] ?? 0);
        });
        const m = Number(at(doraName(module), params).data[i]);
        v.forEach((x, j) => {
          expect(got.data[i * w.cols + j]).toBeCloseTo((m * x) / Math.hypot(...v), 5);
        });
      }
    }
  });
});

describe("DoRA in a federation", () => {
  let pool: Pool;
  beforeAll(async () => {
    pool = await openTinyPool();
  });
  afterAll(() => pool.close());

  it("trains factors and magnitudes, which are averaged alike", async () => {
    const attach = (rank: number) => [
      dora({ rank, alpha: 4, target: "all-linear" }).attach(adapterBase(tiny.taskModel)),
    ];
    const { rounds, initial, global } = await tinyRun({
      pool,
      strategy: fedIt(),
      attach,
      optimizer: () => adamw({ learningRate: 0.02 }),
      rounds: 4,
    });
    expect(rounds.at(-1)?.loss).toBeLessThan((rounds[0]?.loss ?? 0) - 0.2);
    const moved = (ending: string): boolean =>
      [...initial].some(
        ([name, value]) =>
          name.endsWith(ending) &&
          farthest([...value.data].map(Number), [...(global.get(name)?.data ?? [])].map(Number)) > 1e-4,
      );
    expect(["lora_A.weight", "lora_B.weight", "lora_magnitude_vector"].map(moved)).toEqual([
      true,
      true,
      true,
    ]);
  });
});
