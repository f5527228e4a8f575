import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { type FaultProxy, faultProxy } from "./fault-proxy.ts";
import { problemsOf } from "./kept.ts";
import { type Program, type Programs, programs } from "./programs.ts";
import { type ProcessRun, processRun } from "./run.ts";
import { clientsOf, type Setting } from "./setting.ts";

const leaseMs = 2000;
const setting: Setting = { clients: 2, rounds: 2, length: 5000, tensors: 1, seed: 15, workMs: 500 };

let bundled: Programs;
beforeAll(async () => {
  bundled = await programs(["coordinator", "silo"]);
});
afterAll(() => bundled.close());

function proxyTo(run: ProcessRun): Promise<FaultProxy> {
  return faultProxy({ port: () => Number(new URL(run.url()).port), seed: 1 });
}

/** Waits until the run is over everywhere, and compares it with what it promises; the accepted clients of each round. */
async function finish(
  of: Setting,
  run: ProcessRun,
  life: Program,
  silos: readonly Program[],
): Promise<readonly unknown[]> {
  const { accepted } = await life.heard("done");
  for (const { ended, said } of silos)
    expect(await ended, JSON.stringify(said.at(-1))).toEqual({ code: 0, signal: null });
  life.kill("SIGTERM");
  await life.ended;
  const said = silos.flatMap((silo) => silo.said);
  const folder = join(run.folder, "coordinator");
  expect(await problemsOf({ setting: of, folder, said })).toEqual([]);
  await run.close();
  return accepted as readonly unknown[];
}

const everybody = ["c000", "c001"];

it("an update that is longer on its way than a lease lasts keeps its lease", async () => {
  const slow: Setting = { ...setting, length: 60_000, workMs: 0 };
  const run = await processRun({
    programs: bundled,
    setting: slow,
    leaseMs,
    heartbeatMs: 500,
    chunkBytes: 65_536,
  });
  const life = await run.coordinator();
  const silos: Program[] = [];
  const proxies: FaultProxy[] = [];
  for (const { id } of clientsOf(slow)) {
    const proxy = await proxyTo(run);
    proxy.faults.link = { up: 56_000, down: 56_000 };
    proxies.push(proxy);
    silos.push(run.silo({ clients: [id], url: proxy.url }));
  }
  const opened = await life.heard("round-opened", ({ round }) => round === 2);
  const closed = await life.heard("round-closed", ({ round }) => round === 2);
  expect(Number(closed.at) - Number(opened.at)).toBeGreaterThan(2 * leaseMs);
  expect(await finish(slow, run, life, silos)).toEqual([everybody, everybody]);
  expect(life.said.filter(({ type }) => type === "client-dropped")).toEqual([]);
  for (const proxy of proxies) await proxy.close();
}, 60_000);

describe("a network that is down for longer than a lease", () => {
  it.each(["both", "up", "down"] as const)(
    "(%s) ends the lease; the client comes back to its round, and everybody counts",
    async (direction) => {
      const run = await processRun({ programs: bundled, setting, leaseMs, heartbeatMs: 200 });
      const life = await run.coordinator();
      const proxy = await proxyTo(run);
      const near = run.silo({ clients: ["c001"] });
      const far = run.silo({ clients: ["c000"], url: proxy.url });
      await far.heard("training", ({ round }) => round === 1);
      proxy.faults.hold = direction;
      await life.heard("client-dropped");
      delete proxy.faults.hold;
      expect(await finish(setting, run, life, [near, far])).toEqual([everybody, everybody]);
      const leases = life.said.filter(({ type, round }) => type === "client-started" && round === 1);
      // Lent again, unless the update of the lease that had ended came first.
      expect([2, 3]).toContain(leases.length);
      await proxy.close();
    },
  );

  it("does not hold a round that has its quorum, though no connection was closed", async () => {
    const sparse: Setting = { ...setting, quorum: 1 };
    const run = await processRun({
      programs: bundled,
      setting: sparse,
      leaseMs,
      graceMs: 1000,
      heartbeatMs: 200,
    });
    const life = await run.coordinator();
    const proxy = await proxyTo(run);
    const near = run.silo({ clients: ["c001"] });
    const far = run.silo({ clients: ["c000"], url: proxy.url });
    await far.heard("training");
    proxy.faults.hold = "both";
    const dropped = await life.heard("client-dropped");
    const closed = await life.heard("round-closed");
    expect(Number(closed.at) - Number(dropped.at)).toBeLessThan(1500);
    delete proxy.faults.hold;
    expect((await finish(sparse, run, life, [near, far]))[0]).toEqual(["c001"]);
    expect(far.said.filter(({ type }) => type === "receipt")[0]).toMatchObject({
      round: 1,
      status: "rejected",
    });
    await proxy.close();
  });
});

it("a client that went while the coordinator was down does not hold a round that has its quorum", async () => {
  const sparse: Setting = { ...setting, quorum: 1 };
  const run = await processRun({ programs: bundled, setting: sparse, leaseMs, graceMs: 1000 });
  const before = await run.coordinator();
  const lost = run.silo({ clients: ["c000"], setting: { ...sparse, workMs: 60_000 } });
  await lost.heard("training");
  before.kill();
  lost.kill();
  await Promise.all([before.ended, lost.ended]);
  const life = await run.coordinator();
  const near = run.silo({ clients: ["c001"] });
  const dropped = await life.heard("client-dropped");
  const closed = await life.heard("round-closed");
  expect(Number(closed.at) - Number(dropped.at)).toBeLessThan(1500);
  const back = run.silo({ clients: ["c000"] });
  expect((await finish(sparse, run, life, [near, back]))[0]).toEqual(["c001"]);
});
