import { execFile } from "node:child_process";
import { fileURLToPath } from "node:url";
import { expect, it } from "vitest";

const root = fileURLToPath(new URL("../..", import.meta.url));

/** The last lines of a script's output if it failed. */
function failure(script: string): Promise<string> {
  return new Promise((resolve) => {
    const env = { ...process.env, NO_COLOR: "1" };
    execFile("npm", ["run", "--silent", script], { cwd: root, env, maxBuffer: 1e8 }, (error, out, err) =>
      resolve(error === null ? "" : `${out}${err}`.slice(-4000)),
    );
  });
}

it.each([
  ["check", "sources, tests and scripts have their types, and the examples those of the built package"],
  ["lint", "nothing breaks the format, the rules and the layers, and nothing is unused"],
  ["shape", "the package resolves as its users resolve it"],
])("npm run %s: %s", async (script) => expect(await failure(script)).toBe(""), 120_000);
