import { mkdtemp, readFile, rm, stat, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, expect, it } from "vitest";
import { join as joinCommand } from "../../src/cli/commands/join.ts";
import { serve } from "../../src/cli/commands/serve.ts";
import { joinRun } from "../../src/job/join.node.ts";
import { loadJob } from "../../src/job/load.node.ts";
import { runJob } from "../../src/job/run.ts";
import { type ServeEvent, serveJobs } from "../../src/job/serve.node.ts";
import { printed } from "../cli/printed.ts";

const base = fileURLToPath(new URL("../../examples/presidents/base", import.meta.url));
const silos = ["bern", "lima", "oslo"] as const;
let folder = "";

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "tributary-serve-"));
  for (const [i, silo] of silos.entries()) {
    const rows = Array.from({ length: 5 + 2 * i }, (_, n) => ({
      text: `Report ${n} of ${silo} to the people of the United States, in year ${1950 + n}.`,
    }));
    await writeFile(join(folder, `${silo}.jsonl`), rows.map((row) => `${JSON.stringify(row)}\n`).join(""));
  }
  await writeFile(join(folder, "held-out.jsonl"), `${JSON.stringify({ text: "The state of the union." })}\n`);
  await writeFile(
    join(folder, "job.yaml"),
    `schema: 1
name: three-cities
model: ${base}
data: { path: [${silos.map((silo) => `${silo}.jsonl`).join(", ")}], maxLength: 32, splits: { validation: held-out.jsonl } }
partition: { kind: files }
adapter: { kind: lora, rank: 2, target: [q_proj] }
strategy: { name: fedit }
local: { optimizer: { name: adamw, learningRate: 1e-2 }, steps: 2, batchSize: 2 }
rounds: 2
workers: 1
threads: 1
out: simulated
`,
  );
}, 60_000);
afterAll(() => rm(folder, { recursive: true }));

/** The files of an adapter that the rounds decide. */
const weights = (run: string): Promise<Buffer> =>
  readFile(join(folder, run, "adapter", "adapter_model.safetensors"));

it("three silos with files of their own end with the adapter of the same job simulated", async () => {
  const { job } = await loadJob({ path: join(folder, "job.yaml"), cwd: folder });
  await runJob(job);

  let listening: (url: string) => void = () => {};
  const url = new Promise<string>((resolve) => {
    listening = resolve;
  });
  const events: ServeEvent[] = [];
  const served = serveJobs([{ ...job, out: join(folder, "served") }], {
    clients: [silos.length],
    port: 0,
    onEvent(event) {
      events.push(event);
      if (event.type === "listening") listening(event.url);
    },
  });
  const at = await Promise.race([url, served.then(() => "")]);
  const path = join(folder, "served", "tokens.txt");
  const tokens = (await readFile(path, "utf8")).trim().split("\n");
  expect((await stat(path)).mode & 0o077).toBe(0);
  await Promise.all(
    silos.map((silo, i) =>
      joinRun({
        url: at,
        data: join(folder, `${silo}.jsonl`),
        folder: join(folder, `silo-${silo}`),
        name: silo,
        workers: 1,
        ...(tokens[i] !== undefined && { token: tokens[i] }),
      }),
    ),
  );
  await served;
  expect(events.filter(({ type }) => type === "round-committed")).toHaveLength(2);
  const measured = async (run: string): Promise<unknown[]> =>
    (await readFile(join(folder, run, "rounds.jsonl"), "utf8"))
      .trim()
      .split("\n")
      .map((line) => JSON.parse(line).evaluation);
  expect(await measured("served")).toEqual(await measured("simulated"));
  expect(Object.keys((await measured("served"))[0] ?? {})).toContain("perplexity");
  expect((await weights("served")).equals(await weights("simulated"))).toBe(true);
  // What silos elsewhere have begun is not gone on with over silos that are simulated.
  for (const fresh of [false, true])
    await expect(runJob({ ...job, out: join(folder, "served") }, { fresh })).rejects.toMatchObject({
      code: "served-run",
    });
}, 180_000);

it("a command without what it needs says so", async () => {
  await expect(printed(folder, serve, "job.yaml")).rejects.toThrow(/--clients/);
  await expect(printed(folder, joinCommand, "http://127.0.0.1:1")).rejects.toThrow(/--data/);
  await expect(
    printed(folder, serve, "job.yaml", "--clients", "1", "--host", "0.0.0.0", "--out", "elsewhere"),
  ).rejects.toThrow(/certificate/);
});
