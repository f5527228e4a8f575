import { execFileSync } from "node:child_process";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { problemsOf } from "./kept.ts";
import { type Program, type Programs, programs } from "./programs.ts";
import { processRun } from "./run.ts";
import { clientsOf, type Setting } from "./setting.ts";

const setting: Setting = { clients: 3, rounds: 4, length: 20_000, tensors: 1, seed: 13, updateMemory: 0 };
const chunkBytes = 32 * 1024;
/** Starts of one coordinator; a fifth of them would do. */
const MOST_LIVES = 60;

/** Whether system calls of an unmodified program can be made to fail. */
function injectable(): boolean {
  try {
    execFileSync("fiu-run", ["-f", "", "-x", "true"], { stdio: "ignore" });
    return true;
  } catch {
    return false;
  }
}

let bundled: Programs;
beforeAll(async () => {
  bundled = await programs(["coordinator", "silo"]);
});
afterAll(() => bundled.close());

/** Whether a life came to the end of the run. */
const finished = (life: Program): Promise<boolean> =>
  life.heard("done").then(
    () => true,
    () => false,
  );

describe.skipIf(!injectable())(
  "a coordinator whose disk fails now and then (skipped where there is no fiu-run, Debian's fiu-utils)",
  () => {
    let seen = 0;

    it.each([
      // File writes name their place: they are pwrite, of blobs by the thread pool and of SQLite at once.
      { call: "posix/io/rw/pwrite", probability: 0.02, endings: ["code 1"] },
      { call: "posix/io/sync/fsync", probability: 0.015, endings: ["code 1"] },
      // Also sockets, pipes and the event descriptors of libuv, which aborts the process where it cannot write to one.
      { call: "posix/io/rw/write", probability: 0.004, endings: ["code 1", "SIGABRT"] },
    ])(
      "ends with an error or asks for another try where $call fails, and with the fault-free states in the end",
      async ({ call, probability, endings }) => {
        const fault = `enable_random name=${call},probability=${probability},failinfo=5`; // EIO
        const under = ["fiu-run", "-f", "", "-x", "-c", fault];
        const run = await processRun({ programs: bundled, setting, chunkBytes, under });
        const failed: Program[] = [];
        let silo: Program | undefined;
        let last: Program | undefined;
        while (!last && failed.length < MOST_LIVES) {
          const life = run.start();
          if (await run.listening(life)) {
            silo ??= run.silo();
            if (await finished(life)) last = life;
          }
          if (!last) failed.push(life);
        }
        for (const life of failed) {
          const { code, signal } = await life.ended;
          expect(endings).toContain(signal ?? `code ${code}`);
          if (signal === null)
            expect(`${JSON.stringify(life.said.at(-1))} ${life.complaints()}`).toMatch(/EIO|disk I\/O error/);
        }
        expect(last?.said.at(-1)).toMatchObject({
          accepted: Array.from({ length: setting.rounds }, () => clientsOf(setting).map(({ id }) => id)),
        });
        expect(await silo?.ended, JSON.stringify(silo?.said.at(-1))).toEqual({ code: 0, signal: null });
        last?.kill("SIGTERM");
        await last?.ended;
        const lives = last ? [...failed, last] : failed;
        const refused = lives.flatMap(({ said }) => said.filter(({ type }) => type === "refused"));
        seen += failed.length + refused.length;
        expect(
          await problemsOf({ setting, folder: join(run.folder, "coordinator"), said: silo?.said ?? [] }),
        ).toEqual([]);
        await run.close();
      },
      100_000,
    );

    // Of some 12 that are to be expected.
    it("has met failures in the tests above", () => {
      expect(seen).toBeGreaterThan(0);
    });
  },
);
