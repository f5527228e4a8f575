import { spawn } from "node:child_process";
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, describe, expect, it } from "vitest";

const main = fileURLToPath(new URL("../../src/cli/main.ts", import.meta.url));
const base = fileURLToPath(new URL("../../examples/presidents/base", import.meta.url));
const tsx = import.meta.resolve("tsx");
let folder = "";

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "sweep-"));
  const rows = Array.from({ length: 24 }, (_, i) =>
    JSON.stringify({ text: `The ${i} people of the United States and of the world.`, silo: `s${i % 2}` }),
  );
  await writeFile(join(folder, "train.jsonl"), rows.join("\n"));
  await writeFile(
    join(folder, "job.yaml"),
    `schema: 1
model: ${base}
data: { path: train.jsonl, maxLength: 32 }
partition: { kind: natural, field: silo }
adapter: { kind: lora, rank: 2, target: [q_proj] }
strategy: { name: fedit }
local: { optimizer: { name: adamw, learningRate: 1e-3 }, steps: 1, batchSize: 2 }
rounds: 4
evaluation: { maxExamples: 2 }
generate: { prompt: The }
`,
  );
  await sweepFile("sweep.yaml", {});
});
afterAll(() => rm(folder, { recursive: true }));

const methods = { FedIT: { strategy: "fedit" }, "FedEx-LoRA": { strategy: "fedex-lora" } };
const partitions = {
  "IID 3": { kind: "iid", clients: 3 },
  "by silo": { kind: "natural", field: "silo" },
};

async function sweepFile(name: string, changes: object): Promise<void> {
  const sweep = { job: "job.yaml", methods, partitions, seeds: [1, 2], budget: { rounds: 2 }, ...changes };
  await writeFile(join(folder, name), JSON.stringify(sweep));
}

interface Outcome {
  readonly code: number | null;
  readonly out: string;
  readonly err: string;
}

/** Runs the command line; `signal` is sent once as soon as the output holds `after`. */
function tributary(
  args: readonly string[],
  { after, signal = "SIGINT" }: { readonly after?: string; readonly signal?: NodeJS.Signals } = {},
): Promise<Outcome> {
  return new Promise((resolve, reject) => {
    const child = spawn(
      process.execPath,
      ["--conditions=@tributary/source", "--import", tsx, main, ...args],
      {
        cwd: folder,
      },
    );
    let [out, err, sent] = ["", "", false];
    child.stdout.on("data", (piece: Buffer) => {
      out += piece.toString();
      if (sent || after === undefined || !out.includes(after)) return;
      sent = true;
      child.kill(signal);
    });
    child.stderr.on("data", (piece: Buffer) => {
      err += piece.toString();
    });
    child.on("error", reject);
    child.on("exit", (code) => resolve({ code, out, err }));
  });
}

function read(...path: readonly string[]): Promise<string> {
  return readFile(join(folder, ...path), "utf8");
}

function adapter(...run: readonly string[]): Promise<Buffer> {
  return readFile(join(folder, ...run, "adapter", "adapter_model.safetensors"));
}

/** The table of runs without what no two runs have alike: times and memory. */
async function comparable(out: string): Promise<string[]> {
  const [head = "", ...lines] = (await read(out, "runs.csv")).split("\r\n");
  const kept = head.split(",").flatMap((title, i) => (/ \(s\)|memory/.test(title) ? [] : [i]));
  return [head, ...lines].map((line) => kept.map((i) => line.split(",")[i]).join());
}

function column(csv: string, title: string): string[] {
  const [head = "", ...lines] = csv.trimEnd().split("\r\n");
  const at = head.split(",").indexOf(title);
  return lines.map((line) => line.split(",")[at] ?? "");
}

