import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { adapterBase } from "../../src/adapters/adapter.ts";
import { denseSubset } from "../../src/adapters/dense-subset.ts";
import { adamw } from "../../src/optim/adam.ts";
import { galoreAdamW } from "../../src/optim/galore.ts";
import type { Optimizer } from "../../src/optim/optimizer.ts";
import { memoryBlobs, memoryJournal } from "../../src/storage/memory.ts";
import { fedAvg } from "../../src/strategies/fedavg.ts";
import { fedFtg } from "../../src/strategies/fedftg.ts";
import type { Params } from "../../src/tensor/params.ts";
import type { Pool } from "../../src/train/pool.node.ts";
import { initialState } from "../../src/train/step.ts";
import { openTinyPool, tiny, tinyRun } from "./tiny-run.ts";

const attach = () => [denseSubset({ target: ["up_proj"] }).attach(adapterBase(tiny.taskModel))];
const optimizer = () => galoreAdamW({ learningRate: 0.05, rank: 2, gap: 6, scale: 1 });

let pool: Pool;
beforeAll(async () => {
  pool = await openTinyPool();
});
afterAll(() => pool.close());

const scalars = (params: Params): number =>
  [...params.values()].reduce((sum, { data }) => sum + data.length, 0);

describe("FedFTG", () => {
  it("trains the up-projections alone and sends nothing else", async () => {
    const store = { journal: memoryJournal(), blobs: memoryBlobs() };
    const { rounds, initial } = await tinyRun({
      pool,
      strategy: fedFtg(),
      attach,
      optimizer,
      rounds: 6,
      ranks: [0, 0, 0],
      options: { store },
    });
    expect([...initial.keys()].every((name) => name.endsWith("up_proj.weight"))).toBe(true);
    expect(rounds.at(-1)?.loss).toBeLessThan((rounds[0]?.loss ?? 0) - 0.2);
    const size = scalars(initial); // F_up
    for (const { bytesUp, bytesDown } of rounds) {
      expect(bytesDown).toBe(3 * 4 * size);
      expect(bytesUp - bytesDown).toBeLessThan(3 * 256); // names and shapes
    }
  });

  it("with one client that keeps its optimizer is training without a stop, bit for bit", async () => {
    const run = (rounds: number, steps: number) =>
      tinyRun({ pool, strategy: fedFtg(), attach, optimizer, rounds, steps, ranks: [0] });
    const [stopped, whole] = [await run(3, 4), await run(1, 12)];
    expect(stopped.global).toEqual(whole.global);
    const forgetful = await tinyRun({
      pool,
      strategy: fedFtg({ afterAggregation: "fresh" }),
      attach,
      optimizer,
      rounds: 3,
      ranks: [0],
    });
    expect(forgetful.global).not.toEqual(whole.global);
  });

  it("counts a client's own steps, not those of the rounds that it missed", async () => {
    const counted: number[] = [];
    const counting = (): Optimizer => {
      const inner = optimizer();
      return {
        ...inner,
        scalars(step) {
          counted.push(step);
          return inner.scalars(step);
        },
      };
    };
    const { rounds } = await tinyRun({
      pool,
      strategy: fedFtg(),
      attach,
      optimizer: counting,
      rounds: 4,
      ranks: [0, 0, 0],
      options: { participation: 0.34 },
    });
    const most = Math.max(
      ...["c0", "c1", "c2"].map((id) => rounds.filter((r) => r.clients.includes(id)).length),
    );
    expect(most).toBeLessThan(4);
    expect(Math.max(...counted)).toBe(4 * most);
  });

  it("needs a fraction of the optimizer memory of the same weights under AdamW", () => {
    const weights = new Map([["up_proj.weight", { dtype: "float32", shape: [512, 192] } as const]]);
    const bytes = (of: Optimizer) => 4 * scalars(initialState(of, weights));
    expect(bytes(adamw({ learningRate: 1 }))).toBe(4 * 2 * 512 * 192);
    expect(bytes(galoreAdamW({ learningRate: 1, rank: 8 }))).toBe(4 * (8 * 192 + 2 * 8 * 512));
    expect(fedFtg().declares.weightedSum).toBe(fedAvg().declares.weightedSum);
  });
});
