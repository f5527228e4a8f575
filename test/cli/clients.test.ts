import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { evaluate } from "../../src/cli/commands/eval.ts";
import { exportRun } from "../../src/cli/commands/export.ts";
import { generate } from "../../src/cli/commands/generate.ts";
import { openFolder } from "../../src/formats/files.node.ts";
import { readPeftAdapter } from "../../src/formats/peft.ts";
import type { RunSummary } from "../../src/job/events.ts";
import { loadJob } from "../../src/job/load.node.ts";
import { runJob } from "../../src/job/run.ts";
import { readManifest } from "../../src/job/run-files.node.ts";
import { openTuned } from "../../src/job/tuned.ts";
import { printed } from "./printed.ts";

const base = fileURLToPath(new URL("../../examples/presidents/base", import.meta.url));
let folder = "";

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "tributary-clients-"));
  const rows = Array.from({ length: 24 }, (_, i) => ({
    text: `The ${i} people of the United States.`,
    silo: i < 8 ? "north" : "south",
  }));
  await writeFile(join(folder, "train.jsonl"), rows.map((row) => `${JSON.stringify(row)}\n`).join(""));
  await writeFile(
    join(folder, "job.yaml"),
    `schema: 1
model: ${base}
data: { path: train.jsonl, maxLength: 32, splits: { validation: 0.2 } }
partition: { kind: natural, field: silo }
adapter: { kind: lora, rank: 2, target: [q_proj, down_proj] }
strategy: { name: fedsa-lora }
local: { optimizer: { name: adamw, learningRate: 1e-2 }, steps: 2, batchSize: 2 }
rounds: 1
workers: 1
`,
  );
});
afterAll(() => rm(folder, { recursive: true }));

async function run(out: string, strategy: string): Promise<RunSummary> {
  const { job } = await loadJob({
    path: join(folder, "job.yaml"),
    cwd: folder,
    flags: Object.entries({ out, "strategy.name": strategy }).map(([path, text]) => ({
      path,
      texts: [text],
    })),
  });
  return runJob(job);
}

async function tunedLoss(...argv: readonly string[]): Promise<number> {
  const options = ["--metrics", "loss", "--resamples", "0", "--json"];
  const { base, tuned } = JSON.parse(await printed(folder, evaluate, ...argv, ...options));
  return (tuned ?? base).loss;
}

describe("a run whose clients have models of their own", () => {
  it.each(["fedsa-lora", "ce-lora", "local-only", "pfedloru"])(
    "by %s is measured client by client, on average as in the run",
    async (strategy) => {
      const { after } = await run(`run-${strategy}`, strategy);
      const { clients } = await readManifest(join(folder, `run-${strategy}`));
      const losses: number[] = [];
      for (const { id } of clients)
        losses.push(await tunedLoss(`run-${strategy}`, "--tuned", "--client", id));
      expect(losses).toHaveLength(2);
      expect(losses[0]).not.toBeCloseTo(losses[1] ?? Number.NaN, 4);
      const mean = losses.reduce((sum, loss) => sum + loss, 0) / losses.length;
      expect(mean).toBeCloseTo(after.loss ?? Number.NaN, 4);
    },
    60_000,
  );

  it("has all its rounds when it is run again", async () => {
    expect((await run("run-fedsa-lora", "fedsa-lora")).rounds).toBe(1);
  }, 60_000);

  it("is exported client by client, merged and as an adapter, and continues a text", async () => {
    const own = ["run-fedsa-lora", "--client", "south"];
    const loss = await tunedLoss(...own, "--tuned");
    await printed(folder, exportRun, "merged", ...own, "--out", "merged");
    const held = ["--job", "job.yaml", "--metrics", "loss"];
    expect(await tunedLoss("merged", ...held)).toBeCloseTo(loss, 4);
    expect(await printed(folder, exportRun, "adapter", ...own, "--out", "adapter")).toContain(
      "adapter_model.safetensors",
    );
    const { params } = await readPeftAdapter(await openFolder(join(folder, "adapter")));
    const tuned = await openTuned(join(folder, "run-fedsa-lora"), { client: "south" });
    expect(params).toEqual(tuned.params);
    expect(await printed(folder, generate, ...own, "--prompt", "The", "--max-tokens", "2")).toMatch(/^The./);
    await expect(
      printed(folder, exportRun, "adapter", "run-ce-lora", "--client", "south", "--out", "none"),
    ).rejects.toThrow("factors that PEFT does not know, not an adapter; use tributary export merged");
  }, 60_000);

  it.each([
    ["eval", evaluate, []],
    ["generate", generate, ["--prompt", "The"]],
    ["export", exportRun, ["--out", "none"]],
  ])(
    "is refused by %s without a client that it has, and the message names them",
    async (_, command, more) => {
      const asked = (...argv: readonly string[]): Promise<string> =>
        printed(folder, command, ...argv, ...more);
      await expect(asked("run-fedsa-lora")).rejects.toThrow(
        /a model of its own, got no client; say whose with --client, one of north, south$/,
      );
      await expect(asked("run-fedsa-lora", "--client", "west")).rejects.toThrow(
        /got the client "west", expected one of north, south; correct --client$/,
      );
    },
  );

  it("is none where the strategy has one model, and a model folder neither", async () => {
    await run("run-fedit", "fedit");
    await expect(tunedLoss("run-fedit", "--client", "north")).rejects.toThrow(
      /got the client "north", but there is one model for all; leave --client out$/,
    );
    await expect(tunedLoss(base, "--data", "train.jsonl", "--client", "north")).rejects.toThrow(
      "--client: a model has no clients; leave it out, or give a run",
    );
  }, 60_000);
});