describe("tributary sweep", () => {
  it("runs two methods on two partitions with two seeds to the bytes of single runs, and has nothing left to do", async () => {
    const made = await tributary(["sweep", "sweep.yaml", "--out", "whole", "--workers", "2"]);
    expect(made).toMatchObject({ code: 0, err: "" });
    expect(made.out).toContain("FedEx-LoRA, by silo, seed 2: round 2 of 2, loss ");
    expect(made.out).toMatch(/^8\/8 {2}.*: perplexity [\d.]+ -> [\d.]+ in /m);
    const runs = await read("whole", "runs.csv");
    expect(column(runs, "steps")).toEqual(["6", "6", "4", "4", "6", "6", "4", "4"]);
    expect(column(runs, "ended by")).toEqual(Array(8).fill("rounds"));
    for (const peak of column(runs, "peak memory (B)")) expect(Number(peak)).toBeGreaterThan(50e6);

    const single = async (strategy: string, name: string, flags: readonly string[]): Promise<void> => {
      const keys = [
        "--strategy",
        strategy,
        "--rounds",
        "2",
        "--seed",
        "2",
        "--threads",
        "1",
        "--workers",
        "1",
      ];
      const out = `${strategy}-${name}`;
      const run = await tributary(["run", "job.yaml", "--json", "--out", out, ...keys, ...flags]);
      expect(run).toMatchObject({ code: 0, err: "" });
      expect(await adapter("whole", "runs", strategy, name, "seed-2")).toEqual(await adapter(out));
    };
    const iid = ["--partition", "iid", "--clients", "3"];
    await Promise.all([single("fedit", "iid-3", iid), single("fedex-lora", "by-silo", [])]);

    const again = await tributary(["sweep", "sweep.yaml", "--out", "whole", "--json"]);
    expect(again.code).toBe(0);
    const events = again.out
      .trimEnd()
      .split("\n")
      .map((line): { type: string } => JSON.parse(line));
    expect(events.map(({ type }) => type)).toEqual(["sweep-started", "sweep-finished"]);
    expect(events[0]).toMatchObject({ runs: 8, finished: 8 });
    expect(await read("whole", "runs.csv")).toBe(runs);
  }, 120_000);

  it("goes on after it was killed, and after Ctrl-C, to the same adapters and the same table", async () => {
    await sweepFile("parted.yaml", { partitions: { "IID 3": partitions["IID 3"] } });
    const sweep = ["sweep", "parted.yaml", "--out", "parted"];
    const killed = await tributary(sweep, { after: "round 1 of 2", signal: "SIGKILL" });
    expect(killed.code).toBeNull();
    const stopped = await tributary(sweep, { after: "seed 2 started" });
    expect(stopped.code).toBe(130);
    expect(stopped.out).toContain("stopping every run after its current step");
    expect(stopped.err).toContain("run the same command to go on");
    const resumed = await tributary(sweep);
    expect(resumed).toMatchObject({ code: 0, err: "" });
    expect(resumed.out).toMatch(/^parted: 4 runs, \d of them finished before, 2 side by side$/m);
    const whole = await comparable("whole");
    expect(await comparable("parted")).toEqual(whole.filter((line) => !line.includes("by silo")));
    for (const method of ["fedit", "fedex-lora"])
      for (const seed of ["seed-1", "seed-2"])
        expect(await adapter("parted", "runs", method, "iid-3", seed)).toEqual(
          await adapter("whole", "runs", method, "iid-3", seed),
        );
  }, 120_000);

  it("refuses a folder whose runs were made otherwise, and takes a longer budget further", async () => {
    await sweepFile("other.yaml", { set: { local: { steps: 2 } } });
    const refused = await tributary(["sweep", "other.yaml", "--out", "whole"]);
    expect(refused).toMatchObject({ code: 2, out: "" });
    expect(refused.err).toContain("local.steps: got 2, expected 1 as in the runs that ");
    expect(refused.err).toContain("give --out another folder, or --fresh to start anew");
    const two = { seeds: [1], partitions: { "by silo": partitions["by silo"] } };
    await sweepFile("longer.yaml", { ...two, budget: { rounds: 3 } });
    expect((await tributary(["sweep", "longer.yaml", "--out", "whole"])).code).toBe(0);
    expect(column(await read("whole", "runs.csv"), "rounds")).toEqual(["3", "3"]);
    const shorter = await tributary(["sweep", "sweep.yaml", "--out", "whole"]);
    expect(shorter.err).toContain("rounds: got 2, expected 3 as in the runs that ");
    const file = await tributary(["sweep", "sweep.yaml", "--out", "."]);
    expect(file.err).toContain("is no folder of a sweep and holds");
  }, 120_000);

  it("ends runs after the round in which the budget of bytes or of steps is used up", async () => {
    const one = {
      methods: { FedIT: methods.FedIT },
      seeds: [1],
      partitions: { "IID 3": partitions["IID 3"] },
    };
    const parted = await read("parted", "runs.csv");
    // Two rounds; each sends as much.
    const both = Number(column(parted, "down (B)")[0]) + Number(column(parted, "up (B)")[0]);
    const ended = async (name: string, changes: object): Promise<readonly string[]> => {
      await sweepFile(`${name}.yaml`, { ...one, ...changes });
      const made = await tributary(["sweep", `${name}.yaml`, "--out", name]);
      expect(made).toMatchObject({ code: 0, err: "" });
      const runs = await read(name, "runs.csv");
      return ["rounds", "steps", "ended by"].flatMap((title) => column(runs, title));
    };
    // Three steps a round.
    expect(
      await Promise.all([
        ended("a-round", { budget: { bytes: both / 2 } }),
        ended("a-byte-more", { budget: { bytes: both / 2 + 1 }, set: { evaluation: { every: 0 } } }),
        ended("seven-steps", { budget: { steps: 7 } }),
        ended("all-rounds", { budget: { steps: 100 } }),
      ]),
    ).toEqual([
      ["1", "3", "budget"],
      ["2", "6", "budget"],
      ["3", "9", "budget"],
      ["4", "12", "rounds"],
    ]);
    const last = column(await read("a-byte-more", "runs.csv"), "perplexity after")[0];
    expect(last).toBe(column(parted, "perplexity after")[0]);
    const run = "a-byte-more/runs/fedit/iid-3/seed-1";
    expect((await tributary(["run", run])).out).toContain("has used up its budget already");
    expect((await tributary(["inspect", run])).out).toContain("2 of 4; its budget is used up");
  }, 120_000);

  it("writes the reason of a run that fails into its row, makes the others, and puts the table into a document", async () => {
    await sweepFile("failing.yaml", {
      name: "failing",
      methods: { FedIT: {}, lost: { adapter: { target: ["nothing"] } } },
      partitions: { "by silo": partitions["by silo"] },
      seeds: [1],
      metric: "bitsPerByte",
      protocol: "best",
    });
    await writeFile(join(folder, "notes.md"), "# A\n\n<!-- sweep: failing -->\n<!-- end of sweep -->\n");
    const none = await tributary(["sweep", "failing.yaml", "--out", "failing", "--into", "job.yaml"]);
    expect(none).toMatchObject({ code: 2, out: "" });
    const { code, out, err } = await tributary([
      ...["sweep", "failing.yaml", "--out", "failing", "--workers", "2", "--into", "notes.md"],
    ]);
    expect(code).toBe(1);
    expect(err).toMatch(/^error: 1 of 2 runs in .* failed; the same command tries them again\n {2}lost\//);
    expect(out).toMatch(/^1\/2 {2}lost, by silo, seed 1 failed: .*matches no module/m);
    const runs = await read("failing", "runs.csv");
    expect(column(runs, "ended by")).toEqual(["rounds", ""]);
    expect(column(runs, "metric protocol")).toEqual(["best", "best"]);
    const bits = ["before", "after", "best"].map((when) => Number(column(runs, `bitsPerByte ${when}`)[0]));
    expect(bits[0]).toBeGreaterThan(0.5);
    expect(bits[2]).toBe(Math.min(...bits.slice(1)));
    const document: { rows: { failure?: string }[]; metricProtocol: string } = JSON.parse(
      await read("failing", "sweep.json"),
    );
    expect(document.metricProtocol).toBe("best");
    expect(document.rows[1]?.failure).toContain("matches no module");
    expect(await read("notes.md")).toMatch(
      /<!-- sweep: failing -->\n\nMean ±.*\| lost +\| 0 of 1 +\|.*failed: /s,
    );
  }, 120_000);
});
