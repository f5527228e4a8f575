import { execFile } from "node:child_process";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { expect, it } from "vitest";

const root = fileURLToPath(new URL("../..", import.meta.url));

it("the packed package, installed into an empty folder, imports, type-checks, answers and bundles for a browser", async () => {
  const { stdout } = await promisify(execFile)(process.execPath, ["scripts/package.mjs"], { cwd: root });
  expect(stdout.trim().split("\n")).toEqual([
    expect.stringMatching(/^packed {6}\d+ files, /),
    expect.stringMatching(/^imported {4}\d+ entries on Node\.js /),
    expect.stringMatching(/^types {7}\d+ entries, \d+ examples$/),
    expect.stringMatching(/^command {5}tributary \d/),
    expect.stringMatching(/^page {8}\d/),
  ]);
}, 180_000);
