import { afterEach, describe, expect, it } from "vitest";
import type { ClientTrainer } from "../../src/federation/client.ts";
import { serveClients } from "../../src/federation/client.ts";
import { federate, type HostedRun, type RunStore } from "../../src/federation/federate.ts";
import type { Journal } from "../../src/federation/journal.ts";
import type { Round } from "../../src/federation/round.ts";
import type { StateTree, Strategy } from "../../src/federation/strategy.ts";
import { memoryBlobs, memoryJournal } from "../../src/storage/memory.ts";
import { nodeEnv } from "../../src/storage/node-env.ts";
import { fedAvg } from "../../src/strategies/fedavg.ts";
import { fedexLora } from "../../src/strategies/fedex-lora.ts";
import { fedsaLora } from "../../src/strategies/fedsa-lora.ts";
import { type ClientStore, httpTransport, type Unsent } from "../../src/transports/http/client.ts";
import { connect } from "../../src/transports/http/connection.ts";
import { type IdentityEvent, openIdentities } from "../../src/transports/http/identities.ts";
import { payloadOffers } from "../../src/transports/http/offers.ts";
import { messages, usualLimits } from "../../src/transports/http/protocol.ts";
import { clientRoutes, type ServedRun } from "../../src/transports/http/routes.ts";
import { type RunningServer, startServer } from "../../src/transports/http/server.ts";
import { newClientKey } from "../../src/transports/http/signature.ts";
import { adapter, clients, toyTrainer } from "../federation/toy.ts";

const env = nodeEnv();
const stops: (() => Promise<void>)[] = [];
afterEach(async () => {
  for (const stop of stops.splice(0)) await stop();
});

function memoryStore(): ClientStore {
  const blobs = memoryBlobs();
  let kept: Unsent | undefined;
  return {
    blobs,
    unsent: async () => kept,
    async keepUnsent(unsent) {
      kept = unsent;
    },
  };
}

const settings = { initial: adapter(), clients: clients(4), rounds: 3, seed: 5 } as const;

/** The rounds of a federation whose clients come over HTTP. */
async function overHttp<State extends StateTree>(
  strategy: Strategy<State>,
  trainer: () => ClientTrainer = () => toyTrainer(),
): Promise<{ readonly rounds: Round[]; readonly store: RunStore }> {
  const store: RunStore = { journal: memoryJournal(), blobs: memoryBlobs() };
  const identities = await openIdentities({
    journal: memoryJournal() as Journal<unknown> as Journal<IdentityEvent>,
    env,
    operatorToken: "operator",
  });
  let hosted: HostedRun | undefined;
  const served: ServedRun = {
    id: "toy",
    hosted: () => hosted,
    blobs: store.blobs,
    offers: payloadOffers(env, usualLimits.chunkBytes),
    described: { run: "toy", job: "{}", base: "pretrained" },
    join: async () => undefined,
    waits: () => "waiting for clients",
  };
  const server: RunningServer = await startServer({
    port: 0,
    env,
    identities,
    limits: usualLimits,
    routes: clientRoutes({
      runs: new Map([["toy", served]]),
      identities,
      limits: usualLimits,
      env,
      server: "test",
    }),
  });
  const halt = new AbortController();
  stops.push(async () => {
    halt.abort();
    await server.close();
  });
  const loops = settings.clients.map(async ({ id }) => {
    const connection = await connect({ url: server.url, env, signal: halt.signal });
    const key = newClientKey();
    const token = await identities.issueToken(60);
    const { client } = await connection.ask({
      method: "POST",
      path: "/v1/enrol",
      json: { token, publicKey: key.publicKey, name: id },
      schema: messages.enrolled,
    });
    const signer = { client, key };
    const transport = httpTransport({
      connection,
      signer,
      run: "toy",
      base: "pretrained",
      store: memoryStore(),
      env,
    });
    await serveClients({
      transport,
      trainer: trainer(),
      strategy,
      initial: settings.initial,
      signal: halt.signal,
    });
  });
  const rounds: Round[] = [];
  for await (const round of federate({
    strategy,
    ...settings,
    store,
    env,
    host: { graceMs: 2000, open: (run) => (hosted = run) },
  }))
    rounds.push(round);
  await Promise.allSettled(loops);
  return { rounds, store };
}

describe("a federation over HTTP", () => {
  it.each([
    ["FedAvg", () => fedAvg()],
    ["FedEx-LoRA, which changes the base", () => fedexLora()],
    ["FedSA-LoRA, whose clients remember", () => fedsaLora()],
  ] as const)("ends with the bytes of one in a process: %s", async (_, make) => {
    // A union of strategies of different states; each is used by itself.
    const strategy = make() as Strategy<StateTree>;
    const { rounds } = await overHttp(strategy);
    const calm: Round[] = [];
    for await (const round of federate({ strategy, ...settings, trainer: toyTrainer() })) calm.push(round);
    expect(rounds.map(({ state }) => state)).toEqual(calm.map(({ state }) => state));
    expect(rounds.map(({ baseVersion }) => baseVersion)).toEqual(calm.map(({ baseVersion }) => baseVersion));
  });
});
