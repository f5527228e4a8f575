import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, beforeAll, expect, it } from "vitest";
import { nodeEnv } from "../../src/storage/node-env.ts";
import { openRunFolder } from "../../src/storage/run-folder.ts";
import { connect } from "../../src/transports/http/connection.ts";
import { messages } from "../../src/transports/http/protocol.ts";
import { bodyDigest, readClientKey, signatureOf } from "../../src/transports/http/signature.ts";
import type { AttackersOptions } from "./attackers.ts";
import { type Program, type Programs, programs, type Said } from "./programs.ts";
import { type ProcessRun, processRun } from "./run.ts";
import { clientsOf, faultFree, type Setting } from "./setting.ts";

const setting: Setting = {
  clients: 100,
  rounds: 4,
  length: 5000,
  tensors: 2,
  seed: 12,
  updateMemory: 0,
  workMs: 2000,
};

let bundled: Programs;
beforeAll(async () => {
  bundled = await programs(["coordinator", "silo", "attackers"]);
});
afterAll(() => bundled.close());

/** Largest resident set so far in MB, where the system tells. */
function peak({ pid }: Program): number {
  const path = `/proc/${pid}/status`;
  const line = existsSync(path) ? /VmHWM:\s+(\d+) kB/.exec(readFileSync(path, "utf8")) : null;
  return Number(line?.[1] ?? 0) / 1000;
}

/** A signed request of a client, sent once by its owner and then known to whoever listened. */
async function overheard(run: ProcessRun, client: string): Promise<AttackersOptions["seen"]> {
  const path = "/v1/runs/toy/blobs/missing";
  const body = JSON.stringify({ ids: [] });
  const headers = signatureOf(
    { method: "POST", path, body: bodyDigest(body), client },
    readClientKey(run.keyOf(client)),
    Date.now(),
  );
  const { status } = await fetch(`${run.url()}${path}`, { method: "POST", headers, body });
  expect(status).toBe(200);
  return { path, headers, body };
}

/** Milliseconds that an honest client waits for answers, one request after the other, until something happens. */
async function waits(run: ProcessRun, client: string, until: Promise<unknown>): Promise<number[]> {
  const halt = new AbortController();
  const connection = await connect({ url: run.url(), env: nodeEnv(), signal: halt.signal });
  const signer = { client, key: readClientKey(run.keyOf(client)) };
  const times: number[] = [];
  let over = false;
  const stop = (): void => {
    over = true;
  };
  until.then(stop, stop);
  while (!over) {
    const began = performance.now();
    await connection.ask({
      method: "POST",
      path: "/v1/runs/toy/blobs/missing",
      json: { ids: ["0".repeat(64)] },
      signer,
      schema: messages.ids,
    });
    times.push(performance.now() - began);
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
  return times.sort((a, b) => a - b);
}

it("five hundred hostile connections neither change the run nor delay a hundred honest clients", async () => {
  const run = await processRun({ programs: bundled, setting });
  const life = await run.coordinator();
  const ids = clientsOf(setting).map(({ id }) => id);
  const silos = [run.silo({ clients: ids.slice(0, 50) }), run.silo({ clients: ids.slice(50) })];
  await life.heard("round-committed");
  const before = peak(life);
  const attackers = bundled.start({
    name: "attackers",
    settings: {
      url: run.url(),
      connections: 500,
      client: "c000",
      key: run.keyOf("c000"),
      seen: await overheard(run, "c000"),
    } satisfies AttackersOptions,
  });
  await attackers.heard("attacking");
  const { states } = await Promise.all([life.heard("done"), waits(run, "c001", life.heard("done"))]).then(
    ([done, times]) => {
      expect(times.length).toBeGreaterThan(50);
      expect(times[Math.floor(0.99 * times.length)], "99 of 100 honest requests").toBeLessThan(1000);
      return done;
    },
  );
  attackers.kill("SIGTERM");
  const { answers } = (await attackers.heard("answers")) as Said & {
    answers: Record<string, Record<string, number>>;
  };
  const after = peak(life);
  for (const silo of silos) expect(await silo.ended).toMatchObject({ code: 0 });
  life.kill("SIGTERM");
  await life.ended;

  // Nothing was granted, and nothing made the server fail.
  for (const [kind, counts] of Object.entries(answers))
    for (const status of Object.keys(counts)) expect(`${kind}: ${status}`).toMatch(/: (4\d\d|closed)$/);
  const total = Object.values(answers).flatMap((counts) => Object.values(counts));
  expect(total.reduce((sum, count) => sum + count, 0)).toBeGreaterThan(500);
  expect(after - before).toBeLessThan(100);

  expect(states).toEqual(await faultFree(setting));
  const folder = await openRunFolder(join(run.folder, "coordinator"));
  const events = new Map<string, number>();
  for await (const { body } of folder.journal.read(1)) {
    events.set(body.type, (events.get(body.type) ?? 0) + 1);
    if ("client" in body) expect(ids).toContain(body.client);
  }
  folder.close();
  const { rounds } = setting;
  expect(Object.fromEntries(events)).toEqual({
    "run-created": 1,
    "round-opened": rounds,
    "assignment-leased": 100 * rounds,
    "update-accepted": 100 * rounds,
    "round-closed": rounds,
    "checkpoint-committed": rounds + 1,
    "run-ended": 1,
  });
  await run.close();
}, 120_000);
