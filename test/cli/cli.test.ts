import { spawn } from "node:child_process";
import { mkdir, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, describe, expect, it } from "vitest";

const main = fileURLToPath(new URL("../../src/cli/main.ts", import.meta.url));
const base = fileURLToPath(new URL("../../examples/presidents/base", import.meta.url));
const tsx = import.meta.resolve("tsx");
let folder = "";

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "cli-"));
  const rows = Array.from({ length: 24 }, (_, i) => ({
    text: `The ${i} people of the United States and of the world.`,
    silo: i % 2 ? "odd" : "even",
    label: i % 2,
  }));
  await writeFile(join(folder, "train.jsonl"), rows.map((row) => `${JSON.stringify(row)}\n`).join(""));
  await writeFile(
    join(folder, "labels.jsonl"),
    rows.map((row) => `${JSON.stringify({ ...row, label: row.label + 5 })}\n`).join(""),
  );
  await writeFile(join(folder, "job.yaml"), job());
});
afterAll(() => rm(folder, { recursive: true }));

function job(model = base): string {
  return `schema: 1
model: ${model}
data: { path: train.jsonl, maxLength: 32 }
partition: { kind: natural, field: silo }
adapter: { kind: lora, rank: 2, target: [q_proj] }
strategy: { name: fedex-lora }
local: { optimizer: { name: adamw, learningRate: 1e-3 }, steps: 1, batchSize: 2 }
rounds: 2
evaluation: { maxExamples: 2 }
workers: 1
`;
}

interface Outcome {
  readonly code: number | null;
  readonly out: string;
  readonly err: string;
}

/** Runs the command line as a person would, without a terminal. */
function tributary(...args: string[]): Promise<Outcome> {
  return interrupted(undefined, ...args);
}

/** The same, with one Ctrl-C as soon as the output holds `after`. */
function interrupted(after: string | undefined, ...args: string[]): Promise<Outcome> {
  return new Promise((resolve, reject) => {
    let sent = false;
    const { TRIBUTARY_DEBUG: _, ...env } = process.env;
    const child = spawn(
      process.execPath,
      ["--conditions=@tributary/source", "--import", tsx, main, ...args],
      { cwd: folder, env },
    );
    let [out, err] = ["", ""];
    child.stdout.on("data", (piece: Buffer) => {
      out += piece.toString();
      if (sent || after === undefined || !out.includes(after)) return;
      sent = true;
      child.kill("SIGINT");
    });
    child.stderr.on("data", (piece: Buffer) => {
      err += piece.toString();
    });
    child.on("error", reject);
    child.on("close", (code) => resolve({ code, out, err }));
  });
}

/** The weights that a run has trained. */
function adapter(run: string): Promise<Buffer> {
  return readFile(join(folder, run, "adapter", "adapter_model.safetensors"));
}

/** A model folder whose weights file holds `bytes`. */
async function broken(
  name: string,
  change: { readonly config?: object; weights?(bytes: Buffer): Buffer },
): Promise<string> {
  const path = join(folder, name);
  await mkdir(path);
  for (const file of ["tokenizer.json", "tokenizer_config.json"])
    await writeFile(join(path, file), await readFile(join(base, file)));
  const config: object = JSON.parse(await readFile(join(base, "config.json"), "utf8"));
  await writeFile(join(path, "config.json"), JSON.stringify({ ...config, ...change.config }));
  const weights = await readFile(join(base, "model.safetensors"));
  await writeFile(join(path, "model.safetensors"), change.weights?.(weights) ?? weights);
  return path;
}

