// A strategy of your own: the coordinate-wise median of the clients' adapters. Run: npx tsx examples/04-own-strategy.ts
import { type ClientRef, float32, mapParams, type Params, type Strategy, type Update } from "tributary";
import { fedIt } from "tributary/strategies/fedit";

/**
 * Median: one client that sends nonsense does not move the result further than the others reach.
 *
 * Yin et al., ICML 2018, Algorithm 1. https://arxiv.org/abs/1803.01498
 */
function median(): Strategy<Params> {
  return {
    ...fedIt(),
    name: "median",
    paper: "Yin et al., ICML 2018, Algorithm 1, https://arxiv.org/abs/1803.01498",
    declares: { uniformWeights: true },
    aggregate(before, updates) {
      const state = mapParams(before, ({ shape, data }, name) => {
        const sent = updates.map(({ params }) => params.get(name)?.data ?? data);
        const at = (i: number): number => middle(sent.map((values) => Number(values[i])));
        return float32(
          shape,
          Array.from({ length: data.length }, (_, i) => at(i)),
        );
      });
      return { state };
    },
  };
}

function middle(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  const half = sorted.length / 2;
  const [low, high] = [sorted[Math.ceil(half) - 1] ?? Number.NaN, sorted[Math.floor(half)] ?? Number.NaN];
  return (low + high) / 2;
}

// Two clients agree, the third is broken.
const ref = (id: string): ClientRef => ({ id, rank: 1, scaling: 1 });
const factors = (value: number): Params =>
  new Map([
    ["layer.lora_A.weight", float32([1, 3], [value, value, value])],
    ["layer.lora_B.weight", float32([2, 1], [value, -value])],
  ]);
const updates: Update[] = [1, 1.5, 1e6].map((value, i) => ({
  client: ref(`client-${i}`),
  numExamples: 10,
  params: factors(value),
}));
const context = { round: 1, seed: 1, numClients: 3 };
for (const strategy of [fedIt(), median()]) {
  const { state } = strategy.aggregate(strategy.init(factors(0), []), updates, context);
  console.log(strategy.name.padEnd(6), [...(state.get("layer.lora_A.weight")?.data ?? [])].join(" "));
}
