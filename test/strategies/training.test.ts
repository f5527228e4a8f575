import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { adapterBase } from "../../src/adapters/adapter.ts";
import { denseSubset } from "../../src/adapters/dense-subset.ts";
import { lora } from "../../src/adapters/lora.ts";
import type { StateTree, Strategy } from "../../src/federation/strategy.ts";
import { adamw } from "../../src/optim/adam.ts";
import { sgd } from "../../src/optim/sgd.ts";
import { ceLora } from "../../src/strategies/ce-lora.ts";
import { coordinateMedian } from "../../src/strategies/coordinate-median.ts";
import { fedAvgM } from "../../src/strategies/fedavgm.ts";
import { fedBuff } from "../../src/strategies/fedbuff.ts";
import { fedHm } from "../../src/strategies/fedhm.ts";
import { fedlease } from "../../src/strategies/fedlease.ts";
import { fedLoru } from "../../src/strategies/fedloru.ts";
import { fedsaLora, fedsaVera } from "../../src/strategies/fedsa-lora.ts";
import { flTac } from "../../src/strategies/fl-tac.ts";
import { flasc, flascAdamw } from "../../src/strategies/flasc.ts";
import { flora } from "../../src/strategies/flora.ts";
import { frLora } from "../../src/strategies/frlora.ts";
import { fsLora } from "../../src/strategies/fslora.ts";
import { geometricMedian } from "../../src/strategies/geometric-median.ts";
import { hetLora } from "../../src/strategies/hetlora.ts";
import { multiKrum } from "../../src/strategies/krum.ts";
import { loraFair } from "../../src/strategies/lora-fair.ts";
import { mFedLoru } from "../../src/strategies/mfedloru.ts";
import { pFedLoru } from "../../src/strategies/pfedloru.ts";
import { scaffold } from "../../src/strategies/scaffold.ts";
import { slora } from "../../src/strategies/slora.ts";
import { trimmedMean } from "../../src/strategies/trimmed-mean.ts";
import type { Pool } from "../../src/train/pool.node.ts";
import { openTinyPool, tiny, tinyRun } from "./tiny-run.ts";

const base = adapterBase(tiny.taskModel);
const target = ["q_proj", "v_proj", "up_proj"];
const dense = () => [denseSubset({ target }).attach(base)];

interface Setting {
  readonly strategy: Strategy;
  readonly ranks?: readonly number[];
  /** Trains the weights themselves, by gradient descent. */
  readonly dense?: boolean;
}

const settings: Readonly<Record<string, Setting>> = {
  SCAFFOLD: { strategy: scaffold(), ranks: [0, 0, 0], dense: true },
  "FedBuff, up to two late": { strategy: fedBuff({ maxStaleness: 2 }), ranks: [0, 0, 0], dense: true },
  "the coordinate median": { strategy: coordinateMedian() },
  "the trimmed mean": { strategy: trimmedMean({ beta: 0.34 }) },
  "Multi-Krum": { strategy: multiKrum({ keep: 2 }) },
  "the geometric median": { strategy: geometricMedian() },
  FedAvgM: { strategy: fedAvgM({ beta: 0.5 }), ranks: [0, 0, 0], dense: true },
  "FLoRA, unequal ranks": { strategy: flora(), ranks: [1, 4, 2] },
  FedLoRU: { strategy: fedLoru({ mergeEvery: 2 }) },
  FRLoRA: { strategy: frLora() },
  "LoRA-FAIR": { strategy: loraFair() },
  "HetLoRA, unequal ranks": { strategy: hetLora({ gamma: 0.5 }), ranks: [1, 4, 2] },
  "FedHM, unequal widths": { strategy: fedHm({ ratios: [1, 1.5, 1.25] }) },
  pFedLoRU: { strategy: pFedLoru({ mergeEvery: 2 }) },
  "FSLoRA, unequal ranks": { strategy: fsLora(), ranks: [1, 4, 2] },
  FLASC: { strategy: flasc({ downDensity: 0.5, upDensity: 0.5 }) },
  "FLASC, AdamW on the server": {
    strategy: flascAdamw({ downDensity: 1, upDensity: 0.5, serverLearningRate: 0.1 }),
  },
  "FedSA-LoRA": { strategy: fedsaLora() },
  "FedSA-VeRA": { strategy: fedsaVera() },
  SLoRA: { strategy: slora({ sparseRounds: 2, density: 0.2 }) },
  "CE-LoRA": { strategy: ceLora() },
  "FL-TAC": { strategy: flTac({ tasks: 2 }) },
  FedLEASE: { strategy: fedlease({ warmupRounds: 2 }) },
  "mFedLoRU, unequal inner ranks": { strategy: mFedLoru({ mergeEvery: 2, innerRanks: [1, 2] }) },
};

describe("training a tiny Llama", () => {
  // Workers keep the base that a strategy has changed, so each run has its own.
  let pool: Pool;
  beforeEach(async () => {
    pool = await openTinyPool();
  });
  afterEach(async () => {
    await pool.close();
  });

  it.each(Object.entries(settings))("by %s lowers the clients' loss", async (_, setting) => {
    const { strategy, ranks } = setting;
    const adapters = strategy.adapters ?? ((options) => [lora(options)]);
    const { rounds } = await tinyRun<StateTree>({
      pool,
      strategy,
      attach: (rank) =>
        setting.dense ? dense() : adapters({ rank, alpha: 4, target }).map((one) => one.attach(base)),
      optimizer: () =>
        setting.dense ? sgd({ learningRate: () => 0.2 }) : adamw({ learningRate: () => 0.03 }),
      rounds: 4,
      steps: 6,
      ...(ranks && { ranks }),
    });
    const losses = rounds.map(({ loss = Number.NaN }) => loss);
    expect(rounds.every(({ accepted }) => accepted.length === 3)).toBe(true);
    expect(losses.at(-1)).toBeLessThan(0.97 * (losses[0] ?? 0));
  });
});
