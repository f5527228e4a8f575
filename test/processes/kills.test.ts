import { afterAll, beforeAll, expect, it } from "vitest";
import { stream } from "../../src/tensor/random.ts";
import { crashPoints } from "./crash-points.ts";
import { type Program, type Programs, programs } from "./programs.ts";
import { type ProcessRun, processRun } from "./run.ts";
import { clientsOf, faultFree, type Setting } from "./setting.ts";

/** Three chunks an update, so that a kill falls between them. */
const chunkBytes = 16 * 1024;
const small: Setting = { clients: 3, rounds: 3, length: 10_000, tensors: 1, seed: 3, updateMemory: 0 };
/** Milliseconds in which a coordinator is back; twice that on a machine that does something else beside. */
const backMs = 4000;

let bundled: Programs;
beforeAll(async () => {
  bundled = await programs(["coordinator", "silo"]);
});
afterAll(() => bundled.close());

/** Starts a coordinator again and says how long it took until it listened. */
async function back(run: ProcessRun, env?: Record<string, string>): Promise<{ life: Program; ms: number }> {
  const began = performance.now();
  const life = await run.coordinator(env);
  return { life, ms: performance.now() - began };
}

/** Waits for a life to be killed; fails where it ends by itself, or where a client ends. */
async function killed(life: Program, silo: Program, where: string): Promise<void> {
  const { signal } = await Promise.race([
    life.ended,
    silo.ended.then(({ code }) => {
      throw new Error(`${where}: the clients ended with code ${code}: ${JSON.stringify(silo.said.at(-1))}`);
    }),
  ]);
  expect(signal, `${where}: ${JSON.stringify(life.said.at(-1))} ${life.complaints()}`).toBe("SIGKILL");
}

/** Waits for the end of the run, and checks it against the one in which nothing failed. */
async function expectFaultFree(setting: Setting, life: Program, silos: readonly Program[]): Promise<void> {
  const { states, accepted } = await life.heard("done");
  for (const silo of silos)
    expect(await silo.ended, JSON.stringify(silo.said.at(-1))).toEqual({ code: 0, signal: null });
  life.kill("SIGTERM");
  await life.ended;
  const everybody = clientsOf(setting).map(({ id }) => id);
  expect(accepted).toEqual(Array.from({ length: setting.rounds }, () => everybody));
  expect(states).toEqual(await faultFree(setting));
  const receipts = silos.flatMap(({ said }) => said.filter(({ type }) => type === "receipt"));
  expect(receipts.map(({ client, round, status }) => `${client} ${round} ${status}`).sort()).toEqual(
    everybody
      .flatMap((id) => Array.from({ length: setting.rounds }, (_, i) => `${id} ${i + 1} accepted`))
      .sort(),
  );
}

it("a coordinator killed at every commit point of every round is back in time and ends with the fault-free states", async () => {
  const run = await processRun({ programs: bundled, setting: small, chunkBytes });
  const points = [
    ...[
      "before run-created",
      "after run-created",
      "before checkpoint-committed",
      "after checkpoint-committed",
    ].map((point) => ({ point, round: 0 })),
    ...[1, 2, 3].flatMap((round) => crashPoints.map((point) => ({ point, round }))),
    ...["before run-ended", "after run-ended"].map((point) => ({ point, round: 3 })),
  ];
  let silo: Program | undefined;
  for (const { point, round } of points) {
    const { life, ms } = await back(run, { CRASH_POINT: point, CRASH_ROUND: String(round) });
    expect(ms).toBeLessThan(backMs);
    silo ??= run.silo();
    await killed(life, silo, `"${point}" of round ${round}`);
  }
  const { life } = await back(run);
  await expectFaultFree(small, life, silo ? [silo] : []);
  await run.close();
}, 240_000);

it("a coordinator killed at a hundred moments ends with the fault-free states", async () => {
  const random = stream({ seed: 11, purpose: "moments of kills" });
  let kills = 0;
  for (let seed = 1; kills < 100; seed++) {
    const setting: Setting = { clients: 4, rounds: 5, length: 20_000, tensors: 3, seed, workMs: 50 };
    const run = await processRun({ programs: bundled, setting, chunkBytes });
    let { life } = await back(run);
    const silo = run.silo();
    for (let more = kills < 100; more; ) {
      const over = life.heard("done");
      over.catch(() => undefined);
      const timer = new Promise<"time">((resolve) =>
        setTimeout(() => resolve("time"), 20 + 400 * random.uniform()),
      );
      more = (await Promise.race([timer, over])) === "time" && kills < 100;
      if (!more) break;
      life.kill();
      kills++;
      await killed(life, silo, `kill ${kills}`);
      const next = await back(run);
      expect(next.ms).toBeLessThan(backMs);
      life = next.life;
    }
    await expectFaultFree(setting, life, [silo]);
    await run.close();
  }
}, 240_000);
