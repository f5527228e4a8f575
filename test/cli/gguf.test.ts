import { spawn } from "node:child_process";
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { Command } from "../../src/cli/command.ts";
import { exportRun } from "../../src/cli/commands/export.ts";
import { generate } from "../../src/cli/commands/generate.ts";
import { inspect } from "../../src/cli/commands/inspect.ts";
import { verify } from "../../src/cli/commands/verify.ts";
import { readTokenizer } from "../../src/data/files.node.ts";
import { fileSource, openFolder } from "../../src/formats/files.node.ts";
import { ggufCheckpoint } from "../../src/formats/gguf/checkpoint.ts";
import { openGguf } from "../../src/formats/gguf/gguf.ts";
import { readPeftAdapter } from "../../src/formats/peft.ts";
import { exportMerged } from "../../src/job/export.node.ts";
import { exportAdapterGguf, exportMergedGguf } from "../../src/job/export-gguf.node.ts";
import { modelDigest } from "../../src/job/model.node.ts";
import { mergedWeights, openTuned } from "../../src/job/tuned.ts";
import type { Tensor } from "../../src/tensor/tensor.ts";
import { printed as printedIn } from "./printed.ts";

const main = fileURLToPath(new URL("../../src/cli/main.ts", import.meta.url));
const base = fileURLToPath(new URL("../../examples/presidents/base", import.meta.url));
const tsx = import.meta.resolve("tsx");
let folder = "";

interface Outcome {
  readonly code: number | null;
  readonly out: string;
  readonly err: string;
}

function tributary(...args: string[]): Promise<Outcome> {
  return new Promise((resolve, reject) => {
    const child = spawn(
      process.execPath,
      ["--conditions=@tributary/source", "--import", tsx, main, ...args],
      { cwd: folder, env: { ...process.env, NO_COLOR: "1" } },
    );
    let [out, err] = ["", ""];
    child.stdout.on("data", (chunk) => (out += String(chunk)));
    child.stderr.on("data", (chunk) => (err += String(chunk)));
    child.on("error", reject);
    child.on("close", (code) => resolve({ code, out, err }));
  });
}

/** What a command prints, without a process of its own. */
function printed(
  command: Command,
  positionals: readonly string[],
  flags: Readonly<Record<string, string>> = {},
): Promise<string> {
  const typed = Object.entries(flags).flatMap(([name, value]) => [`--${name}`, value]);
  return printedIn(folder, command, ...positionals, ...typed);
}

const bytesOf = ({ data }: Tensor): Buffer => Buffer.from(data.buffer, data.byteOffset, data.byteLength);

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "tributary-gguf-"));
  const rows = Array.from({ length: 24 }, (_, i) => ({ text: `The ${i} people of the United States.` }));
  await writeFile(join(folder, "train.jsonl"), rows.map((row) => `${JSON.stringify(row)}\n`).join(""));
  await writeFile(
    join(folder, "job.yaml"),
    `schema: 1
model: base.gguf
data: { path: train.jsonl, maxLength: 32 }
partition: { kind: iid, clients: 2 }
adapter: { kind: lora, rank: 2, target: [q_proj, down_proj] }
strategy: { name: fedit }
local: { optimizer: { name: adamw, learningRate: 1e-2 }, steps: 2, batchSize: 2 }
rounds: 1
evaluation: { maxExamples: 2 }
workers: 1
`,
  );
  await exportMergedGguf(base, join(folder, "base.gguf"), { type: "F32" });
  const { code, err } = await tributary("run", "job.yaml", "--out", "run");
  if (code !== 0) throw new Error(err);
}, 120_000);
afterAll(() => rm(folder, { recursive: true }));

describe("a GGUF file in place of a model folder", () => {
  it("is trained, verified and generated from", async () => {
    expect(await printed(verify, ["run"])).toMatch(/^verified: \d+ events, 1 rounds, adapter files$/m);
    const flags = { prompt: "My fellow", temperature: "0", "max-tokens": "8" };
    const text = await printed(generate, ["base.gguf"], flags);
    expect(text).toBe(await printed(generate, [base], flags));
    expect(text.length).toBeGreaterThan("My fellow".length + 8);
  }, 60_000);

  it("is shown with its metadata, types and shapes", async () => {
    const out = await printed(inspect, ["base.gguf"], { limit: "2" });
    expect(out).toMatch(/^base\.gguf: GGUF 3$/m);
    expect(out).toMatch(/^general\.architecture +llama$/m);
    expect(out).toMatch(/^tokenizer\.ggml\.tokens +4096 strings$/m);
    expect(out).toMatch(/^token_embd\.weight +F32 +\[4096, 192\]/m);
  }, 60_000);

  it("has a digest of its bytes, whatever its name", async () => {
    await writeFile(join(folder, "copy.gguf"), await readFile(join(folder, "base.gguf")));
    const digest = await modelDigest(join(folder, "base.gguf"));
    expect(await modelDigest(join(folder, "copy.gguf"))).toBe(digest);
    expect(digest).toMatch(/^[0-9a-f]{64}$/);
    expect(digest).not.toBe(await modelDigest(base));
  });
});

