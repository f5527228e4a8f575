import { mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { refuseOtherJob } from "../../src/job/differences.ts";
import { loadJob, readResolvedJob, resolvedJobName, resolvedJobText } from "../../src/job/load.node.ts";
import { nearest } from "../../src/job/nearest.ts";

let folder = "";
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "job-"));
  await mkdir(join(folder, "jobs"));
});
afterAll(() => rm(folder, { recursive: true }));

const text = `schema: 1
model: ../base
data:
  path: [a.jsonl, ../b.jsonl]
partition: { kind: files }
adapter: { kind: lora, rank: 4 }
strategy: { name: fedit }
local:
  optimizer: { name: adamw, learningRate: 1e-3 }
rounds: 3
`;

async function written(name: string, content: string): Promise<string> {
  const path = join(folder, "jobs", name);
  await writeFile(path, content);
  return path;
}

describe("a job file", () => {
  it("takes its paths from its own folder, and those of flags from the working folder", async () => {
    const path = await written("two.yaml", text);
    const { job } = await loadJob({ path, cwd: folder, flags: [{ path: "out", texts: ["runs/x"] }] });
    expect(job.model).toBe(join(folder, "base"));
    expect(job.data.path).toEqual([join(folder, "jobs", "a.jsonl"), join(folder, "b.jsonl")]);
    expect(job.out).toBe(join(folder, "runs", "x"));
    expect(job.name).toBe("two");
  });

  it("finds the adapter that it starts from beside itself", async () => {
    const path = await written("from.yaml", text.replace("rank: 4", "rank: 4, from: ../start"));
    const { job } = await loadJob({ path, cwd: "/" });
    expect(job.adapter).toMatchObject({ from: join(folder, "start") });
  });

  it("names line and file of each error, and the flag where a flag is wrong", async () => {
    const path = await written("bad.yaml", text.replace("rounds: 3", "rounds: many\nseeed: 1"));
    const flags = [{ path: "local.batchSize", texts: ["0"] }];
    await expect(loadJob({ path, cwd: folder, flags })).rejects.toThrow(
      `local.batchSize: got 0, expected a whole number from 1; correct --local.batchSize
rounds: got "many", expected a whole number from 1; correct jobs/bad.yaml:10
seeed: got an unknown key with 1, expected a known key; did you mean seed? (jobs/bad.yaml:11)`,
    );
  });

  it("that is no YAML is refused with its line and column", async () => {
    const path = await written("broken.yaml", "schema: 1\nmodel: [a, b\n");
    await expect(loadJob({ path, cwd: folder })).rejects.toThrow(/^jobs\/broken.yaml:\d+:\d+: /);
  });

  it("may be JSON", async () => {
    const path = await written("job.json", JSON.stringify({ schema: 1, rounds: 0 }));
    await expect(loadJob({ path, cwd: folder })).rejects.toThrow(
      "rounds: got 0, expected a whole number from 1",
    );
  });

  it("needs the version of its format", async () => {
    const path = await written("old.yaml", text.replace("schema: 1\n", ""));
    await expect(loadJob({ path, cwd: folder })).rejects.toThrow("schema: got nothing, expected 1; add it");
  });

  it("comes back from a run folder, which may move with its model", async () => {
    const path = await written("move.yaml", text);
    const { job } = await loadJob({ path, cwd: folder });
    const run = join(folder, "runs", "move");
    await mkdir(run, { recursive: true });
    const resolved = resolvedJobText(job, run);
    expect(resolved).toContain("model: ../../base");
    await writeFile(join(run, resolvedJobName), resolved);
    expect(await readResolvedJob(run)).toEqual({ ...job, out: run });
  });
});

describe("a run of another job", () => {
  it("is refused with every key that differs, apart from those that do not touch the result", async () => {
    const path = await written("same.yaml", text);
    const { job } = await loadJob({ path, cwd: folder });
    expect(() => refuseOtherJob("runs/x", job, { ...job, workers: 3, name: "other" })).not.toThrow();
    expect(() => refuseOtherJob("runs/x", job, { ...job, rounds: 4 })).not.toThrow();
    expect(() => refuseOtherJob("runs/x", job, { ...job, rounds: 2, seed: 9 })).toThrow(
      `rounds: got 2, expected 3 or more as in the run in runs/x; give --out another folder, or --fresh to start anew in runs/x
seed: got 9, expected 0 as in the run in runs/x; give --out another folder, or --fresh to start anew in runs/x`,
    );
  });
});

describe("the nearest name", () => {
  it("forgives case, hyphens and swapped letters, but not another word", () => {
    expect(nearest("fedexlora", ["fedit", "fedex-lora"])).toBe("fedex-lora");
    expect(nearest("rnak", ["rank", "alpha"])).toBe("rank");
    expect(nearest("banana", ["rank", "alpha"])).toBeUndefined();
  });
});
