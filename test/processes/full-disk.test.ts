import { execFileSync } from "node:child_process";
import { mkdir, mkdtemp, readdir, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { type Program, type Programs, programs } from "./programs.ts";
import { processRun } from "./run.ts";
import { faultFree, type Setting } from "./setting.ts";

const setting: Setting = { clients: 3, rounds: 3, length: 100_000, tensors: 1, seed: 6, updateMemory: 0 };
const chunkBytes = 32 * 1024;

/** Whether this process may mount a small file system. */
function mountable(): boolean {
  try {
    execFileSync("unshare", ["-m", "sh", "-c", "mount -t tmpfs -o size=64k none /mnt"], { stdio: "ignore" });
    return true;
  } catch {
    return false;
  }
}

let bundled: Programs;
let disk = "";
beforeAll(async () => {
  bundled = await programs(["coordinator", "silo"]);
  disk = await mkdtemp(join(tmpdir(), "tributary-small-disk-"));
});
afterAll(async () => {
  await bundled.close();
  await rm(disk, { recursive: true, force: true });
});

describe.skipIf(!mountable())(
  "a coordinator on a small disk (skipped where this process may not mount one)",
  () => {
    it.each([
      ["chunks", 400 * 1024],
      ["the journal too", 0],
    ] as const)(
      "that has no room for %s asks clients to wait, and ends with the fault-free states once there is room",
      async (_, left) => {
        execFileSync("mount", ["-t", "tmpfs", "-o", "size=8m", "tmpfs", disk]);
        try {
          const folder = join(disk, "coordinator");
          await mkdir(folder);
          const run = await processRun({ programs: bundled, setting, chunkBytes, at: folder });
          let life: Program = await run.coordinator();
          await life.heard("round-opened");
          // What another program writes until little or nothing is left.
          const ballast = join(disk, "ballast");
          await fill(ballast, left);
          const silo = run.silo();
          const waits = await silo.heard("waiting");
          expect(waits.why).toMatch(
            left > 0 ? /cannot write at the moment/ : /cannot write|failed|cannot be reached/,
          );
          const refused = life.said.filter(({ type }) => type === "refused");
          if (left > 0) expect(new Set(refused.map(({ status }) => status))).toEqual(new Set([507]));
          expect(life.said.filter(({ type }) => type === "update-accepted")).toEqual([]);
          await rm(ballast);
          const ended = await Promise.race([
            life.heard("done").then(
              () => false,
              () => true,
            ),
            life.ended.then(() => true),
          ]);
          // A journal that could not be written is read again from the disk: the coordinator ends, and is started again.
          if (ended) life = await run.coordinator();
          const { states } = await life.heard("done");
          expect(await silo.ended, JSON.stringify(silo.said.at(-1))).toMatchObject({ code: 0 });
          life.kill("SIGTERM");
          await life.ended;
          expect(states).toEqual(await faultFree(setting));
          const names = await readdir(join(folder, "blobs"), { recursive: true });
          expect(names.filter((name) => name.includes(".tmp-"))).toEqual([]);
          await run.close();
        } finally {
          execFileSync("umount", [disk]);
        }
      },
    );
  },
);

/** Fills a file system to so many bytes below its end. */
async function fill(path: string, left: number): Promise<void> {
  const free = (): number =>
    Number(execFileSync("stat", ["-f", "-c", "%a", disk]).toString()) *
    Number(execFileSync("stat", ["-f", "-c", "%S", disk]).toString());
  await writeFile(path, new Uint8Array(Math.max(0, free() - left)));
}
