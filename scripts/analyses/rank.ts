import { loraModules } from "../../src/federation/low-rank.ts";
import type { Update } from "../../src/federation/strategy.ts";
import { meanProduct } from "../../src/strategies/flexlora.ts";
import { watchPresidents } from "./federation.ts";
import type { Findings } from "./output.ts";
import { accumulated, energyOf, type Ranks, ranksOf } from "./spectrum.ts";
import { layerOf, mean } from "./statistics.ts";

const RANK = 8;
const SCALING = 2;
const ROUNDS = 5;
const LAYER = 2;

interface Row extends Ranks {
  readonly what: string;
  readonly count: number;
  readonly module: string;
  /** Share of the squared norm that the best approximation of the adapter's rank keeps. */
  readonly kept: number;
}

/** Ranks of the mean of the clients' products by the number of clients, and of the accumulated update by round. */
export async function rank(): Promise<Findings> {
  const rows: Row[] = [];
  const methods = {
    FedIT: { name: "fedit" },
    FedLoRU: { name: "fedloru", mergeEvery: 1 },
    FRLoRA: { name: "frlora" },
  };
  for (const [what, strategy] of Object.entries(methods)) {
    await watchPresidents(
      {
        rounds: ROUNDS,
        strategy,
        local: {
          optimizer: { name: "adamw", learningRate: 3e-3, weightDecay: 0 },
          steps: 4,
          batchSize: 4,
          clipNorm: 1,
        },
        adapter: { kind: "lora", rank: RANK, alpha: SCALING * RANK, target: "all-linear" },
      },
      {
        updates(updates, { round }) {
          if (what === "FedIT" && round === ROUNDS) rows.push(...inflation(updates));
        },
        committed(state) {
          if (state.round === 0) return;
          for (const [module, values] of accumulated(state, SCALING, isChosen))
            rows.push({ what, count: state.round, module, ...ranksOf(values), kept: energyOf(values, RANK) });
        },
      },
    );
  }
  const of = (what: string, count: number, key: "numerical" | "effective" | "kept"): number =>
    mean(rows.filter((row) => row.what === what && row.count === count).map((row) => row[key]));
  const series = [...new Set(rows.map((row) => row.what))];
  const counts = (what: string): number[] =>
    [...new Set(rows.filter((row) => row.what === what).map((row) => row.count))].sort((a, b) => a - b);
  const lines = (key: "numerical" | "effective", names: readonly string[]) =>
    names.map((what) => ({
      name: what,
      points: counts(what).map((count) => [count, of(what, count, key)] as const),
    }));
  return {
    title: "Rank inflation and the ceiling of rank",
    text: `The presidents' silos, rank ${RANK}, the seven modules of layer ${LAYER}. Mean products: the mean of the products B A that the clients of FedIT's last round sent, of the first 1, 2, ... 8 clients. Accumulated: what a method has added to the pretrained weight after 1, 2, ... ${ROUNDS} rounds. Numerical rank counts singular values above 10^-6 of the largest; effective rank is the exponential of their entropy; kept is the share of the squared norm inside the best approximation of rank ${RANK}.`,
    values: {
      columns: ["series", "clients or round", "module", "numerical rank", "effective rank", "kept"],
      rows: rows.map((row) => [row.what, row.count, row.module, row.numerical, row.effective, row.kept]),
    },
    summary: {
      columns: ["series", "clients or round", "numerical rank", "effective rank", "kept"],
      rows: series.flatMap((what) =>
        counts(what).map((count) => [
          what,
          count,
          of(what, count, "numerical"),
          of(what, count, "effective"),
          of(what, count, "kept"),
        ]),
      ),
    },
    figures: [
      {
        name: "mean-products",
        title: "Rank of the mean of products",
        text: "Numerical rank grows by the rank of the adapter with every client until the module is full.",
        chart: {
          kind: "lines",
          x: { title: "clients", whole: true },
          y: { title: "rank" },
          lines: [
            { name: "numerical", points: lines("numerical", ["mean products"])[0]?.points ?? [] },
            { name: "effective", points: lines("effective", ["mean products"])[0]?.points ?? [] },
          ],
        },
      },
      {
        name: "accumulated",
        title: "Numerical rank of the accumulated update",
        text: "FedIT stays at the rank of its adapter; methods that merge go beyond it.",
        chart: {
          kind: "lines",
          x: { title: "round", whole: true },
          y: { title: "numerical rank" },
          lines: lines("numerical", Object.keys(methods)),
        },
      },
      {
        name: "accumulated-effective",
        title: "Effective rank of the accumulated update",
        text: "How many directions carry the update, by the entropy of its singular values.",
        chart: {
          kind: "lines",
          x: { title: "round", whole: true },
          y: { title: "effective rank" },
          lines: lines("effective", Object.keys(methods)),
        },
      },
    ],
  };
}

const isChosen = (module: string): boolean => layerOf(module) === LAYER;

function inflation(updates: readonly Update[]): Row[] {
  const modules = loraModules(updates[0]?.params ?? new Map()).filter(isChosen);
  return updates.flatMap((_, k) => {
    const first = updates.slice(0, k + 1);
    const weights = first.map(({ numExamples }) => numExamples);
    return modules.map((module): Row => {
      const { singularValues } = meanProduct(first, weights, module, 0);
      return {
        what: "mean products",
        count: k + 1,
        module,
        ...ranksOf(singularValues),
        kept: energyOf(singularValues, RANK),
      };
    });
  });
}
