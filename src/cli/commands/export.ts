import { resolve } from "node:path";
import { exportAdapter, exportMerged } from "../../job/export.node.ts";
import type { Command } from "../command.ts";
import { usageError } from "../exit.ts";
import { lines } from "../terminal.ts";

/** `tributary export`. */
export const exportRun: Command = {
  name: "export",
  summary: "write the adapter of a run (PEFT), or the merged model (safetensors)",
  usage: "adapter|merged RUN --out DIR",
  arguments: [2, 2],
  flags: [{ name: "out", short: "o", value: "DIR", description: "new folder to write" }],
  examples: [
    ["tributary export adapter runs/my-job --out adapter", "for PEFT, vLLM and llama.cpp"],
    ["tributary export merged runs/my-job --out model", "one model folder in Hugging Face layout"],
  ],
  async run({ positionals: [kind = "", path = ""], flags }, { terminal, json }) {
    const out = flags.get("out");
    if (kind !== "adapter" && kind !== "merged")
      throw usageError(`export: got ${kind}, expected adapter or merged`);
    if (out === undefined) throw usageError("export: got no folder to write, expected --out DIR");
    const write = kind === "adapter" ? exportAdapter : exportMerged;
    const made = await write(resolve(terminal.cwd, path), resolve(terminal.cwd, out));
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
