import { readFile } from "node:fs/promises";
import process from "node:process";
import { runtime } from "#ort";
import type { Command } from "../command.ts";

/** `tributary version`. */
export const version: Command = {
  name: "version",
  summary: "the versions of tributary, Node.js and ONNX Runtime",
  usage: "",
  arguments: [0, 0],
  flags: [],
  examples: [["tributary version --json", "for a bug report"]],
  async run(_, { terminal, json }) {
    const versions = await readVersions();
    if (json) terminal.out(`${JSON.stringify(versions)}\n`);
    else
      terminal.out(
        `${Object.entries(versions)
          .map(([name, text]) => `${name} ${text}`)
          .join(", ")}\n`,
      );
  },
};

/** The versions of this program and of what it runs on. */
export async function readVersions(): Promise<Readonly<Record<string, string>>> {
  const { version: own } = JSON.parse(
    await readFile(new URL("../../../package.json", import.meta.url), "utf8"),
  );
  return { tributary: String(own), node: process.versions.node, [runtime.name]: runtime.version };
}
