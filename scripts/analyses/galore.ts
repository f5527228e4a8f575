import { byteSize } from "../../src/tensor/dtype.ts";
import type { Params } from "../../src/tensor/params.ts";
import { watchPresidents } from "./federation.ts";
import type { Findings } from "./output.ts";
import { mean, spread } from "./statistics.ts";

const SEEDS = [1, 2, 3];

// Learning rates, and the interval of refreshing, are the best of a search with seed 11 for each of the four.
const adamw = (learningRate: number) => ({ name: "adamw", learningRate, weightDecay: 0 });
const galore = (learningRate: number, rank: number, gap: number) => ({
  name: "galore-adamw",
  learningRate,
  rank,
  gap,
});

interface Setting {
  readonly name: string;
  readonly pair: string;
  readonly changes: Readonly<Record<string, unknown>>;
}

const upProjections = { adapter: { kind: "dense", target: ["up_proj"] }, rounds: 4, clientsPerRound: 6 };
const everything = {
  adapter: { kind: "dense", target: "all" },
  strategy: { name: "centralized" },
  clientsPerRound: 1,
  rounds: 1,
};
const federated = { steps: 4, batchSize: 8, clipNorm: 1 };
const pooled = { steps: 48, batchSize: 4, clipNorm: 1 };
const settings: readonly Setting[] = [
  {
    name: "FedAvg, AdamW",
    pair: "all up_proj, federated",
    changes: {
      ...upProjections,
      strategy: { name: "fedavg" },
      local: { ...federated, optimizer: adamw(1.2e-2) },
    },
  },
  {
    name: "FedFTG, GaLore",
    pair: "all up_proj, federated",
    changes: {
      ...upProjections,
      strategy: { name: "fedftg" },
      local: { ...federated, optimizer: galore(1.2e-1, 40, 8) },
    },
  },
  {
    name: "AdamW",
    pair: "all weights, centralized",
    changes: { ...everything, local: { ...pooled, optimizer: adamw(7e-4) } },
  },
  {
    name: "GaLore",
    pair: "all weights, centralized",
    changes: { ...everything, local: { ...pooled, optimizer: galore(1e-2, 32, 20) } },
  },
];

interface Outcome {
  readonly setting: Setting;
  readonly seed: number;
  readonly perplexity: number;
  readonly stateBytes: number;
}

/** Quality and optimizer memory of GaLore beside AdamW on the same weights. */
export async function galoreMemory(): Promise<Findings> {
  const outcomes: Outcome[] = [];
  for (const setting of settings) {
    for (const seed of SEEDS) {
      let stateBytes = 0;
      const { evaluation } = await watchPresidents(
        { ...setting.changes, seed, evaluation: { split: "test", batchSize: 16, maxExamples: 96 } },
        {
          optimizer(state) {
            stateBytes = Math.max(stateBytes, bytesOf(state));
          },
        },
      );
      outcomes.push({ setting, seed, perplexity: evaluation.perplexity ?? Number.NaN, stateBytes });
    }
  }
  const of = (setting: Setting): readonly Outcome[] => outcomes.filter((one) => one.setting === setting);
  const plainOf = ({ pair }: Setting): Setting | undefined => settings.find((one) => one.pair === pair);
  return {
    title: "GaLore beside AdamW",
    text: `The bundled base on the presidents' silos, ${SEEDS.length} seeds, the same number of steps for both of a pair; GaLore of rank 40 refreshed every 8 steps of a client, of rank 32 every 20 steps in one place. Learning rates are the best of a search with seed 11. Optimizer memory is what the state tensors of one client hold after its last round, projectors included. Perplexity is that of 96 held-out passages.`,
    values: {
      columns: ["weights", "setting", "seed", "perplexity", "optimizer bytes"],
      rows: outcomes.map((one) => [
        one.setting.pair,
        one.setting.name,
        one.seed,
        one.perplexity,
        one.stateBytes,
      ]),
    },
    summary: {
      columns: ["weights", "setting", "perplexity", "spread over seeds", "optimizer MB", "times smaller"],
      rows: settings.map((setting) => {
        const runs = of(setting);
        const bytes = Math.max(...runs.map((one) => one.stateBytes));
        const plain = plainOf(setting);
        const plainBytes = plain ? Math.max(...of(plain).map((one) => one.stateBytes)) : bytes;
        const perplexities = runs.map((one) => one.perplexity);
        return [
          setting.pair,
          setting.name,
          mean(perplexities),
          spread(perplexities),
          bytes / 1e6,
          plainBytes / bytes,
        ];
      }),
    },
    figures: [
      {
        name: "perplexity",
        title: "Held-out perplexity",
        text: "One point a seed; the bar is the mean.",
        chart: {
          kind: "rows",
          x: { title: "perplexity" },
          rows: settings.map((setting) => ({
            name: `${setting.name}, ${setting.pair}`,
            values: of(setting).map((one) => one.perplexity),
          })),
        },
      },
    ],
  };
}

function bytesOf(state: Params): number {
  return [...state.values()].reduce((sum, { dtype, data }) => sum + data.length * byteSize(dtype), 0);
}
