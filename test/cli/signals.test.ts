import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, afterEach, beforeAll, expect, it } from "vitest";
import { type Program, type Programs, programsIn } from "./program.ts";

const base = fileURLToPath(new URL("../../examples/presidents/base", import.meta.url));
let folder = "";
let programs: Programs;

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "tributary-signals-"));
  programs = programsIn(folder);
  const text = "The people of the United States and of the world. ".repeat(60);
  await writeFile(join(folder, "long.jsonl"), `${JSON.stringify({ text })}\n`.repeat(96));
  // A step takes more than a second, all of it inside the runtime.
  await writeFile(
    join(folder, "job.yaml"),
    `schema: 1
name: slow
model: ${base}
data: { path: long.jsonl, maxLength: 256, splits: { validation: 0 } }
partition: { kind: iid, clients: 2 }
adapter: { kind: lora, rank: 2, target: [q_proj] }
strategy: { name: fedit }
local: { optimizer: { name: adamw, learningRate: 1e-2 }, steps: 20, batchSize: 24 }
rounds: 1
workers: 1
threads: 1
out: run
`,
  );
});
afterEach(() => programs.close());
afterAll(() => rm(folder, { recursive: true }));

const pause = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));

/** A run whose worker is in the middle of a step. */
async function inStep(out: string): Promise<Program> {
  const program = programs.start("run", "job.yaml", "--json", "--out", out);
  await program.heard(/"step":1\b/);
  // No event tells that the next step is inside the runtime.
  await pause(100);
  return program;
}

it("a signal that npm passes on although the terminal has sent it already stops the run after the step", async () => {
  const program = await inStep("twice");
  program.kill("SIGINT");
  await program.heard(/^stopping after the current step/);
  program.kill("SIGINT");
  const { code, signal, err } = await program.ended;
  expect({ code, signal }).toEqual({ code: 130, signal: null });
  expect(err).not.toMatch(/terminate|Napi/);
}, 60_000);

it("a second Ctrl-C ends the run at once, and not as a crash", async () => {
  const program = await inStep("at-once");
  program.kill("SIGINT");
  await program.heard(/Ctrl-C again to stop at once/);
  // A person is slower than npm.
  await pause(350);
  program.kill("SIGINT");
  const { signal, err } = await program.ended;
  expect(signal).toBe("SIGINT");
  expect(err).not.toMatch(/terminate|Napi/);
}, 60_000);

it("a reader that closes the pipe in mid-run is no failure and no crash", async () => {
  const program = await inStep("unread");
  program.leave();
  const { code, signal, err } = await program.ended;
  expect({ code, signal, err }).toEqual({ code: 0, signal: null, err: "" });
}, 60_000);
