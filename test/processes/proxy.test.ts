import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { type FaultProxy, type Faults, faultProxy } from "./fault-proxy.ts";
import { type Program, type Programs, programs } from "./programs.ts";
import { type ProcessRun, type ProcessRunOptions, processRun } from "./run.ts";
import { faultFree, type Setting } from "./setting.ts";

const setting: Setting = { clients: 3, rounds: 3, length: 20_000, tensors: 4, seed: 5 };
const chunkBytes = 8 * 1024;

let bundled: Programs;
beforeAll(async () => {
  bundled = await programs(["coordinator", "silo"]);
});
afterAll(() => bundled.close());

interface Proxied {
  readonly run: ProcessRun;
  readonly proxy: FaultProxy;
  readonly life: Program;
}

/** A coordinator behind a proxy. */
async function proxied(
  faults: Faults,
  options: Omit<ProcessRunOptions, "programs" | "setting"> & { readonly setting?: Setting } = {},
): Promise<Proxied> {
  const run = await processRun({ programs: bundled, setting, chunkBytes, ...options });
  const life = await run.coordinator();
  const proxy = await faultProxy({ port: () => Number(new URL(run.url()).port), seed: 1, faults });
  return { run, proxy, life };
}

/** Waits until the run is over everywhere; the states of its rounds. */
async function finish({ run, proxy, life }: Proxied, silos: readonly Program[]): Promise<unknown> {
  const { states } = await life.heard("done");
  for (const { ended, said } of silos)
    expect(await ended, JSON.stringify(said.at(-1))).toMatchObject({ code: 0 });
  life.kill("SIGTERM");
  await life.ended;
  await proxy.close();
  await run.close();
  return states;
}

describe("a run behind a proxy ends with the fault-free states", () => {
  it("that cuts every connection after some bytes", async () => {
    const parts = await proxied({ cutAfter: 60_000 });
    const silo = parts.run.silo({ url: parts.proxy.url });
    expect(await finish(parts, [silo])).toEqual(await faultFree(setting));
    expect(parts.proxy.cuts()).toBeGreaterThan(setting.clients * setting.rounds);
  });

  it("that turns a bit in one body of twenty: each of them is refused, and sent again", async () => {
    const parts = await proxied({ bitFlips: 0.05, smallest: chunkBytes });
    const silo = parts.run.silo({ url: parts.proxy.url });
    expect(await finish(parts, [silo])).toEqual(await faultFree(setting));
    const refused = parts.life.said.filter(({ type }) => type === "refused");
    expect(parts.proxy.flipped()).toBeGreaterThan(2);
    expect(refused.map(({ code }) => code)).toEqual(Array(parts.proxy.flipped()).fill("wrong-digest"));
  });

  it("that is late, now more and now less, and slow", async () => {
    const slow: Setting = { ...setting, rounds: 2, tensors: 1 };
    const parts = await proxied({ latencyMs: 5, jitterMs: 20, bytesPerSecond: 1_000_000 }, { setting: slow });
    const silo = parts.run.silo({ url: parts.proxy.url });
    expect(await finish(parts, [silo])).toEqual(await faultFree(slow));
  });

  it.each(["up", "down", "both"] as const)(
    "that swallows everything (%s) for a while and then cuts",
    async (blackHole) => {
      const parts = await proxied({});
      const silo = parts.run.silo({ url: parts.proxy.url });
      for (let round = 1; round <= 2; round++) {
        await silo.heard("receipt", (line) => line.round === round);
        parts.proxy.faults.blackHole = blackHole;
        await new Promise((resolve) => setTimeout(resolve, 500));
        delete parts.proxy.faults.blackHole;
        parts.proxy.cutAll();
      }
      expect(await finish(parts, [silo])).toEqual(await faultFree(setting));
    },
  );

  it("that leaves the server with connections that no client holds any more", async () => {
    const parts = await proxied({ cutAfter: 150_000, halfOpen: true });
    const silo = parts.run.silo({ url: parts.proxy.url });
    expect(await finish(parts, [silo])).toEqual(await faultFree(setting));
    expect(parts.proxy.cuts()).toBeGreaterThan(setting.rounds);
  });
});
