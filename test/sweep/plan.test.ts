import { readdirSync, readFileSync } from "node:fs";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { readJobText, readSection } from "../../src/job/load.node.ts";
import { checkSweep } from "../../src/sweep/check.ts";
import { checkDrafts, draftsOf } from "../../src/sweep/drafts.ts";
import { planSweep } from "../../src/sweep/plan.node.ts";
import { sweepJsonSchema } from "../../src/sweep/schema.ts";
import type { SweepPlan } from "../../src/sweep/sweep.ts";
import { rawJob } from "../job/job.ts";

let folder = "";
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "sweep-plan-"));
  const rows = Array.from({ length: 30 }, (_, i) => JSON.stringify({ text: `${i}`, silo: `s${i % 6}` }));
  await writeFile(join(folder, "train.jsonl"), rows.join("\n"));
  await writeFile(join(folder, "job.yaml"), JSON.stringify(rawJob()));
});
afterAll(() => rm(folder, { recursive: true }));

const sound = {
  job: "job.yaml",
  methods: { FedIT: { strategy: "fedit" }, "FLoRA r=2,4": { strategy: "flora", adapter: { ranks: [2, 4] } } },
  seeds: [3, 5],
  budget: { rounds: 5 },
};

async function planned(sweep: object, workers = 2): Promise<SweepPlan> {
  await writeFile(join(folder, "words.yaml"), JSON.stringify(sweep));
  return planSweep({ path: "words.yaml", cwd: folder, workers });
}

describe("a sweep file", () => {
  it("becomes a job for each method, partition and seed, seed by seed", async () => {
    const partitions = { "IID 3": { kind: "iid", clients: 3 }, halves: { kind: "linear", clients: 2 } };
    const { name, folder: out, runs, metric } = await planned({ ...sound, partitions });
    expect([name, out, metric]).toEqual(["words", join(folder, "runs", "words-sweep"), "perplexity"]);
    expect(runs.map(({ id }) => id)).toEqual([
      "fedit/iid-3/seed-3",
      "flora-r-2-4/iid-3/seed-3",
      "fedit/halves/seed-3",
      "flora-r-2-4/halves/seed-3",
      "fedit/iid-3/seed-5",
      "flora-r-2-4/iid-3/seed-5",
      "fedit/halves/seed-5",
      "flora-r-2-4/halves/seed-5",
    ]);
    expect(runs.at(-1)?.job).toMatchObject({
      seed: 5,
      rounds: 5,
      strategy: { name: "flora" },
      adapter: { kind: "lora", rank: 4, ranks: [2, 4] },
      partition: { kind: "linear", clients: 2 },
      model: join(folder, "base"),
      out: join(out, "runs", "flora-r-2-4/halves/seed-5"),
      workers: 1,
      threads: 1,
    });
  });

  it("has any metric of its task measured in every run, and no other job changed", async () => {
    const metrics = async (sweep: object): Promise<unknown> =>
      (await planned({ ...sound, ...sweep })).runs.map(({ job }) => job.evaluation.metrics);
    expect(await metrics({ metric: "rougeL" })).toEqual(Array(4).fill(["rougeL"]));
    const named = { set: { evaluation: { metrics: ["bleu", "rougeL"] } } };
    expect(await metrics({ ...named, metric: "rougeL" })).toEqual(Array(4).fill(["bleu", "rougeL"]));
    expect(await metrics({ ...named, metric: "acc" })).toEqual(Array(4).fill(["bleu", "rougeL", "acc"]));
    expect(await metrics({ metric: "accuracy" })).toEqual(Array(4).fill(undefined));
  });

  it("leaves the cores to a run that goes alone, and to a job that asks for them", async () => {
    const [alone] = (await planned(sound, 1)).runs;
    expect(alone?.job).toMatchObject({ workers: "auto", threads: "auto" });
    const [asked] = (await planned({ ...sound, set: { threads: 2 } })).runs;
    expect(asked?.job).toMatchObject({ workers: 1, threads: 2 });
  });

  it("gives bytes and steps to the budget of the jobs, whose rounds remain the most", async () => {
    const [bytes] = (await planned({ ...sound, budget: { bytes: "1.5 MB" } })).runs;
    expect(bytes?.job).toMatchObject({ rounds: 3, budget: { bytes: 1_500_000 } });
    const [steps] = (await planned({ ...sound, set: { rounds: 9 }, budget: { steps: 40 } })).runs;
    expect(steps?.job).toMatchObject({ rounds: 9, budget: { steps: 40 } });
  });

  it("makes the rounds of pooled data as long as those of all clients together", async () => {
    const pooled = { pooled: { strategy: "centralized" } };
    const natural = { partition: { kind: "natural", field: "silo" } };
    const local = { optimizer: { name: "sgd", learningRate: 1 } };
    const plan = async (set: object, methods: object = pooled): Promise<unknown> =>
      (await planned({ ...sound, methods, set: { ...natural, ...set } })).runs[0]?.job;
    expect(await plan({ local: { ...local, steps: 4 }, clientsPerRound: 5 })).toMatchObject({
      local: { steps: 20 },
      participation: 1,
    });
    // Half of six silos, each with one pass over its records: half a pass over all.
    expect(await plan({ local, participation: 0.5 })).toMatchObject({ local: { epochs: 0.5 } });
    expect(await plan({ local }, { pooled: { strategy: "centralized", local: { steps: 7 } } })).toMatchObject(
      { local: { steps: 7 } },
    );
  });
});

