import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { type AttachedAdapter, adapterBase } from "../../src/adapters/adapter.ts";
import { denseSubset } from "../../src/adapters/dense-subset.ts";
import { lora } from "../../src/adapters/lora.ts";
import type { StateTree, Strategy } from "../../src/federation/strategy.ts";
import type { TrainingPart, TrainingParts } from "../../src/federation/training-parts.ts";
import { adamw } from "../../src/optim/adam.ts";
import { galoreAdamW } from "../../src/optim/galore.ts";
import type { Optimizer } from "../../src/optim/optimizer.ts";
import { nodeEnv } from "../../src/storage/node-env.ts";
import { trainingPartFile } from "../../src/storage/training-part.node.ts";
import { fedFtg } from "../../src/strategies/fedftg.ts";
import { fedIt } from "../../src/strategies/fedit.ts";
import { pFedLoru } from "../../src/strategies/pfedloru.ts";
import { openTinyPool, tiny, tinyRun } from "../strategies/tiny-run.ts";

const base = adapterBase(tiny.taskModel);
const target = ["q_proj", "up_proj"];
let folder = "";
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "tributary-parts-"));
});
afterAll(() => rm(folder, { recursive: true }));

interface Setting {
  readonly strategy: Strategy;
  readonly rank: number;
  attach(rank: number): AttachedAdapter[];
  optimizer(): Optimizer;
}

const loraOf =
  (strategy: Strategy) =>
  (rank: number): AttachedAdapter[] =>
    (strategy.adapters ?? ((options) => [lora(options)]))({ rank, alpha: 4, target }).map((one) =>
      one.attach(base),
    );
const adam = (): Optimizer => adamw({ learningRate: () => 0.03 });

const settings: Readonly<Record<string, Setting>> = {
  FedIT: { strategy: fedIt(), rank: 2, attach: loraOf(fedIt()), optimizer: adam },
  "pFedLoRU, which trains in two phases": {
    strategy: pFedLoru({ mergeEvery: 2 }),
    rank: 2,
    attach: loraOf(pFedLoru({ mergeEvery: 2 })),
    optimizer: adam,
  },
  "FedFTG, whose projectors are refreshed between steps": {
    strategy: fedFtg(),
    rank: 0,
    attach: () => [denseSubset({ target: ["up_proj"] }).attach(base)],
    optimizer: () => galoreAdamW({ learningRate: 0.05, rank: 2, gap: 3, scale: 1 }),
  },
};

describe("a client that was cut off in its training", () => {
  it.each(Object.entries(settings))("goes on from every step to the same bytes: %s", async (_, setting) => {
    const run = async (parts?: TrainingParts): Promise<unknown[]> => {
      const pool = await openTinyPool();
      try {
        const { rounds } = await tinyRun<StateTree>({
          pool,
          strategy: setting.strategy,
          attach: setting.attach,
          optimizer: setting.optimizer,
          rounds: 2,
          steps: 5,
          ranks: [setting.rank, setting.rank],
          ...(parts && { parts }),
        });
        return rounds.map(({ state, loss, metrics, accepted }) => ({ state, loss, metrics, accepted }));
      } finally {
        await pool.close();
      }
    };
    const whole = await run();
    const kept = new Map<string, TrainingPart[]>();
    const cut = await run({
      everyMs: 0,
      env: nodeEnv(),
      load: async () => undefined,
      async save(part) {
        kept.set(part.assignment, [...(kept.get(part.assignment) ?? []), part]);
      },
    });
    expect(cut).toEqual(whole);
    const most = Math.max(...[...kept.values()].map((parts) => parts.length));
    expect(most).toBeGreaterThanOrEqual(4);
    for (let at = 0; at < most; at++) {
      const loaded: string[] = [];
      const resumed = await run({
        everyMs: 0,
        env: nodeEnv(),
        async load(assignment) {
          const part = kept.get(assignment)?.[at];
          if (!part) return undefined;
          // Through the file, as a process that starts again would find it.
          const file = trainingPartFile(join(folder, `${assignment}.safetensors`));
          await file.save(part);
          loaded.push(assignment);
          expect(await file.load("another")).toBeUndefined();
          return file.load(assignment);
        },
        save: async () => undefined,
      });
      expect(resumed).toEqual(whole);
      expect(loaded.length).toBeGreaterThan(0);
    }
  });
});
