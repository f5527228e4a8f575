import { mkdir, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { type Outcome, startProgram } from "./program.ts";

const base = fileURLToPath(new URL("../../examples/presidents/base", import.meta.url));
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

/** Runs the command line as a person would, without a terminal. */
function tributary(...args: string[]): Promise<Outcome> {
  return startProgram(folder, ...args).ended;
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
    const program = startProgram(folder, "run", "job.yaml", "--out", "parted");
    await program.heard(/ 1\/2 /);
    program.kill("SIGINT");
    const stopped = await program.ended;
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
  ["a missing sweep", ["sweep", "nowhere.yaml"], "nowhere.yaml: no such file"],
  ["a job in place of a sweep", ["sweep", "job.yaml"], "things to correct"],
  ["a report of nothing", ["report", "nowhere"], "nowhere: no such folder"],
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
  [
    "a label that is no class",
    ["run", "job.yaml", "--data", "words.jsonl", "--task", "sequence-classification", "--data.classes", "2"],
    'has the label "maybe"',
  ],
  [
    "data without a record",
    ["run", "job.yaml", "--data", "empty.jsonl"],
    "hold no records; give files with data",
  ],
  ["data that is not JSON", ["run", "job.yaml", "--data", "broken.jsonl"], "broken.jsonl:2: got a line"],
  [
    "a job that is a list",
    ["run", "list.yaml"],
    "job: got a list of 2, expected keys such as model and data; correct list.yaml",
  ],
  [
    "a quorum that no round can reach",
    ["run", "job.yaml", "--quorum", "3"],
    "quorum: got 3, expected at most 2",
  ],
  ["a run folder that is a file", ["run", "job.yaml", "--out", "train.jsonl"], "train.jsonl: cannot be made"],
  [
    "a config that is not JSON",
    ["run", "job.yaml", "--model", "garbled"],
    "garbled: model: config.json is not JSON",
  ],
  ["a target that the model has not", ["run", "job.yaml", "--target", "c_attn,x"], "matches no module"],
];

describe("bad input", () => {
  beforeAll(async () => {
    await writeFile(join(folder, "unknown.yaml"), `${job()}roundz: 3\n`);
    await broken("truncated", { weights: (bytes) => bytes.subarray(0, bytes.length - 1000) });
    await writeFile(join(folder, "list.yaml"), "[1, 2]\n");
    await writeFile(join(folder, "empty.jsonl"), "");
    await writeFile(join(folder, "broken.jsonl"), '{"text": "a", "silo": "x"}\n{"text": \n');
    await writeFile(
      join(folder, "words.jsonl"),
      '{"text": "a b c", "silo": "x", "label": "maybe"}\n'.repeat(8),
    );
    await writeFile(join(await broken("garbled", {}), "config.json"), "{");
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

  it("leaves a run that exists as it was: every mistake is refused, and the run goes on to the same bytes", async () => {
    const model = await broken("base-copy", {});
    const start = ["run", "job.yaml", "--model", model, "--out", "kept"];
    expect((await tributary(...start, "--rounds", "1")).code).toBe(0);
    const mistakes: readonly (readonly [args: readonly string[], message: string])[] = [
      [["--rounds", "2", "--seed", "5"], "seed: got 5, expected 0 as in the run in"],
      [["--rounds", "2", "--data", "labels.jsonl", "--data.limit", "12"], "data.limit: got 12"],
      [["--rounds", "2", "--data", "labels.jsonl"], "data.path: got"],
    ];
    for (const [args, message] of mistakes) {
      const { code, err } = await tributary(...start, ...args);
      expect(err).toContain(message);
      expect(code).toBe(2);
    }
    /** What the run says while a file is another one. */
    const saidWith = async (
      file: string,
      change: (bytes: Buffer) => Uint8Array | string,
    ): Promise<string> => {
      const bytes = await readFile(file);
      await writeFile(file, change(bytes));
      const { code, err } = await tributary(...start, "--rounds", "2");
      await writeFile(file, bytes);
      expect(code).toBe(2);
      return err;
    };
    expect(
      await saidWith(join(folder, "train.jsonl"), (bytes) =>
        String(bytes).split("\n").slice(0, 12).join("\n"),
      ),
    ).toMatch(/silo \w+ has \d+ training examples, it had \d+/);
    expect(await saidWith(join(model, "model.safetensors"), (bytes) => bytes.subarray(0, -1000))).toContain(
      "model.safetensors",
    );
    expect((await tributary(...start, "--rounds", "2")).code).toBe(0);
    expect(JSON.parse((await tributary("verify", "kept", "--json")).out)).toMatchObject({ verified: true });
    expect((await tributary(...start.slice(0, 4), "--out", "calm")).code).toBe(0);
    expect(await adapter("kept")).toEqual(await adapter("calm"));
  }, 180_000);

  it("names the client whose loss is no number and the silo without records, and goes on with the others", async () => {
    const rows = (silo: string, count: number): string =>
      Array.from(
        { length: count },
        (_, i) => `${JSON.stringify({ text: `The people ${i} of ${silo}` })}\n`,
      ).join("");
    await mkdir(join(folder, "silos"));
    for (const [name, count] of [
      ["large", 12],
      ["small", 2],
      ["none", 0],
    ] as const)
      await writeFile(join(folder, "silos", `${name}.jsonl`), rows(name, count));
    // At this rate a first step is finite and a second one is not; the small silo makes one.
    const text = job()
      .replace("path: train.jsonl", "path: [silos/large.jsonl, silos/small.jsonl, silos/none.jsonl]")
      .replace("kind: natural, field: silo", "kind: files")
      .replace("1e-3 }, steps: 1", "1e19 }, epochs: 1")
      .replace("rounds: 2", "rounds: 1");
    await writeFile(join(folder, "partial.yaml"), text);
    const { code, out } = await tributary("run", "partial.yaml", "--out", "partial");
    expect(out).toContain("none.jsonl is left out: it holds no records");
    expect(out).toMatch(/large dropped: loss-not-finite: training: step \d of \d+: the loss is NaN/);
    expect(out).toMatch(/1\/1 +1\/2 /);
    expect(code).toBe(0);
  }, 60_000);

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
