import { federate } from "../../src/federation/federate.ts";
import { openTraining } from "../../src/job/assemble.ts";
import { checkJob } from "../../src/job/check.ts";
import { centralized } from "../../src/strategies/centralized.ts";
import { svd } from "../../src/tensor/linalg.ts";
import { matrixOf } from "../../src/tensor/matrix.ts";
import { type Params, select, sub } from "../../src/tensor/params.ts";
import { presidentsText, watchPresidents } from "./federation.ts";
import type { Findings } from "./output.ts";
import { energyOf, ranksOf } from "./spectrum.ts";
import { layerOf, mean } from "./statistics.ts";

const SEGMENTS = 8;
const STEPS = 8;
const LAYER = 2;
const RANKS = [1, 4, 8, 16, 32, 64, 128];
const training = {
  strategy: { name: "centralized" },
  adapter: { kind: "dense", target: "all" },
  clientsPerRound: 1,
};

interface Row {
  readonly step: number;
  readonly module: string;
  readonly effective: number;
  readonly energy: readonly number[];
}

/** How much of the gradient lies in its leading directions while all weights are trained. */
export async function gradient(): Promise<Findings> {
  // A step of plain descent at rate 1 is the gradient; 32 examples in four batches make one.
  const probeJob = checkJob({
    ...(await presidentsText()),
    ...training,
    local: { optimizer: { name: "sgd", learningRate: 1 }, steps: 1, batchSize: 8, accumulate: 4 },
  });
  const rows: Row[] = [];
  await watchPresidents(
    {
      ...training,
      rounds: SEGMENTS,
      local: {
        optimizer: { name: "adamw", learningRate: 5e-4, weightDecay: 0 },
        steps: STEPS,
        batchSize: 8,
        clipNorm: 1,
      },
    },
    {
      async committed(state, assembly) {
        const { pool, trainer } = await openTraining(probeJob, assembly);
        try {
          const before = state.global();
          let after: Params = before;
          const probe = federate({
            strategy: centralized(),
            initial: before,
            clients: assembly.clients,
            trainer,
            rounds: 1,
            seed: 77,
            base: assembly.base,
            evaluate: async ({ global }) => {
              after = global();
              return {};
            },
          });
          for await (const _ of probe);
          const chosen = (name: string): boolean => layerOf(name) === LAYER && /_proj\.weight$/.test(name);
          for (const [name, tensor] of sub(select(before, chosen), select(after, chosen))) {
            const { singularValues } = svd(matrixOf(tensor));
            rows.push({
              step: state.round * STEPS,
              module: name.replace(/\.weight$/, ""),
              effective: ranksOf(singularValues).effective,
              energy: RANKS.map((rank) => energyOf(singularValues, rank)),
            });
          }
        } finally {
          await pool.close();
        }
      },
      optimizer: () => undefined,
    },
  );
  const steps = [...new Set(rows.map(({ step }) => step))];
  const at = (step: number, value: (row: Row) => number): number =>
    mean(rows.filter((row) => row.step === step).map(value));
  return {
    title: "Rank of the gradient over training",
    text: `All weights of the bundled base trained by AdamW on the pooled silos. After every ${STEPS} steps the gradient of 32 held-in passages is decomposed for the seven matrices of layer ${LAYER}: the share of its squared norm in the r leading directions, of 192 (64 for k_proj and v_proj).`,
    values: {
      columns: ["step", "module", "effective rank", ...RANKS.map((rank) => `share in ${rank}`)],
      rows: rows.map((row) => [row.step, row.module, row.effective, ...row.energy]),
    },
    summary: {
      columns: ["step", "effective rank", ...RANKS.map((rank) => `share in ${rank}`)],
      rows: steps.map((step) => [
        step,
        at(step, (row) => row.effective),
        ...RANKS.map((_, i) => at(step, (row) => row.energy[i] ?? Number.NaN)),
      ]),
    },
    figures: [
      {
        name: "energy",
        title: "Share of the gradient in its leading directions",
        text: "Mean over seven matrices, one line for each number of directions.",
        chart: {
          kind: "lines",
          x: { title: "step", whole: true },
          y: { title: "share of the squared norm" },
          lines: RANKS.map((rank, i) => ({
            name: `r = ${rank}`,
            points: steps.map((step) => [step, at(step, (row) => row.energy[i] ?? Number.NaN)] as const),
          })),
        },
      },
    ],
  };
}
