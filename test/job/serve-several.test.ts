import { mkdtemp, readFile, rm, stat, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, expect, it } from "vitest";
import { joinRun } from "../../src/job/join.node.ts";
import { loadJob } from "../../src/job/load.node.ts";
import { assertAgreed, type Leaving, openPolicy, readPolicy } from "../../src/job/policy.node.ts";
import type { PlacedJob } from "../../src/job/run.ts";
import { type LogLine, serveJobs } from "../../src/job/serve.node.ts";

const base = fileURLToPath(new URL("../../examples/presidents/base", import.meta.url));
const silos = ["bern", "lima"] as const;
let folder = "";

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "tributary-several-"));
  for (const [i, silo] of silos.entries()) {
    const rows = Array.from({ length: 3 + 4 * i }, (_, n) => ({
      text: `Report ${n} of ${silo} to the people.`,
    }));
    await writeFile(join(folder, `${silo}.jsonl`), rows.map((row) => `${JSON.stringify(row)}\n`).join(""));
  }
});
afterAll(() => rm(folder, { recursive: true }));

async function jobOf(name: string, more = ""): Promise<PlacedJob> {
  const path = join(folder, `${name}.yaml`);
  await writeFile(
    path,
    `schema: 1
name: ${name}
model: ${base}
data: { path: elsewhere.jsonl, maxLength: 16, splits: { validation: 0 } }
partition: { kind: iid, clients: 2 }
adapter: { kind: lora, rank: 2, target: [q_proj] }
strategy: { name: fedit }
local: { optimizer: { name: adamw, learningRate: 1e-2 }, steps: 1, batchSize: 2 }
rounds: 1
workers: 1
threads: 1
out: ${name}
${more}
`,
  );
  return (await loadJob({ path, cwd: folder })).job;
}

it("one server carries two runs for the same silos; a silo says what leaves and keeps the number of its examples", async () => {
  const jobs = [await jobOf("first"), await jobOf("second", "weighting: uniform")];
  const home = join(folder, "home");
  const lines: LogLine[] = [];
  let listening: (url: string) => void = () => {};
  const address = new Promise<string>((resolve) => {
    listening = resolve;
  });
  const served = serveJobs(jobs, {
    clients: [2, 2],
    home,
    port: 0,
    onEvent: (event) => event.type === "listening" && listening(event.url),
    onLog: (line) => lines.push(line),
  });
  const url = await Promise.race([address, served.then(() => "")]);
  expect(JSON.parse(await readFile(join(home, "server.json"), "utf8")).url).toBe(url);
  const tokens = (await readFile(join(home, "tokens.txt"), "utf8")).trim().split("\n");
  expect(tokens).toHaveLength(2);
  const common = (
    silo: string,
  ): { url: string; data: string; folder: string; name: string; workers: number } => ({
    url,
    data: join(folder, `${silo}.jsonl`),
    folder: join(folder, `silo-${silo}`),
    name: silo,
    workers: 1,
  });
  const [token = "", other = ""] = tokens;

  await expect(joinRun({ ...common("bern"), token })).rejects.toThrow(
    /several runs; name one of first, second/,
  );
  await expect(
    joinRun({ ...common("bern"), run: "first", policy: { shareExampleCounts: false } }),
  ).rejects.toThrow(/ask for a job with weighting: uniform/);
  await expect(joinRun({ ...common("bern"), run: "first", agrees: async () => false })).rejects.toThrow(
    /nothing has left/,
  );

  const shown: Leaving[] = [];
  const agrees = async (leaving: Leaving): Promise<boolean> => {
    shown.push(leaving);
    return true;
  };
  const both = (silo: string, more: { readonly token?: string }): Promise<unknown> =>
    joinRun({ ...common(silo), ...more, run: "first", agrees }).then(() =>
      joinRun({ ...common(silo), run: "second", agrees, policy: { shareExampleCounts: false } }),
    );
  await Promise.all([both("bern", {}), both("lima", { token: other }), served]);

  const accepted = (run: string): number[] =>
    lines.flatMap((line) => (line.type === "update-accepted" && line.run === run ? [line.numExamples] : []));
  expect(accepted("first").sort()).toEqual([3, 7]);
  expect(accepted("second")).toEqual([1, 1]);
  for (const { out } of jobs)
    expect((await stat(join(out, "adapter/adapter_model.safetensors"))).size).toBeGreaterThan(0);
  expect(lines.map(({ type }) => type)).toEqual(
    expect.arrayContaining([
      "listening",
      "client-joined",
      "run-created",
      "round-opened",
      "round-closed",
      "run-ended",
    ]),
  );
  expect(shown.map(({ run, examples }) => `${run} ${examples}`).sort()).toEqual([
    "first 3",
    "first 7",
    "second undefined",
    "second undefined",
  ]);
  expect(shown[0]?.bytes).toBe(
    shown[0]?.tensors.reduce((sum, { shape }) => sum + 4 * shape.reduce((a, b) => a * b, 1), 0),
  );
  await expect(stat(join(home, "server.json"))).rejects.toThrow(/ENOENT/);
}, 180_000);

it("a policy names everything in which a run breaks it, and every key that is wrong", async () => {
  const leaving: Leaving = {
    digest: "a".repeat(64),
    run: "first",
    strategy: "fedit",
    paper: "",
    rounds: 9,
    tensors: [],
    bytes: 2_000_000,
  };
  assertAgreed(openPolicy, leaving, {});
  assertAgreed({ shareExampleCounts: false }, leaving, { weighting: "uniform" });
  const path = join(folder, "policy.yaml");
  await writeFile(
    path,
    `schema: 1\njobs: [${"b".repeat(64)}]\nstrategies: [ffa-lora]\nmaxRounds: 5\nmaxUpdateBytes: 1000\nshareExampleCounts: false\nminNoise: 1\n`,
  );
  const policy = await readPolicy(path);
  for (const part of [
    /jobs does not list aaaa/,
    /strategies does not list fedit/,
    /the job has 9 rounds, maxRounds is 5/,
    /an update has 2.00 MB, maxUpdateBytes is 1.00 kB/,
    /shareExampleCounts is false/,
    /minNoise is 1 and the job adds no noise/,
  ])
    expect(() => assertAgreed(policy, leaving, {})).toThrow(part);
  await writeFile(path, "schema: 1\nmaxRounds: 0\nrounds: 3\n");
  await expect(readPolicy(path)).rejects.toThrow(/maxRounds: .*rounds/);
});

it("a job that only a simulation can run is refused by name", async () => {
  const late = await jobOf("late", "updates: { late: { maxStaleness: 1 } }");
  await expect(serveJobs([late], { clients: [2], port: 0 })).rejects.toThrow(/updates.late .*tributary run/);
});
