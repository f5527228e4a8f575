import { spawn } from "node:child_process";
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { baseFolder } from "./base.ts";

const main = fileURLToPath(new URL("../../src/cli/main.ts", import.meta.url));
const tsx = import.meta.resolve("tsx");
let folder = "";

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "eval-"));
  const rows = Array.from({ length: 12 }, (_, i) => ({
    question: `What of the ${i} people?`,
    answer: `The ${i} people of the United States are free.`,
  }));
  await writeFile(join(folder, "qa.jsonl"), rows.map((row) => `${JSON.stringify(row)}\n`).join(""));
  await writeFile(
    join(folder, "job.yaml"),
    `schema: 1
model: ${baseFolder}
data: { path: qa.jsonl, maxLength: 48, splits: { validation: 0.3 } }
partition: { kind: iid, clients: 2 }
adapter: { kind: lora, rank: 2, target: [q_proj] }
strategy: { name: fedit }
local: { optimizer: { name: adamw, learningRate: 1e-3 }, steps: 1, batchSize: 2 }
rounds: 1
evaluation: { maxExamples: 2, metrics: [rougeL, bleu], maxTokens: 4 }
workers: 1
`,
  );
});
afterAll(() => rm(folder, { recursive: true }));

interface Outcome {
  readonly code: number | null;
  readonly out: string;
  readonly err: string;
}

/** Runs the command line without a terminal; with one Ctrl-C as soon as `file` is not empty, where it is given. */
function tributary(args: readonly string[], file?: string): Promise<Outcome> {
  return new Promise((resolve, reject) => {
    const { TRIBUTARY_DEBUG: _, ...env } = process.env;
    const child = spawn(
      process.execPath,
      ["--conditions=@tributary/source", "--import", tsx, main, ...args],
      {
        cwd: folder,
        env,
      },
    );
    let stopped = false;
    const watch =
      file === undefined
        ? undefined
        : setInterval(async () => {
            const text = await readFile(join(folder, file), "utf8").catch(() => "");
            if (text === "" || stopped) return; // reads of two ticks may overlap; a second signal would force the exit
            stopped = true;
            clearInterval(watch);
            child.kill("SIGINT");
          }, 5);
    let [out, err] = ["", ""];
    child.stdout.on("data", (piece: Buffer) => {
      out += piece.toString();
    });
    child.stderr.on("data", (piece: Buffer) => {
      err += piece.toString();
    });
    child.on("error", reject);
    child.on("close", (code) => {
      clearInterval(watch);
      resolve({ code, out, err });
    });
  });
}

const lines = async (file: string): Promise<Record<string, unknown>[]> =>
  (await readFile(join(folder, file), "utf8"))
    .trim()
    .split("\n")
    .map((line): Record<string, unknown> => JSON.parse(line));

describe("tributary eval", () => {
  it("measures a model folder on a file, with answers, intervals and signatures", async () => {
    const args = [
      "eval",
      baseFolder,
      "--preset",
      "medquad",
      "--data",
      "qa.jsonl",
      "--metrics",
      "rougeL,perplexity",
      "--max-examples",
      "5",
    ];
    const options = ["--evaluation.maxTokens", "4", "--out", "answers.jsonl"];
    const { code, out, err } = await tributary([...args, ...options]);
    expect([code, err]).toEqual([0, ""]);
    expect(out).toMatch(/^5 examples \(qa\.jsonl\)$/m);
    expect(out).toMatch(/^rougeL +0\.\d{4} +0\.\d{4} to 0\.\d{4}$/m);
    expect(out).toMatch(/^rougeL +rouge-score:0\.1\.2\|F1\|stemmer:no\|best reference\|nrefs:1$/m);
    const rows = await lines("answers.jsonl");
    expect(rows.filter(({ kind }) => kind === "losses")).toHaveLength(5);
    const answered = rows.filter(({ kind }) => kind === "texts");
    expect(answered.map(({ prompt }) => prompt)).toContain("Question: What of the 0 people?\nAnswer: ");
    for (const row of answered) expect(row).toMatchObject({ prediction: expect.any(String), model: "base" });
  });

  it("measures a run beside its base by the metrics of its job, which its rounds have too", async () => {
    expect(await tributary(["run", "job.yaml", "--out", "run"])).toMatchObject({ code: 0, err: "" });
    const [round] = await lines("run/rounds.jsonl");
    const { code, out } = await tributary(["eval", "run", "--json", "--resamples", "0"]);
    expect(code).toBe(0);
    const found = JSON.parse(out);
    const inRun = round?.evaluation as Record<string, number>;
    for (const name of ["loss", "perplexity", "rougeL", "bleu"])
      expect([name, found.tuned[name]]).toEqual([name, expect.closeTo(inRun[name] ?? Number.NaN, 4)]);
    expect(Object.keys(found.base)).toEqual(Object.keys(found.tuned));
    expect(found.metrics.tuned[0]).toMatchObject({ name: "loss", examples: 2 });
  });

  it("keeps the examples so far when it is interrupted", async () => {
    const args = [
      "eval",
      baseFolder,
      "--data",
      "qa.jsonl",
      "--metrics",
      "rougeL",
      "--evaluation.batchSize",
      "1",
    ];
    const options = ["--evaluation.maxTokens", "64", "--out", "some.jsonl"];
    const { code, err } = await tributary([...args, ...options], "some.jsonl");
    expect(code).toBe(130);
    expect(err).toMatch(/^stopped; the \d+ examples so far are in some\.jsonl$/m);
    expect((await lines("some.jsonl")).length).toBeLessThan(12);
  });

  it("names what it cannot measure, and what to give instead", async () => {
    const all = await Promise.all([
      tributary(["eval", "nowhere"]),
      tributary(["eval", baseFolder]),
      tributary(["eval", baseFolder, "--data", "qa.jsonl", "--metrics", "rogueL"]),
      tributary(["run", "job.yaml", "--out", "other", "--evaluation.metrics", "mcc"]),
    ]);
    expect(all.map(({ code }) => code)).toEqual([2, 2, 2, 2]);
    const [nowhere, noData, unknown, wrongTask] = all.map(({ err }) => err);
    expect(nowhere).toContain("no such run or model");
    expect(noData).toContain("give --data FILE or --job JOB");
    expect(unknown).toContain("did you mean rougeL?");
    expect(wrongTask).toContain("evaluation.metrics: got mcc, expected metrics of causal-lm: rouge1");
  });
});
