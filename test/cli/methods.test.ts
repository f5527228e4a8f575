import { execFile } from "node:child_process";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { parse } from "yaml";
import { checkJob } from "../../src/job/check.ts";
import { exampleJob, methods } from "../../src/job/methods.ts";
import { strategyEntries } from "../../src/strategies/catalogue/entries.ts";
import { rawJob } from "../job/job.ts";

const main = fileURLToPath(new URL("../../src/cli/main.ts", import.meta.url));
const base = fileURLToPath(new URL("../../examples/presidents/base", import.meta.url));
const tsx = import.meta.resolve("tsx");
let folder = "";

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "methods-"));
  const rows = Array.from({ length: 12 }, (_, i) => ({
    text: `The ${i} people of the world.`,
    silo: `s${i % 4}`,
  }));
  await writeFile(join(folder, "train.jsonl"), rows.map((row) => `${JSON.stringify(row)}\n`).join(""));
  await writeFile(
    join(folder, "job.yaml"),
    `schema: 1
model: ${base}
data: { path: train.jsonl, maxLength: 32 }
partition: { kind: natural, field: silo }
adapter: { kind: lora, rank: 2, target: [k_proj] }
strategy: { name: centralized }
local: { optimizer: { name: adamw, learningRate: 1e-3 } }
rounds: 2
clientsPerRound: 3
`,
  );
});
afterAll(() => rm(folder, { recursive: true }));

interface Outcome {
  readonly code: number;
  readonly out: string;
  readonly err: string;
}

function tributary(...args: string[]): Promise<Outcome> {
  const argv = ["--conditions=@tributary/source", "--import", tsx, main, ...args];
  return new Promise((resolve) => {
    execFile(
      process.execPath,
      argv,
      { cwd: folder, env: { ...process.env, NO_COLOR: "1" } },
      (error, out, err) => resolve({ code: error === null ? 0 : Number(error.code ?? 1), out, err }),
    );
  });
}

const names = strategyEntries.map(({ name }) => name);

describe("tributary methods", () => {
  it("lists all methods in lines of at most 100 characters", async () => {
    const { code, out, err } = await tributary("methods");
    expect({ code, err }).toEqual({ code: 0, err: "" });
    const [head = "", ...rows] = out.split("\n");
    expect(head).toMatch(/^method +down +up +mean of the clients\? +RPBS$/);
    expect(rows.slice(0, names.length).map((row) => row.split(" ")[0])).toEqual(names);
    expect(rows.find((row) => row.startsWith("flora "))).toMatch(/Σ_j L\(r_j\).* yes +R-B-$/);
    expect(Math.max(...out.split("\n").map((line) => line.length))).toBeLessThanOrEqual(100);
  });

  it("shows one with its options, defaults, paper, traffic and an example", async () => {
    const { code, out } = await tributary("methods", "lora-fair");
    expect(code).toBe(0);
    expect(out).toMatch(/^lora-fair: LoRA-FAIR$/m);
    expect(out).toMatch(/^paper +Bian et al\., ICCV 2025/m);
    expect(out).toMatch(
      /^ {2}lambda +Weight of the size of the correction\. \(a number from 0; default 0\.01\)$/m,
    );
    expect(out).toMatch(/^down +L\(r\) \+ H /m);
    expect(out).toMatch(/^ {2}strategy: \{ name: lora-fair/m);
    expect(Math.max(...out.split("\n").map((line) => line.length))).toBeLessThanOrEqual(100);
  });

  it("writes the same for machines", async () => {
    const { out } = await tributary("methods", "--json");
    expect(JSON.parse(out)).toEqual({ methods: JSON.parse(JSON.stringify(methods())) });
    const one = await tributary("methods", "fl-tac", "--json");
    expect(JSON.parse(one.out)).toMatchObject({
      name: "fl-tac",
      personal: true,
      options: [
        { name: "tasks", required: true },
        { name: "weighting", default: "uniform" },
      ],
    });
  });

  it("corrects a name that is nearly one, and says where job keys belong", async () => {
    const misspelt = await tributary("methods", "fedexlora");
    expect(misspelt).toMatchObject({ code: 2, out: "" });
    expect(misspelt.err).toContain("did you mean fedex-lora?");
    const lost = await tributary("methods", "--rank", "4");
    expect(lost).toMatchObject({ code: 2, out: "" });
    expect(lost.err).toContain("--adapter.rank: changes a job, so it goes with --cost JOB");
  });

  it("counts what every method costs for a job, whatever strategy the job has", async () => {
    const { code, out, err } = await tributary("methods", "--cost", "job.yaml", "--rank", "3", "--json");
    expect({ code, err }).toEqual({ code: 0, err: "" });
    const { shapes, methods: counted, left } = JSON.parse(out);
    // k_proj [64, 192] in five layers.
    expect(shapes).toMatchObject({
      modules: 5,
      rank: 3,
      clients: 4,
      perRound: 3,
      pairs: 5 * 3 * 256,
      beside: 0,
    });
    expect(counted.map(({ name }: { name: string }) => name)).toEqual(names);
    expect(left).toEqual([]);
    expect(counted.filter(({ agrees }: { agrees: boolean }) => !agrees)).toEqual([]);
  }, 60_000);

  it("shows one method's rounds, client by client", async () => {
    const { code, out } = await tributary("methods", "flora", "--cost", "job.yaml");
    expect(code).toBe(0);
    expect(out).toMatch(/^full weights +11\.0 MB +11\.0 MB +1 /m);
    expect(out).toMatch(/^flora +30\.7 kB +10\.2 kB +0\.0019 /m);
    expect(out).toMatch(/^ +2 +s\d +30,720 +30,720 +10,240 +10,240$/m);
    expect(Math.max(...out.split("\n").map((line) => [...line].length))).toBeLessThanOrEqual(100);
  }, 60_000);
});

describe("the example of a method", () => {
  it.each(methods().map((method) => [method.name, method] as const))("is a sound job: %s", (name, method) => {
    const job = checkJob(rawJob(parse(exampleJob(method))));
    expect(job.strategy.name).toBe(name);
  });
});