describe("export to GGUF", () => {
  it("writes the merged model with its tokenizer", async () => {
    const run = join(folder, "run");
    const out = await printed(exportRun, ["merged", "run"], { gguf: "merged.gguf", type: "f32" });
    expect(out).toMatch(/merged\.gguf: 47 tensors, /);
    const tuned = await openTuned(run);
    const merged = mergedWeights(tuned);
    const opened = await openTuned(join(folder, "merged.gguf"));
    expect([...opened.model.weights.keys()]).toEqual([...merged.keys()]);
    for (const [name, tensor] of merged) {
      const read = opened.model.weights.get(name);
      expect(read !== undefined && bytesOf(read).equals(bytesOf(tensor))).toBe(true);
    }
    const query = "model.layers.0.self_attn.q_proj.weight";
    const [after, before] = [merged.get(query), tuned.model.weights.get(query)];
    expect(after && before && bytesOf(after).equals(bytesOf(before))).toBe(false);
    const text = "We the people, 1787";
    expect(opened.tokenizer.encode(text)).toEqual((await readTokenizer(base)).encode(text));
  }, 60_000);

  it("Q8_0 is about half of F16, and near it", async () => {
    const sizes: number[] = [];
    for (const type of ["F16", "Q8_0"] as const) {
      const file = join(folder, `${type}.gguf`);
      sizes.push((await exportMergedGguf(base, file, { type })).bytes);
      const { model } = await openTuned(file);
      const exact = (await openTuned(base)).model;
      for (const [name, { data }] of exact.weights) {
        const values = Float32Array.from(Array.from<number | bigint, number>(data, Number));
        const got = model.weights.get(name)?.data ?? [];
        const most = values.reduce((largest, value) => Math.max(largest, Math.abs(value)), 0);
        const far = values.reduce(
          (largest, value, i) => Math.max(largest, Math.abs(value - Number(got[i]))),
          0,
        );
        // Half a step of 127, or half a unit of eleven bits.
        expect(far).toBeLessThanOrEqual(most * (type === "Q8_0" ? 0.5 / 127 + 2 ** -10 : 2 ** -11));
      }
    }
    expect((sizes[1] ?? 0) / (sizes[0] ?? 1)).toBeCloseTo(34 / 64, 1);
  });

  it("writes an adapter whose pairs are those of the run", async () => {
    const file = join(folder, "adapter.gguf");
    await exportAdapterGguf(join(folder, "run"), file, { type: "F32" });
    const gguf = await openGguf(await fileSource(file), "adapter.gguf");
    const { config, params } = await readPeftAdapter(await openFolder(join(folder, "run", "adapter")));
    expect(gguf.metadata.get("adapter.lora.alpha")).toEqual({ type: "float32", value: config.alpha });
    expect(gguf.names.length).toBe(params.size);
    const module = "model.layers.3.mlp.down_proj";
    expect((await gguf.tensor("blk.3.ffn_down.weight.lora_a")).data).toEqual(
      params.get(`${module}.lora_A.weight`)?.data,
    );
    expect((await gguf.tensor("blk.3.ffn_down.weight.lora_b")).data).toEqual(
      params.get(`${module}.lora_B.weight`)?.data,
    );
    await expect(ggufCheckpoint(gguf)).rejects.toThrow(/general\.type is "adapter"/);
  });

  it("a folder made from a GGUF file has the tokenizer's files", async () => {
    const made = await exportMerged(join(folder, "base.gguf"), join(folder, "folder"));
    expect([...made.files].sort()).toEqual([
      "config.json",
      "model.safetensors",
      "tokenizer.json",
      "tokenizer_config.json",
    ]);
    const text = "Mr. President's 2 cents";
    const again = await readTokenizer(join(folder, "folder"));
    expect(again.encode(text)).toEqual((await readTokenizer(base)).encode(text));
  });

  it.each([
    ["no place", ["merged", "run"], {}, "got no place to write, expected --out DIR or --gguf FILE"],
    ["two places", ["merged", "run"], { out: "x", gguf: "y" }, "got both --out and --gguf"],
    [
      "an unknown type",
      ["merged", "run"],
      { gguf: "y", type: "q4_0" },
      "got --type q4_0, expected f32, f16, q8_0",
    ],
    ["blocks for an adapter", ["adapter", "run"], { gguf: "y", type: "q8_0" }, "expected f32, f16"],
    ["a type without --gguf", ["run"], { out: "x", type: "f16" }, "--type goes with --gguf"],
    ["a file that exists", ["run"], { gguf: "base.gguf" }, "exists already; give --gguf another name"],
    ["a model without an adapter", ["adapter", "base.gguf"], { gguf: "y" }, "is no run folder"],
  ])("refuses %s", async (_, positionals, flags, message) => {
    await expect(printed(exportRun, positionals, flags)).rejects.toThrow(message);
  });
});
