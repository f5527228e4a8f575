import { mkdtempSync, readdirSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, describe, expect, it } from "vitest";
import type { ClientTrainer } from "../../src/federation/client.ts";
import { sha256, sha256Text } from "../../src/federation/digest.ts";
import { type FederateOptions, federate } from "../../src/federation/federate.ts";
import { joinUpdate, type Manifest } from "../../src/federation/manifest.ts";
import { planBytes, planOf } from "../../src/federation/plan.ts";
import type { Round } from "../../src/federation/round.ts";
import type { StateTree, Strategy } from "../../src/federation/strategy.ts";
import { openSiloFolder } from "../../src/storage/silo-folder.ts";
import { fedAvg } from "../../src/strategies/fedavg.ts";
import { fedexLora } from "../../src/strategies/fedex-lora.ts";
import { fedsaLora } from "../../src/strategies/fedsa-lora.ts";
import { operatorOf } from "../../src/transports/http/operator.ts";
import { usualLimits } from "../../src/transports/http/protocol.ts";
import { toyTrainer } from "../federation/toy.ts";
import { settings, type ToyServer, toyServer } from "./toy-server.ts";

const open: ToyServer[] = [];
afterEach(async () => {
  for (const server of open.splice(0)) await server.close();
});

async function* nothing(): AsyncGenerator<Uint8Array> {}

async function opened(): Promise<ToyServer> {
  const server = await toyServer();
  open.push(server);
  return server;
}

