import { describe, expect, it } from "vitest";
import { checkJob } from "../../src/job/check.ts";
import { costShapes, type MethodCost, methodCosts, type NoCost } from "../../src/job/cost.ts";
import type { LoadedModel } from "../../src/models/load.ts";
import { strategyEntries } from "../../src/strategies/catalogue/entries.ts";
import { bertJson, llamaJson, tinyModel } from "../models/tiny.ts";
import { rawJob } from "./job.ts";

function loaded(json: typeof llamaJson): LoadedModel {
  const { taskModel, weights } = tinyModel(json);
  return { ...taskModel, weights, json, initialized: [], ignored: [] };
}

const models = { llama: loaded(llamaJson), bert: loaded(bertJson) };

interface Setting {
  readonly model?: keyof typeof models;
  readonly job?: Readonly<Record<string, unknown>>;
  readonly silos?: number;
  readonly perRound?: number;
  readonly names?: readonly string[];
}

function optionsOf({ model = "llama", job = {}, silos = 5, perRound = 3, names }: Setting) {
  return {
    job: checkJob(rawJob(job)),
    model: models[model],
    clients: Array.from({ length: silos }, (_, i) => ({ id: `silo-${i}`, numExamples: 4 + 3 * i })),
    perRound,
    fullBytes: 4 * 12_345,
    ...(names && { names }),
  };
}

const costsOf = (setting: Setting): (MethodCost | NoCost)[] => [...methodCosts(optionsOf(setting))];
const counted = (setting: Setting): MethodCost[] => costsOf(setting).filter((one) => "server" in one);
const refused = (setting: Setting): string[] =>
  costsOf(setting)
    .filter((one) => "reason" in one)
    .map(({ name }) => name);

/** What the closed forms say beside what was serialised, where the two differ. */
function differences(costs: readonly MethodCost[]): unknown[] {
  return costs.flatMap(({ name, exchanges, server: { state } }) => [
    ...exchanges
      .filter(({ down, up }) => down.closed !== down.sent || up.closed !== up.sent)
      .map((exchange) => ({ name, ...exchange })),
    ...(state.closed === state.sent ? [] : [{ name, state }]),
  ]);
}

const lora = (more: object = {}) => ({ kind: "lora", rank: 3, alpha: 6, ...more });

const settings: Readonly<Record<string, Setting>> = {
  "a language model with pairs on all layers": { job: { adapter: lora() } },
  "a classifier whose head is trained beside the pairs": {
    model: "bert",
    job: {
      task: "sequence-classification",
      data: { path: "train.jsonl", classes: 3 },
      adapter: lora({ target: ["query", "value"] }),
    },
  },
  "unequal ranks": { job: { adapter: lora({ rank: 4, ranks: [1, 4, 2] }), strategy: { name: "flexlora" } } },
  "ranks beyond the width of a layer": {
    job: { adapter: lora({ rank: 25, target: ["k_proj", "down_proj"] }) },
  },
  "one client": { silos: 1, perRound: 1, job: { adapter: lora() } },
  "two clients of rank 1": { silos: 2, perRound: 2, job: { adapter: lora({ rank: 1 }) } },
  DoRA: { job: { adapter: lora({ dora: true }) } },
};

