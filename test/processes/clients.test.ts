import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { nodeEnv } from "../../src/storage/node-env.ts";
import { type Connection, connect } from "../../src/transports/http/connection.ts";
import { messages, type Submission } from "../../src/transports/http/protocol.ts";
import { readClientKey } from "../../src/transports/http/signature.ts";
import { faultProxy } from "./fault-proxy.ts";
import { type Program, type Programs, programs } from "./programs.ts";
import { type ProcessRun, processRun } from "./run.ts";
import { clientsOf, faultFree, type Setting, updateBytes } from "./setting.ts";

let bundled: Programs;
beforeAll(async () => {
  bundled = await programs(["coordinator", "silo"]);
});
afterAll(() => bundled.close());

/** Ends a run that is done; the states of its rounds. */
async function finish(run: ProcessRun, life: Program, silos: readonly Program[]): Promise<unknown> {
  const { states } = await life.heard("done");
  for (const silo of silos)
    expect(await silo.ended, JSON.stringify(silo.said.at(-1))).toMatchObject({ code: 0 });
  life.kill("SIGTERM");
  await life.ended;
  await run.close();
  return states;
}

describe("a process that is killed in mid-upload sends little again", () => {
  const setting: Setting = { clients: 5, rounds: 1, length: 1_000_000, tensors: 1, seed: 7, updateMemory: 0 };
  const chunkBytes = 32 * 1024;
  const port = (run: ProcessRun) => () => Number(new URL(run.url()).port);

  it("where it is a client, at 10 to 90 % of the update", async () => {
    const run = await processRun({ programs: bundled, setting, chunkBytes });
    const life = await run.coordinator();
    const sent: number[] = [];
    const delivered = clientsOf(setting).map(async ({ id }, i) => {
      const proxy = await faultProxy({ port: port(run), seed: i });
      const first = run.silo({ clients: [id], url: proxy.url });
      await proxy.sentSoMany((0.1 + 0.2 * i) * updateBytes(setting));
      first.kill();
      await first.ended;
      const again = run.silo({ clients: [id], url: proxy.url });
      expect((await again.heard("receipt")).status).toBe("accepted");
      sent.push(proxy.sent());
      expect(await again.ended).toMatchObject({ code: 0 });
      expect(again.said.filter(({ type }) => type === "training")).toEqual([]);
      await proxy.close();
    });
    await Promise.all(delivered);
    expect(await finish(run, life, [])).toEqual(await faultFree(setting));
    for (const bytes of sent) expect(bytes / updateBytes(setting)).toBeLessThan(1.1);
  });

  it("where it is the coordinator", async () => {
    const run = await processRun({ programs: bundled, setting, chunkBytes });
    const first = await run.coordinator();
    const proxy = await faultProxy({ port: port(run), seed: 1 });
    const silo = run.silo({ url: proxy.url });
    const all = setting.clients * updateBytes(setting);
    await proxy.sentSoMany(0.5 * all);
    first.kill();
    await first.ended;
    const life = await run.coordinator();
    await life.heard("done");
    const sent = proxy.sent();
    expect(await finish(run, life, [silo])).toEqual(await faultFree(setting));
    await proxy.close();
    expect(sent / all).toBeLessThan(1.1);
  });
});

it("a client that is killed in training starts it again and ends with the fault-free states", async () => {
  const setting: Setting = { clients: 3, rounds: 3, length: 1000, tensors: 2, seed: 8, workMs: 300 };
  const run = await processRun({ programs: bundled, setting });
  const life = await run.coordinator();
  const rest = run.silo({ clients: ["c001", "c002"] });
  let unlucky = run.silo({ clients: ["c000"] });
  for (let round = 1; round <= 3; round++) {
    await unlucky.heard("training", (line) => line.round === round);
    unlucky.kill();
    await unlucky.ended;
    unlucky = run.silo({ clients: ["c000"] });
  }
  expect(await finish(run, life, [rest, unlucky])).toEqual(await faultFree(setting));
});

it("a client that is killed delays a round that has its quorum by little", async () => {
  const setting: Setting = {
    clients: 4,
    rounds: 2,
    length: 1000,
    tensors: 1,
    seed: 9,
    quorum: 3,
    workMs: 500,
  };
  const run = await processRun({ programs: bundled, setting, graceMs: 1500 });
  const life = await run.coordinator();
  const rest = run.silo({ clients: ["c000", "c001", "c002"] });
  const lost = run.silo({ clients: ["c003"], setting: { ...setting, workMs: 60_000 } });
  await lost.heard("training");
  for (const client of ["c000", "c001", "c002"])
    await rest.heard("receipt", (line) => line.client === client);
  const killed = Date.now();
  lost.kill();
  const closed = await life.heard("round-closed");
  expect(Number(closed.at) - killed).toBeLessThan(4000);
  expect(Number(closed.at) - killed).toBeGreaterThan(1000);
  await life.heard("done");
  await finish(run, life, [rest]);
}, 30_000);

describe("an update that is sent twice", () => {
  const setting: Setting = { clients: 2, rounds: 2, length: 500, tensors: 1, seed: 10, workMs: 100 };

  /** Hands a submission in again, as its client would. */
  async function submit(run: ProcessRun, client: string, submission: Submission): Promise<unknown> {
    const connection: Connection = await connect({
      url: run.url(),
      env: nodeEnv(),
      signal: AbortSignal.timeout(30_000),
    });
    return connection.ask({
      method: "POST",
      path: "/v1/runs/toy/submit",
      json: submission,
      signer: { client, key: readClientKey(run.keyOf(client)) },
      schema: messages.answer,
    });
  }

  it("has the same receipt, also after a restart and after its round; other content is refused", async () => {
    const run = await processRun({ programs: bundled, setting });
    let life = await run.coordinator();
    const first = run.silo({ clients: ["c000"] });
    const receipt = await first.heard("receipt");
    const sent = receipt.sent as Submission;
    const repeated = { status: "accepted", submission: receipt.submission };
    const other = { ...sent, manifest: "0".repeat(64) };
    const stale = { ...sent, assignment: { id: "1".repeat(64), round: 1 } };
    expect(await submit(run, "c000", sent)).toEqual(repeated);
    expect(await submit(run, "c000", other)).toMatchObject({ status: "incomplete" });
    expect(await submit(run, "c001", sent)).toMatchObject({ status: "rejected", code: "unknown-assignment" });
    expect(await submit(run, "c000", stale)).toMatchObject({
      status: "rejected",
      code: "unknown-assignment",
    });

    life.kill();
    await life.ended;
    life = await run.coordinator();
    expect(await submit(run, "c000", sent)).toEqual(repeated);
    const second = run.silo({ clients: ["c001"] });
    await second.heard("receipt", ({ round }) => round === 1);
    await life.heard("round-opened", ({ round }) => round === 2);
    expect(await submit(run, "c000", sent)).toEqual(repeated);
    await life.heard("done");
    expect(await submit(run, "c000", sent)).toMatchObject({ status: "rejected", code: "round-closed" });
    expect(await finish(run, life, [first, second])).toEqual(await faultFree(setting));
  });
});