const wrong: readonly (readonly [what: string, sweep: object, message: string | RegExp])[] = [
  [
    "an unknown key",
    { methodz: {} },
    "methodz: got an unknown key with a section with no keys, expected a known key; did you mean methods? (words.yaml:1)",
  ],
  ["no methods", { methods: {} }, "methods: got a section with no keys, expected at least one label"],
  [
    "two budgets",
    { budget: { rounds: 1, steps: 2 } },
    "budget: got a section with rounds, steps, expected one of rounds, bytes and steps",
  ],
  [
    "bytes without a unit that is known",
    { budget: { bytes: "5 MiB" } },
    'budget.bytes: got "5 MiB", expected a whole number from 1 or text like',
  ],
  ["no seeds", { seeds: [] }, "seeds: got an empty list, expected a list of whole numbers"],
  ["a seed twice", { seeds: [1, 2, 1] }, "seeds: got 1 twice, expected each seed once"],
  [
    "labels that make one folder",
    { methods: { "A b": {}, "a-B": {} } },
    'methods.a-B: got "a-B", expected a label that differs from "A b"',
  ],
  [
    "a label without letters",
    { partitions: { "?": { kind: "iid", clients: 2 } } },
    'partitions.?: got "?", expected a label with a letter or a digit',
  ],
  [
    "a seed in a method",
    { methods: { A: { seed: 4 } } },
    "methods.A.seed: got 4, expected the seeds of the sweep; remove it",
  ],
  [
    "other rounds than the budget",
    { set: { rounds: 4 } },
    "set.rounds: got 4, expected budget.rounds; remove it",
  ],
  [
    "a measure that the task has not",
    { metric: "pearson" },
    /^metric: got pearson, expected one of perplexity, loss, accuracy, rouge1, .* for the task causal-lm; correct words.yaml:1$/m,
  ],
  ["a measure that nothing has", { metric: "blue" }, 'metric: got "blue", expected one of rouge1,'],
  [
    "an unknown strategy of a method",
    { methods: { A: { strategy: "fedti" } } },
    'methods.A.strategy.name: got "fedti", expected one of centralized',
  ],
  [
    "a wrong key of a method",
    { methods: { "a=0.5": { adapter: { rnk: 1 } } } },
    "methods.a=0.5.adapter.rnk: got an unknown key with 1",
  ],
  [
    "a wrong key of a partition",
    { partitions: { few: { kind: "iid", clients: 0 } } },
    "partitions.few.clients: got 0, expected a whole number from 1; correct words.yaml:1",
  ],
  [
    "a partition without what it needs",
    { partitions: { skew: { kind: "dirichlet", clients: 2 } } },
    "partitions.skew.alpha: got nothing, expected a number above 0",
  ],
  [
    "a partition in a method beside partitions",
    { partitions: { a: { kind: "iid", clients: 2 } }, methods: { A: { partition: { kind: "files" } } } },
    "methods.A.partition: got a section with kind, expected the partitions of the sweep",
  ],
  [
    "a method that does not fit the job",
    { set: { adapter: { ranks: [1, 2] } } },
    "set.adapter.ranks: got unequal ranks, expected equal ranks for the strategy fedit",
  ],
];