describe("what methods cost", () => {
  it.each(Object.entries(settings))(
    "by closed form is what they send and keep, to the byte: %s",
    (_, setting) => {
      const costs = counted(setting);
      expect(costs.length).toBeGreaterThanOrEqual(20);
      expect(differences(costs)).toEqual([]);
      expect(costs.every(({ agrees }) => agrees)).toBe(true);
    },
  );

  it("covers every method that a job can name, all of them for pairs of one rank", () => {
    const names = costsOf({ job: { adapter: lora({ target: ["q_proj"] }) } }).map(({ name }) => name);
    expect(names).toEqual(strategyEntries.map(({ name }) => name));
    expect(refused({ job: { adapter: lora({ target: ["q_proj"] }) } })).toEqual([]);
  });

  it("agrees for weights themselves, and says which methods need pairs", () => {
    const adapter = { kind: "dense", target: ["up_proj.weight", "lm_head.weight"] };
    const setting = { job: { adapter, strategy: { name: "fedavg" } } };
    expect(differences(counted(setting))).toEqual([]);
    const left = refused(setting);
    expect(left).toContain("fedex-lora");
    expect(left).not.toContain("fedftg");
  });

  it.each<readonly [string, object]>([
    ["fedex-lora", { residualRank: 2 }],
    ["fedloru", { mergeEvery: 2, reset: false }],
    ["mfedloru", { mergeEvery: 2, innerRanks: [2, 1, 3] }],
    ["mfedloru", { innerRanks: { "silo-1": 3 } }],
    ["fedhm", { ratios: [1, 2.5, 4] }],
    ["fedbuff", { maxStaleness: 0 }],
    ["slora", { sparseRounds: 2, density: 0.3 }],
    ["slora", { sparseRounds: 1, density: 0.3 }],
    ["slora", { sparseRounds: 0 }],
    ["fedlease", { warmupRounds: 1, maxExperts: 3 }],
    ["fl-tac", { tasks: 5 }],
    ["flasc", { downDensity: 0.9, upDensity: 0.01 }],
    ["flasc", { downDensity: 0.02, upDensity: 1 }],
    ["flasc-adamw", { downDensity: 0.001, upDensity: 0.5 }],
  ])("follows the options of the job: %s %o", (name, options) => {
    const setting = { job: { adapter: lora(), strategy: { name, ...options } }, names: [name] };
    const costs = counted(setting);
    expect(costs.map((cost) => cost.name)).toEqual([name]);
    expect(differences(costs)).toEqual([]);
  });

  it("relates bytes to full weights both ways, and adds up the server", () => {
    const [cost] = counted({ job: { adapter: lora() }, names: ["fedex-lora"] });
    const { pairs, weights } = costShapes(optionsOf({ job: { adapter: lora() } }));
    expect(cost).toMatchObject({ bytesUp: 4 * pairs, settles: 2 });
    expect(cost?.shareOfFull).toBeCloseTo(((cost?.bytesDown ?? 0) + 4 * pairs) / (2 * 4 * 12_345), 12);
    expect(cost?.server).toMatchObject({ kept: 4 * pairs, updates: 3 * 4 * pairs, base: 2 * 4 * weights });
    expect(cost?.server.total).toBe(4 * (4 * pairs + 2 * weights));
  });

  it("counts no B on the way down in the first round of FLASC, and places by the shorter of two ways", () => {
    const job = {
      adapter: lora({ target: ["q_proj"] }),
      strategy: { name: "flasc", downDensity: 0.9, upDensity: 0.03 },
    };
    const [cost] = counted({ job, names: ["flasc"] });
    const { modules, pairs } = costShapes(optionsOf({ job }));
    const ofA = modules * 3 * Number(llamaJson.hidden_size); // r in
    const bitmap = Math.ceil(pairs / 8);
    expect(cost?.exchanges[0]?.down.sent).toBe(4 * ofA + bitmap);
    expect(cost?.bytesUp).toBe(6 * Math.floor(0.03 * pairs));
  });

  it("counts every rehearsed round of every client, headers apart", () => {
    const [cost] = counted({ job: { adapter: lora() }, names: ["flora"] });
    expect(cost?.exchanges.map(({ round }) => round)).toEqual([1, 1, 1, 2, 2, 2]);
    const [first, , , later] = cost?.exchanges ?? [];
    expect(first?.down).toMatchObject({ closed: 0, sent: 0 });
    expect(later?.down.sent).toBe(3 * (later?.up.sent ?? 0));
    expect(later?.up.header).toBeGreaterThan(0);
  });
});
