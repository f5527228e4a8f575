import { spawnSync } from "node:child_process";
import { existsSync, readdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { lockRun } from "../../src/storage/run-lock.ts";
import { temporaryFolder } from "./temporary.ts";

const root = temporaryFolder();

describe("the lock of a run folder", () => {
  it("is held by one at a time and names its holder", () => {
    const folder = join(root, "held");
    const lock = lockRun(folder);
    expect(() => lockRun(folder)).toThrow(`in use by process ${process.pid}`);
    lock.release();
    lockRun(folder).release();
    expect(existsSync(join(folder, "lock"))).toBe(false);
  });

  it("of a process that is gone is taken over", () => {
    const folder = join(root, "gone");
    lockRun(folder).release();
    const { pid } = spawnSync(process.execPath, ["--version"]);
    writeFileSync(join(folder, "lock"), JSON.stringify({ pid, start: "1", since: "yesterday" }));
    lockRun(folder).release();
  });

  it.skipIf(process.platform !== "linux")(
    "of an earlier process with the pid of a living one is taken over",
    () => {
      const folder = join(root, "reused");
      lockRun(folder).release();
      writeFileSync(
        join(folder, "lock"),
        JSON.stringify({ pid: process.pid, start: "1", since: "yesterday" }),
      );
      lockRun(folder).release();
    },
  );

  it("sweeps what processes that are gone left on their way to it, and nothing of those alive", () => {
    const folder = join(root, "drafts");
    lockRun(folder).release();
    const { pid } = spawnSync(process.execPath, ["--version"]);
    for (const name of [`lock.new-${pid}`, `lock.stale-${pid}`, `lock.new-${process.ppid}`])
      writeFileSync(join(folder, name), "{}");
    lockRun(folder).release();
    expect(readdirSync(folder)).toEqual([`lock.new-${process.ppid}`]);
  });

  it("that was cut short is taken over", () => {
    const folder = join(root, "short");
    lockRun(folder).release();
    writeFileSync(join(folder, "lock"), '{"pid": 12');
    lockRun(folder).release();
  });
});
