import { spawnSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, it } from "vitest";
import { parseCommandArgs } from "../../src/cli/args.ts";
import { join as joinCommand } from "../../src/cli/commands/join.ts";

const document = readFileSync(new URL("../../docs/silos.md", import.meta.url), "utf8");
const [, unit = ""] = /^```ini\n([\s\S]*?)^```/m.exec(document) ?? [];
const [, program = "", typed = ""] = /^ExecStart=(\S+) (.*)$/m.exec(unit) ?? [];

it("the unit of the document starts a command of this program, with what needs no person", () => {
  expect(program).toMatch(/^\/var\/lib\/tributary\/node_modules\/\.bin\/tributary$/);
  const [name, ...argv] = typed.split(" ");
  expect(name).toBe(joinCommand.name);
  const { positionals, flags } = parseCommandArgs(joinCommand, argv);
  expect(positionals).toEqual(["https://fl.example.org"]);
  expect([...flags.keys()].sort()).toEqual(["data", "folder", "json", "policy", "yes"]);
  // What the service writes lies where the unit lets it write.
  const [, writable = ""] = /^ReadWritePaths=(.*)$/m.exec(unit) ?? [];
  expect(flags.get("folder")?.startsWith(`${writable}/`)).toBe(true);
});

const analyze = spawnSync("systemd-analyze", ["--version"]);

it.skipIf(analyze.error !== undefined)(
  "systemd finds nothing wrong with the unit (skipped where systemd-analyze is not installed)",
  () => {
    const folder = mkdtempSync(join(tmpdir(), "tributary-unit-"));
    try {
      const path = join(folder, "tributary-silo.service");
      // The program has to be there, and is not on this machine.
      writeFileSync(path, unit.replace(program, process.execPath));
      const { status, stderr } = spawnSync("systemd-analyze", ["verify", path], { encoding: "utf8" });
      expect(stderr).toBe("");
      expect(status).toBe(0);
      writeFileSync(
        path,
        unit.replace(program, process.execPath).replace("Restart=on-failure", "Restart=sometimes"),
      );
      expect(spawnSync("systemd-analyze", ["verify", path], { encoding: "utf8" }).stderr).toContain(
        "sometimes",
      );
    } finally {
      rmSync(folder, { recursive: true });
    }
  },
);
