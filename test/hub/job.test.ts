import { copyFile, mkdir, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { writeSafetensors } from "../../src/formats/safetensors.ts";
import { jobDifferences } from "../../src/job/differences.ts";
import type { JobEvent } from "../../src/job/events.ts";
import type { Job } from "../../src/job/job.ts";
import { loadJob, readResolvedJob, resolvedJobName } from "../../src/job/load.node.ts";
import { runJob } from "../../src/job/run.ts";
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
  hub = await fakeHub([
    {
      kind: "model",
      repo: "org/tiny",
      commit,
      files: {
        "config.json": encode(JSON.stringify(json)),
        "model.safetensors": writeSafetensors(tinyModel(json).weights),
        "tokenizer.json": await readFile(join(base, "tokenizer.json")),
        "tokenizer_config.json": await readFile(join(base, "tokenizer_config.json")),
      },
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
