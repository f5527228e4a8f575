import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { evaluate } from "../../src/cli/commands/eval.ts";
import { generate } from "../../src/cli/commands/generate.ts";
import { loadJob } from "../../src/job/load.node.ts";
import { runJob } from "../../src/job/run.ts";
import { printed } from "./printed.ts";

const base = fileURLToPath(new URL("../../examples/presidents/base", import.meta.url));
let folder = "";
/** The loss before round 1 of a run in 4 bits. */
let before = Number.NaN;

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "tributary-precision-"));
  const rows = Array.from({ length: 24 }, (_, i) => ({ text: `The ${i} people of the United States.` }));
  await writeFile(join(folder, "train.jsonl"), rows.map((row) => `${JSON.stringify(row)}\n`).join(""));
  await writeFile(
    join(folder, "job.yaml"),
    `schema: 1
model: ${base}
basePrecision: 4bit
data: { path: train.jsonl, maxLength: 32 }
partition: { kind: iid, clients: 2 }
adapter: { kind: lora, rank: 2, target: [q_proj] }
strategy: { name: fedit }
local: { optimizer: { name: adamw, learningRate: 1e-2 }, steps: 1, batchSize: 2 }
rounds: 1
evaluation: { maxExamples: 4 }
out: run
workers: 1
`,
  );
  const { job } = await loadJob({ path: join(folder, "job.yaml"), cwd: folder });
  before = (await runJob(job)).before.loss ?? Number.NaN;
}, 60_000);
afterAll(() => rm(folder, { recursive: true }));

async function baseLoss(...argv: readonly string[]): Promise<number> {
  const found = JSON.parse(
    await printed(folder, evaluate, ...argv, "--metrics", "loss", "--resamples", "0", "--json"),
  );
  return found.base.loss;
}

describe("the precision of the base", () => {
  it("of an evaluated model is that of --precision, and of a run its own", async () => {
    const model = [base, "--job", "job.yaml"];
    expect(await baseLoss(...model, "--precision", "4bit")).toBeCloseTo(before, 4);
    expect(await baseLoss("run")).toBeCloseTo(before, 4);
    const wide = await baseLoss(...model, "--precision", "float32");
    // Sixteen levels a block move the loss, but little.
    expect(Math.abs(wide - before)).toBeGreaterThan(4e-4);
    expect(Math.abs(wide - before)).toBeLessThan(0.1);
  }, 60_000);

  it("of a generated text is that of --precision, and of a run its own", async () => {
    const text = ["--prompt", "The people", "--max-tokens", "24", "--temperature", "0"];
    const narrow = await printed(folder, generate, base, ...text, "--precision", "4bit");
    expect(narrow).toBe(await printed(folder, generate, "run", "--base", ...text));
    expect(narrow).not.toBe(await printed(folder, generate, base, ...text));
    const exact = ["--precision", "4bit", "--activations", "float32"];
    expect(await printed(folder, generate, base, ...text, ...exact)).toMatch(/^The people/);
  }, 60_000);

  it.each([
    ["generate", generate, ["--prompt", "The"]],
    ["eval", evaluate, ["--data", "train.jsonl"]],
  ])("of %s is refused where it is unknown, and for a run", async (_, command, more) => {
    await expect(printed(folder, command, base, ...more, "--precision", "8bit")).rejects.toThrow(
      '--precision: got "8bit", expected float32, stored or 4bit; correct it',
    );
    await expect(printed(folder, command, base, ...more, "--activations", "int4")).rejects.toThrow(
      '--activations: got "int4", expected int8 or float32; correct it',
    );
    await expect(printed(folder, command, "run", ...more, "--precision", "4bit")).rejects.toThrow(
      "--precision: a run has its own job; leave it out, or give a model",
    );
  });
});
