import { copyFile, mkdir, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { adapterBase, startParams } from "../../src/adapters/adapter.ts";
import { lora } from "../../src/adapters/lora.ts";
import { evaluate } from "../../src/cli/commands/eval.ts";
import { generate } from "../../src/cli/commands/generate.ts";
import { inspect } from "../../src/cli/commands/inspect.ts";
import { openFolder } from "../../src/formats/files.node.ts";
import { type LoraConfigFile, readPeftAdapter, writePeftAdapter } from "../../src/formats/peft.ts";
import { writeSafetensors } from "../../src/formats/safetensors.ts";
import { jobDifferences } from "../../src/job/differences.ts";
import type { JobEvent } from "../../src/job/events.ts";
import type { Job } from "../../src/job/job.ts";
import { loadJob, readResolvedJob, resolvedJobName } from "../../src/job/load.node.ts";
import { runJob } from "../../src/job/run.ts";
import type { TaskModel } from "../../src/models/task.ts";
import { mapParams } from "../../src/tensor/params.ts";
import { tensor } from "../../src/tensor/tensor.ts";
import { printed } from "../cli/printed.ts";
import { llamaJson, tinyModel } from "../models/tiny.ts";
import { type FakeHub, fakeHub } from "./server.ts";

const base = fileURLToPath(new URL("../../examples/presidents/base", import.meta.url));
const commit = "1".repeat(40);
const encode = (text: string): Uint8Array => new TextEncoder().encode(text);
const environment = ["HF_ENDPOINT", "HF_HUB_CACHE", "HF_HUB_OFFLINE"] as const;
const before = new Map(environment.map((name) => [name, process.env[name]]));
let root = "";
let hub: FakeHub;

beforeAll(async () => {
  root = await mkdtemp(join(tmpdir(), "hub-job-"));
  const json = { ...llamaJson, vocab_size: 4096, max_position_embeddings: 64 };
  const rows = Array.from({ length: 24 }, (_, i) => `${JSON.stringify({ text: `The ${i} people.` })}\n`);
  const { taskModel, weights } = tinyModel(json);
  hub = await fakeHub([
    {
      kind: "model",
      repo: "org/tiny",
      commit,
      files: {
        "config.json": encode(JSON.stringify(json)),
        "model.safetensors": writeSafetensors(weights),
        "tokenizer.json": await readFile(join(base, "tokenizer.json")),
        "tokenizer_config.json": await readFile(join(base, "tokenizer_config.json")),
      },
    },
    { kind: "model", repo: "org/lora", commit, files: adapterFiles(taskModel) },
    {
      kind: "model",
      repo: "org/pickled-lora",
      commit,
      files: { "adapter_config.json": encode("{}"), "adapter_model.bin": encode("pickle") },
    },
    { kind: "dataset", repo: "org/set", commit, files: { "train.jsonl": encode(rows.join("")) } },
  ]);
  process.env.HF_ENDPOINT = hub.endpoint;
  process.env.HF_HUB_CACHE = join(root, "cache");
  await writeFile(
    join(root, "job.yaml"),
    `schema: 1
model: org/tiny
data: { path: "hf://datasets/org/set/train.jsonl", maxLength: 16 }
partition: { kind: iid, clients: 2 }
adapter: { kind: lora, rank: 2, target: [q_proj] }
strategy: { name: fedit }
local: { optimizer: { name: adamw, learningRate: 1e-3 }, steps: 1, batchSize: 2 }
rounds: 1
evaluation: { maxExamples: 2 }
workers: 1
`,
  );
});
afterAll(async () => {
  for (const [name, value] of before) {
    if (value === undefined) delete process.env[name];
    else process.env[name] = value;
  }
  await hub.close();
  await rm(root, { recursive: true });
});

/** A PEFT adapter of rank 2 on the queries, whose every number is 1/64. */
function adapterFiles(model: TaskModel): Readonly<Record<string, Uint8Array>> {
  const attached = lora({ rank: 2, alpha: 4, target: ["q_proj"] }).attach(adapterBase(model));
  const params = mapParams(startParams([attached], { seed: 1, base: new Map() }), ({ shape, data }) =>
    tensor("float32", shape, new Float32Array(data.length).fill(1 / 64)),
  );
  const config: LoraConfigFile = {
    rank: 2,
    alpha: 4,
    useRslora: false,
    dropout: 0,
    target: ["q_proj"],
    modulesToSave: [],
    rankPattern: new Map(),
    alphaPattern: new Map(),
    fanInFanOut: false,
  };
  return Object.fromEntries(writePeftAdapter({ config, params }));
}

describe("a job over a model and data of the hub", () => {
  it("fetches both, and keeps the commits that it began with when a branch moves", async () => {
    const events: JobEvent[] = [];
    const { job } = await loadJob({ path: join(root, "job.yaml"), cwd: root });
    expect(job.model).toBe("hf://org/tiny@main");
    const { folder } = await runJob(job, { onEvent: (event) => void events.push(event) });
    const fetching = events.filter((event) => event.type === "fetching");
    expect(
      fetching.some(({ name, done, total }) => name.startsWith("hf://org/tiny@") && done === total),
    ).toBe(true);

    const resolved = await readFile(join(folder, resolvedJobName), "utf8");
    expect(resolved).toContain(`model: hf://org/tiny@${commit}`);
    expect(resolved).toContain(`path: hf://datasets/org/set@${commit}/train.jsonl`);
    const config = JSON.parse(await readFile(join(folder, "adapter", "adapter_config.json"), "utf8"));
    expect(config.base_model_name_or_path).toBe("org/tiny");

    hub.move("2".repeat(40));
    const asked = hub.requests.length;
    const longer = await loadJob({
      path: join(root, "job.yaml"),
      cwd: root,
      flags: [{ path: "rounds", texts: ["2"] }],
    });
    const kept = await readResolvedJob(folder);
    const differing = (now: Job) => (kept ? jobDifferences(kept, now).map(({ path }) => path) : []);
    expect(differing(longer.job)).toEqual(["threads"]);
    const other = `hf://org/tiny@${"3".repeat(40)}`;
    expect(differing({ ...longer.job, model: other })).toContain("model");
    const { rounds } = await runJob(longer.job);
    expect(rounds).toBe(2);
    expect(hub.requests.length).toBe(asked);
  });

  it("starts from an adapter there, at the commit that it began with", async () => {
    hub.move(commit);
    const { job } = await loadJob({
      path: join(root, "job.yaml"),
      cwd: root,
      flags: [
        { path: "adapter.from", texts: ["org/lora"] },
        { path: "adapter.alpha", texts: ["4"] },
        { path: "local.optimizer.learningRate", texts: ["1e-6"] },
        { path: "out", texts: ["runs/from"] },
      ],
    });
    expect(job.adapter).toMatchObject({ from: "hf://org/lora@main" });
    const { folder } = await runJob(job);
    const resolved = await readFile(join(folder, resolvedJobName), "utf8");
    expect(resolved).toContain(`from: hf://org/lora@${commit}`);
    const { params } = await readPeftAdapter(await openFolder(join(folder, "adapter")));
    // One step of AdamW at this rate moves no number by more.
    for (const { data } of params.values())
      for (const value of data) expect(Math.abs(Number(value) - 1 / 64)).toBeLessThan(1.1e-6);
    const text = await printed(root, evaluate, "runs/from", "--json", "--resamples", "0");
    const { base, tuned } = JSON.parse(text);
    expect(base.loss).toBeCloseTo(tuned.loss, 4);
  });

  it("goes by the folder where one of that name is there", async () => {
    await rm(join(root, "org"), { recursive: true, force: true });
    await mkdir(join(root, "org", "tiny"), { recursive: true });
    await copyFile(join(base, "config.json"), join(root, "org", "tiny", "config.json"));
    const { job } = await loadJob({ path: join(root, "job.yaml"), cwd: root });
    expect(job.model).toBe(join(root, "org", "tiny"));
    await rm(join(root, "org"), { recursive: true });
  });

  it("says what is wrong with a name before anything runs", async () => {
    const { job } = await loadJob({
      path: join(root, "job.yaml"),
      cwd: root,
      flags: [
        { path: "model", texts: ["org/none"] },
        { path: "out", texts: ["runs/none"] },
      ],
    });
    await expect(runJob(job)).rejects.toMatchObject({ code: "hub-unauthorized" });
  });
});

describe("commands", () => {
  it("inspect a model or an adapter of the hub, whichever a name is", async () => {
    const model = JSON.parse(await printed(root, inspect, "org/tiny", "--json"));
    expect(model).toMatchObject({ kind: "llama model", vocabulary: 4096 });
    const adapter = JSON.parse(await printed(root, inspect, "org/lora", "--json"));
    expect(adapter).toMatchObject({ kind: "LoRA adapter (PEFT)", rank: 2, alpha: 4 });
    const data = JSON.parse(await printed(root, inspect, "hf://datasets/org/set/train.jsonl", "--json"));
    expect(data).toMatchObject({ kind: "data", records: 24 });
    await expect(printed(root, inspect, "org/pickled-lora")).rejects.toMatchObject({
      code: "pickled-weights",
      message: expect.stringContaining("has its weights in adapter_model.bin"),
    });
  });

  it("evaluate a model of the hub, and continue a text with it", async () => {
    const data = ["--data", "hf://datasets/org/set/train.jsonl", "--limit", "2", "--json"];
    const snapshot = join(root, "cache", "models--org--tiny", "snapshots", commit);
    const loss = async (model: string): Promise<number> =>
      JSON.parse(await printed(root, evaluate, model, ...data)).base.loss;
    expect(await loss("org/tiny")).toBeCloseTo(await loss(snapshot), 12);
    const text = await printed(root, generate, "org/tiny", "--prompt", "The", "--max-tokens", "3");
    expect(text).toMatch(/^The./);
  });
});
