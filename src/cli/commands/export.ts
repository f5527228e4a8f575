import { resolve } from "node:path";
import type { GgufFloat } from "../../formats/gguf/export.ts";
import { exportAdapter, exportMerged } from "../../job/export.node.ts";
import { type ExportedGguf, exportAdapterGguf, exportMergedGguf } from "../../job/export-gguf.node.ts";
import { bytes } from "../../job/units.ts";
import { clientSpec } from "../client-flag.ts";
import type { Command } from "../command.ts";
import { usageError } from "../exit.ts";
import { lines } from "../terminal.ts";

const types: ReadonlyMap<string, GgufFloat> = new Map([
  ["f32", "F32"],
  ["f16", "F16"],
  ["q8_0", "Q8_0"],
]);

/** `tributary export`. */
export const exportRun: Command = {
  name: "export",
  summary: "write the adapter of a run (PEFT), or the merged model (safetensors); either one as GGUF",
  usage: "[adapter|merged] RUN --out DIR | --gguf FILE",
  arguments: [1, 2],
  flags: [
    { name: "out", short: "o", value: "DIR", description: "new folder to write" },
    { name: "gguf", value: "FILE", description: "new file to write, for llama.cpp" },
    clientSpec,
    {
      name: "type",
      value: "TYPE",
      description: "how --gguf stores matrices: f32, f16 or q8_0 (default: f16; of an adapter: f32)",
    },
  ],
  examples: [
    ["tributary export adapter runs/my-job --out adapter", "for PEFT, vLLM and llama.cpp"],
    ["tributary export merged runs/my-job --out model", "one model folder in Hugging Face layout"],
    ["tributary export merged runs/my-job --gguf model.gguf --type q8_0", "one file for llama.cpp"],
    ["tributary export adapter runs/my-job --gguf adapter.gguf", "for llama.cpp --lora"],
  ],
  async run({ positionals, flags }, { terminal, json }) {
    const [kind, path] = positionals.length === 1 ? ["merged", ...positionals] : positionals;
    if ((kind !== "adapter" && kind !== "merged") || path === undefined)
      throw usageError(`export: got ${kind}, expected adapter or merged`);
    const out = flags.get("out");
    const gguf = flags.get("gguf");
    if ((out === undefined) === (gguf === undefined)) {
      const got = out === undefined ? "no place to write" : "both --out and --gguf";
      throw usageError(`export: got ${got}, expected --out DIR or --gguf FILE`);
    }
    const run = resolve(terminal.cwd, path);
    const client = flags.get(clientSpec.name);
    if (gguf !== undefined) {
      const made = await writeGguf(kind, run, resolve(terminal.cwd, gguf), {
        named: flags.get("type"),
        client,
      });
      if (json) return terminal.out(`${JSON.stringify({ kind, ...made })}\n`);
      return terminal.out(
        lines([
          `${made.file}: ${made.tensors} tensors, ${bytes(made.bytes)}`,
          ...made.notes.map((note) => `note: ${note}`),
        ]),
      );
    }
    if (flags.has("type")) throw usageError("export: --type goes with --gguf, expected --gguf FILE");
    const write = kind === "adapter" ? exportAdapter : exportMerged;
    const made = await write(run, resolve(terminal.cwd, out ?? ""), { client });
    if (json) return terminal.out(`${JSON.stringify({ kind, ...made })}\n`);
    const { folder, files, notes, largestDifference } = made;
    const probe =
      largestDifference === undefined
        ? []
        : [`largest difference of a logit, adapter against merged: ${largestDifference.toExponential(1)}`];
    terminal.out(
      lines([`${folder}: ${files.join(", ")}`, ...probe, ...notes.map((note) => `note: ${note}`)]),
    );
  },
};

function writeGguf(
  kind: "adapter" | "merged",
  run: string,
  file: string,
  { named, client }: { readonly named: string | undefined; readonly client: string | undefined },
): Promise<ExportedGguf> {
  const type = types.get((named ?? (kind === "adapter" ? "f32" : "f16")).toLowerCase());
  if (type === undefined || (kind === "adapter" && type === "Q8_0")) {
    const known = [...types.keys()].filter((each) => kind === "merged" || each !== "q8_0");
    throw usageError(`export: got --type ${named}, expected ${known.join(", ")}`);
  }
  return kind === "adapter" && type !== "Q8_0"
    ? exportAdapterGguf(run, file, { type, client })
    : exportMergedGguf(run, file, { type, client });
}