describe("a federation over HTTP", () => {
  it.each([
    ["FedAvg", () => fedAvg()],
    ["FedEx-LoRA, which changes the base", () => fedexLora()],
    ["FedSA-LoRA, whose clients remember", () => fedsaLora()],
  ] as const)("ends with the bytes of one in a process: %s", async (_, make) => {
    // A union of strategies of different states; each is used by itself.
    const strategy = make() as Strategy<StateTree>;
    const server = await opened();
    const loops = settings.clients.map(({ id }) => server.join(id, strategy));
    const rounds = await server.rounds(strategy);
    await Promise.allSettled(loops);
    const calm: Round[] = [];
    for await (const round of federate({ strategy, ...settings, trainer: toyTrainer() })) calm.push(round);
    expect(rounds.map(({ state }) => state)).toEqual(calm.map(({ state }) => state));
    expect(rounds.map(({ baseVersion }) => baseVersion)).toEqual(calm.map(({ baseVersion }) => baseVersion));
  });

  it("a client that is gone in training delays a round that has its quorum by the grace alone", async () => {
    const server = await opened();
    const strategy = fedAvg();
    const gone = new AbortController();
    let trains: () => void = () => {};
    const training = new Promise<void>((resolve) => {
      trains = resolve;
    });
    const [lost, ...others] = settings.clients;
    const stuck = server.join(lost?.id ?? "", strategy, {
      signal: gone.signal,
      trainer: {
        train: (_, { signal }) =>
          new Promise((_resolve, reject) => {
            signal.addEventListener("abort", () => reject(signal.reason));
            trains();
          }),
      },
    });
    const loops = [stuck, ...others.map(({ id }) => server.join(id, strategy))];
    let delivered = 0;
    let fell = 0;
    let took = 0;
    const rounds = await server.rounds(strategy, {
      rounds: 1,
      onEvent(event) {
        if (event.type === "update-accepted" && ++delivered === others.length)
          void training.then(() => {
            fell = performance.now();
            gone.abort(new Error("the machine is switched off"));
          });
        if (event.type === "round-closed") took = performance.now() - fell;
      },
    });
    await Promise.allSettled(loops);
    expect(rounds[0]?.accepted.map(({ client }) => client)).toEqual(others.map(({ id }) => id));
    expect(took).toBeGreaterThan(150);
    expect(took).toBeLessThan(2200);
  });

  it("that has failed keeps its clients waiting with the reason, and answers each no more often than it asked for", async () => {
    let asked = 0;
    const server = await toyServer({
      limits: { ...usualLimits, waitSeconds: 0.5 },
      onAnswer({ route }) {
        if (route.endsWith("/next")) asked++;
      },
    });
    open.push(server);
    const strategy = fedAvg();
    const broken: ClientTrainer = {
      train: () => Promise.reject(new Error("the disk of this silo is gone")),
    };
    const halt = new AbortController();
    const why: string[] = [];
    const loops = settings.clients.map(({ id }) =>
      server.join(id, strategy, { trainer: broken, signal: halt.signal, onIdle: (one) => why.push(one) }),
    );
    await expect(server.rounds(strategy, { attempts: 2 })).rejects.toThrow(/the disk of this silo is gone/);
    const before = asked;
    await new Promise((resolve) => setTimeout(resolve, 1000));
    expect(asked - before).toBeLessThanOrEqual(3 * settings.clients.length);
    halt.abort(new Error("the test is over"));
    await Promise.allSettled(loops);
    expect(why.join()).toContain("the disk of this silo is gone");
    await expect(operatorOf({ url: server.url, token: "operator" }).hold("toy", "resume")).rejects.toThrow(
      /nothing left to resume: .*the disk of this silo is gone/,
    );
  });

  it("leaves on a client's disk what it remembers and no update of rounds that are over", async () => {
    const server = await opened();
    const strategy = fedsaLora();
    const folder = mkdtempSync(join(tmpdir(), "tributary-silo-"));
    const files: number[] = [];
    const [first, ...others] = settings.clients;
    const watched: ClientTrainer = {
      train(task, options) {
        const entries = readdirSync(folder, { recursive: true, withFileTypes: true });
        files.push(entries.filter((entry) => entry.isFile()).length);
        return toyTrainer().train(task, options);
      },
    };
    const store = await openSiloFolder(folder);
    const loops = others.map(({ id }) => server.join(id, strategy));
    loops.push(server.join(first?.id ?? "", strategy, { trainer: watched, store }));
    await server.rounds(strategy, { rounds: 5 });
    await Promise.all(loops);
    rmSync(folder, { recursive: true });
    // A manifest and a chunk of what it remembers.
    expect(files).toEqual([0, 2, 2, 2, 2]);
  });

  it("refuses an update whose bytes are no stream of tensors, and goes on", async () => {
    const server = await opened();
    const strategy = fedAvg();
    const [first, ...others] = settings.clients;
    const id = first?.id ?? "";
    const signal = AbortSignal.timeout(20_000);
    let opens: () => void = () => {};
    const isOpen = new Promise<void>((resolve) => {
      opens = resolve;
    });
    const onEvent: FederateOptions<StateTree>["onEvent"] = ({ type }) => type === "round-opened" && opens();
    const made = server.rounds(strategy, { rounds: 1, onEvent });
    await isOpen;
    const work = await server.hosted()?.door.next({ client: id, waitMs: 10_000, signal });
    const { assignment, payload } = work ?? {};
    const bytes = new Uint8Array(planBytes(planOf(joinUpdate({ params: settings.initial }))) + 80).fill(255);
    const chunk = await sha256(bytes);
    const manifest: Manifest = {
      kind: "update",
      run: assignment?.run ?? "",
      round: 1,
      client: id,
      tensors: planOf(joinUpdate({ params: payload?.params ?? new Map() })),
      bytes: bytes.length,
      chunkSize: bytes.length,
      chunks: [chunk],
      versions: {},
    };
    await server.store.blobs.put(chunk, bytes);
    const digest = await sha256Text(JSON.stringify(manifest));
    const receipt = await server
      .hosted()
      ?.door.submitStored(
        { id: assignment?.id ?? "", round: 1, client: id },
        { digest, manifest, numExamples: 1, loss: 1 },
      );
    expect(receipt).toMatchObject({ status: "rejected", code: "bad-manifest" });
    await Promise.all(others.map((client) => server.join(client.id, strategy)));
    const [round] = await made;
    expect(round?.rejected).toMatchObject([{ client: id, code: "bad-manifest" }]);
  });

  it("takes the update of a lease that has ended and was not lent again", async () => {
    const server = await opened();
    const strategy = fedAvg();
    const [first, ...others] = settings.clients;
    let trained = 0;
    const slow: ClientTrainer = {
      async train(task, options) {
        trained++;
        const result = await toyTrainer().train(task, options);
        const { id, round, client } = task.assignment;
        const why = { code: "lease-expired", message: "no progress" } as const;
        await server.hosted()?.door.fail({ id, round, client }, why);
        return result;
      },
    };
    const loops = others.map(({ id }) => server.join(id, strategy));
    loops.push(server.join(first?.id ?? "", strategy, { trainer: slow }));
    const rounds = await server.rounds(strategy, { quorum: settings.clients.length });
    await Promise.all(loops);
    expect(trained).toBe(rounds.length);
    expect(rounds.map(({ accepted, rejected }) => [accepted.length, rejected.length])).toEqual(
      rounds.map(() => [settings.clients.length, 0]),
    );
  });

  it("shows no client the update of another", async () => {
    const server = await opened();
    const strategy = fedAvg();
    const loops = settings.clients.map(({ id }) => server.join(id, strategy));
    await server.rounds(strategy);
    await Promise.allSettled(loops);
    const updates = new Set<string>();
    for await (const { body } of server.store.journal.read(1))
      if (body.type === "update-accepted") updates.add(body.manifest);
    expect(updates.size).toBeGreaterThan(4);
    const blobs = server.routes.find(({ method, path }) => method === "GET" && path.includes("/blobs/"));
    for (const digest of updates) {
      const call = {
        client: "c00",
        parameters: new Map([
          ["run", "toy"],
          ["digest", digest],
        ]),
        query: new URLSearchParams(),
        headers: {},
        bytes: nothing(),
        json: undefined,
        gone: new AbortController().signal,
      };
      await expect(blobs?.handle(call)).rejects.toThrow(/there is no blob/);
    }
  });
});