describe("a wrong sweep file", () => {
  it.each(wrong)("with %s is refused with its place", async (_, changes, message) => {
    await expect(planned({ ...sound, ...changes })).rejects.toThrow(message);
  });

  it("tells a fault of the job once, and where it stands", async () => {
    await writeFile(join(folder, "bad.yaml"), "schema: 1\nrounds: many\n");
    const message = await planned({ ...sound, job: "bad.yaml" }).catch(String);
    expect(String(message).match(/^.*rounds: /gm)).toBeNull();
    expect(String(message).match(/model: got nothing/g)).toHaveLength(1);
    await expect(planned({ ...sound, budget: { steps: 1 }, job: "bad.yaml" })).rejects.toThrow(
      'rounds: got "many", expected a whole number from 1; correct bad.yaml:2',
    );
  });

  it("names a job that is not there, and a list in place of keys", async () => {
    await expect(planned({ ...sound, job: "nowhere.yaml" })).rejects.toThrow(
      "nowhere.yaml: no such job file",
    );
    await expect(planned([])).rejects.toThrow("expected keys such as job, methods, seeds and budget");
    await expect(planSweep({ path: "nowhere.yaml", cwd: folder })).rejects.toThrow(
      "nowhere.yaml: no such file",
    );
  });
});

describe("schema/sweep.schema.json", () => {
  it("is what npm run schema writes", () => {
    const committed: unknown = JSON.parse(
      readFileSync(new URL("../../schema/sweep.schema.json", import.meta.url), "utf8"),
    );
    expect(committed).toEqual(JSON.parse(JSON.stringify(sweepJsonSchema())));
  });
});

const examples = fileURLToPath(new URL("../../examples", import.meta.url));
const files = readdirSync(examples, { recursive: true, encoding: "utf8" }).filter((name) =>
  // Other examples need models and data that a reader has to fetch.
  /^presidents\/(sweep|methods)\.yaml$/.test(name),
);

const further = readdirSync(examples, { recursive: true, encoding: "utf8" }).filter(
  (name) => /\/(sweep|methods|dirichlet|starts)\.yaml$/.test(name) && !files.includes(name),
);

it.each(further)(
  "the keys of the sweep examples/%s are sound, and of every job that it makes",
  async (file) => {
    const { value, placeOf } = await readSection(join(examples, file), folder, "a sweep");
    const sweep = checkSweep(value, placeOf);
    const job = await readJobText(join(examples, file, "..", sweep.job), folder);
    const { methods, partitions = { one: {} }, seeds } = sweep;
    const jobs = checkDrafts(draftsOf(sweep, job.value), placeOf);
    const kinds = Object.keys(methods).length * Object.keys(partitions).length;
    expect(jobs.length).toBe(kinds * seeds.length);
  },
);

it.each(files)("the sweep examples/%s is sound", async (file) => {
  const plan = await planSweep({ path: join(examples, file), cwd: folder });
  expect(plan.name).toBe(file.replace(/\/(sweep\.yaml)?/, "-").replace(/(-|\.yaml)$/, ""));
  expect(plan.runs.length).toBeGreaterThan(1);
});