describe("the command line", () => {
  it("runs a job, says so when it has all its rounds, verifies it and refuses another job in its folder", async () => {
    const first = await tributary("run", "job.yaml", "--out", "one");
    expect(first).toMatchObject({ code: 0, err: "" });
    expect(first.out).toContain("adapter: ");
    const again = await tributary("run", "job.yaml", "--out", "one");
    expect(again).toMatchObject({ code: 0, err: "" });
    expect(again.out).toContain("has all its 2 rounds already; --rounds takes it further");
    const verified = await tributary("verify", "one", "--json");
    expect(verified.code).toBe(0);
    expect(JSON.parse(verified.out)).toMatchObject({
      verified: true,
      adapter: true,
      rounds: [{ round: 1 }, { round: 2 }],
    });
    const other = await tributary("run", "job.yaml", "--out", "one", "--rounds", "1", "--rank", "3");
    expect(other).toMatchObject({ code: 2, out: "" });
    expect(other.err).toContain("  rounds: got 1, expected 2 or more as in the run in ");
    expect(other.err).toContain("  adapter.rank: got 3, expected 2 as in the run in ");
    const inspected = await tributary("inspect", "one");
    expect(inspected.out).toContain("rounds    2 of 2");
  }, 120_000);

  it("stops at Ctrl-C with code 130, and the same command goes on to the same bytes", async () => {
    const undisturbed = await tributary("run", "job.yaml", "--out", "whole");
    expect(undisturbed.code).toBe(0);
    const stopped = await interrupted(" 1/2 ", "run", "job.yaml", "--out", "parted");
    expect(stopped.code).toBe(130);
    expect(stopped.out).toContain("stopping after the current step; run the same command to go on");
    expect(stopped.err).not.toMatch(/^\s+at /m);
    const resumed = await tributary("run", "job.yaml", "--out", "parted");
    expect(resumed).toMatchObject({ code: 0, err: "" });
    expect(resumed.out).toContain("continuing run ");
    expect(await adapter("parted")).toEqual(await adapter("whole"));
  }, 120_000);

  it("takes a finished run further when its job asks for more rounds, to the bytes of a run that had them from the start", async () => {
    expect((await tributary("run", "job.yaml", "--out", "longer", "--rounds", "1")).code).toBe(0);
    const further = await tributary("run", "job.yaml", "--out", "longer", "--rounds", "3");
    expect(further).toMatchObject({ code: 0, err: "" });
    expect(further.out).toContain("continuing run ");
    expect((await tributary("run", "longer")).out).toContain("has all its 3 rounds already");
    expect((await tributary("run", "job.yaml", "--out", "three", "--rounds", "3")).code).toBe(0);
    expect(await adapter("longer")).toEqual(await adapter("three"));
    expect(JSON.parse((await tributary("verify", "longer", "--json")).out)).toMatchObject({
      verified: true,
      rounds: [{ round: 1 }, { round: 2 }, { round: 3 }],
    });
  }, 120_000);

  it("ends a run whose losses are no numbers as a failure, names the clients, and keeps what it had", async () => {
    const { code, out, err } = await tributary(
      "run",
      "job.yaml",
      "--out",
      "nan",
      "--learning-rate",
      "1e38",
      "--steps",
      "3",
    );
    expect(code).toBe(1);
    expect(out).toMatch(/even dropped: loss-not-finite: /);
    expect(err).toMatch(/^error: round 1 failed/);
    expect(err).not.toMatch(/^\s+at /m);
  }, 60_000);

  it("writes one JSON event a line for machines", async () => {
    const { code, out } = await tributary("run", "job.yaml", "--out", "two", "--rounds", "1", "--json");
    expect(code).toBe(0);
    const types = out
      .trimEnd()
      .split("\n")
      .map((line) => JSON.parse(line).type);
    expect(types[0]).toBe("started");
    expect(types.at(-1)).toBe("finished");
  }, 60_000);

  it("shows help with examples", async () => {
    const { code, out } = await tributary("export", "--help");
    expect(code).toBe(0);
    expect(out).toContain("tributary export merged runs/my-job --out model");
  });
});

const cases: readonly (readonly [what: string, args: readonly string[], message: string])[] = [
  ["an unknown command", ["rum"], "did you mean run?"],
  ["an unknown flag", ["run", "job.yaml", "--ronds", "3"], "--ronds: unknown flag; did you mean --rounds?"],
  ["a flag without its value", ["generate", "x", "--prompt"], "--prompt: got no value, expected TEXT"],
  ["a missing argument", ["verify"], "verify: got 0 arguments, expected RUN"],
  ["a missing job", ["run", "nowhere.yaml"], "no such job file"],
  [
    "an unknown key",
    ["run", "unknown.yaml"],
    "roundz: got an unknown key with 3, expected a known key; did you mean rounds? (unknown.yaml:11)",
  ],
  ["a missing model", ["run", "job.yaml", "--model", "nowhere"], "nowhere: no such folder"],
  ["missing data", ["run", "job.yaml", "--data", "nowhere.jsonl"], "nowhere.jsonl: no such file"],
  ["a wrong dtype", ["run", "job.yaml", "--model", "integers"], "got dtype"],
  ["a truncated file", ["run", "job.yaml", "--model", "truncated"], "model.safetensors"],
  [
    "a model of an unknown family",
    ["run", "job.yaml", "--model", "mamba"],
    'config.json has model_type "mamba"; supported are',
  ],
  [
    "labels outside the range",
    ["run", "job.yaml", "--data", "labels.jsonl", "--task", "sequence-classification", "--data.classes", "2"],
    "has the label",
  ],
  ["a target that the model has not", ["run", "job.yaml", "--target", "c_attn,x"], "matches no module"],
];

describe("bad input", () => {
  beforeAll(async () => {
    await writeFile(join(folder, "unknown.yaml"), `${job()}roundz: 3\n`);
    await broken("truncated", { weights: (bytes) => bytes.subarray(0, bytes.length - 1000) });
    await broken("mamba", { config: { model_type: "mamba" } });
    // The header stays as long as it was: F16 becomes I16.
    await broken("integers", {
      weights: (bytes) => Buffer.from(bytes.toString("latin1").replace('"F16"', '"I16"'), "latin1"),
    });
  });

  it.each(cases)(
    "%s gives one clear error, code 2 and no stack trace",
    async (_, args, message) => {
      const { code, out, err } = await tributary(...args);
      expect(err).toContain(message);
      expect(err.startsWith("error: ")).toBe(true);
      expect(err).not.toMatch(/^\s+at /m);
      expect(code).toBe(2);
      expect(out).toBe("");
    },
    30_000,
  );

  it("is an object for machines", async () => {
    const { code, out } = await tributary("run", "unknown.yaml", "--json");
    expect(code).toBe(2);
    expect(JSON.parse(out)).toMatchObject({
      type: "error",
      code: "job-invalid",
      problems: [{ path: "roundz" }],
    });
  });
});
