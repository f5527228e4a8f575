import type { ClientTrainer } from "../../src/federation/client.ts";
import { serveClients } from "../../src/federation/client.ts";
import {
  type FederateOptions,
  federate,
  type HostedRun,
  type RunStore,
} from "../../src/federation/federate.ts";
import type { Round } from "../../src/federation/round.ts";
import type { StateTree, Strategy } from "../../src/federation/strategy.ts";
import { memoryBlobs, memoryJournal } from "../../src/storage/memory.ts";
import { nodeEnv } from "../../src/storage/node-env.ts";
import { type ClientStore, httpTransport, type Unsent } from "../../src/transports/http/client.ts";
import { connect } from "../../src/transports/http/connection.ts";
import { eventFeed } from "../../src/transports/http/event-feed.ts";
import { type Identities, type IdentityEvent, openIdentities } from "../../src/transports/http/identities.ts";
import { keepLive } from "../../src/transports/http/live.ts";
import { type ServerMetrics, serverMetrics } from "../../src/transports/http/metrics.ts";
import { payloadOffers } from "../../src/transports/http/offers.ts";
import { operatorRoutes } from "../../src/transports/http/operator-routes.ts";
import { presenceBook } from "../../src/transports/http/presence.ts";
import { messages, usualLimits } from "../../src/transports/http/protocol.ts";
import type { Route } from "../../src/transports/http/route.ts";
import { clientRoutes } from "../../src/transports/http/routes.ts";
import type { ServedRun } from "../../src/transports/http/served-run.ts";
import { type ServerOptions, startServer } from "../../src/transports/http/server.ts";
import { newClientKey } from "../../src/transports/http/signature.ts";
import { adapter, clients, toyTrainer } from "../federation/toy.ts";

const env = nodeEnv();

/** What every toy federation over HTTP has. */
export const settings: Required<Pick<FederateOptions<StateTree>, "initial" | "clients" | "rounds" | "seed">> =
  { initial: adapter(), clients: clients(4), rounds: 3, seed: 5 };

/** A server with one run, `toy`, and its operator's token, `operator`. */
export interface ToyServer {
  readonly url: string;
  readonly store: RunStore;
  readonly identities: Identities;
  readonly metrics: ServerMetrics;
  readonly routes: readonly Route[];
  hosted(): HostedRun | undefined;
  /** The rounds of the run; it begins when this is called. */
  rounds<State extends StateTree>(
    strategy: Strategy<State>,
    options?: Partial<FederateOptions<State>>,
  ): Promise<Round[]>;
  /** Takes part as one of the clients until the run is over or the signal aborts. */
  join<State extends StateTree>(
    id: string,
    strategy: Strategy<State>,
    options?: Partial<Omit<JoinToyOptions, "token">>,
  ): Promise<void>;
  close(): Promise<void>;
}

/** A client's store in memory. */
export function memoryClientStore(): ClientStore {
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

/** Starts a server on loopback. */
export async function toyServer(
  options: Partial<Omit<ServerOptions, "routes" | "identities" | "env">> = {},
): Promise<ToyServer> {
  const { limits = usualLimits } = options;
  const store: RunStore = { journal: memoryJournal(), blobs: memoryBlobs() };
  const identities = await openIdentities({
    journal: memoryJournal<IdentityEvent>(),
    env,
    operatorToken: "operator",
  });
  let hosted: HostedRun | undefined;
  let failure: Error | undefined;
  const served: ServedRun = {
    id: "toy",
    hosted: () => hosted,
    blobs: store.blobs,
    offers: payloadOffers(env, limits.chunkBytes),
    described: { run: "toy", job: "{}", base: "pretrained" },
    join: async () => undefined,
    status: () => ({
      run: "toy",
      phase: failure ? "failed" : (hosted?.state().halted ?? "collecting"),
      rounds: { done: hosted?.state().rounds.length ?? 0, of: settings.rounds },
      why: failure?.message ?? "the round goes on",
      clients: { joined: settings.clients.length, of: settings.clients.length, here: 0 },
    }),
    clientState: () => ({ state: "waiting", accepted: 0 }),
  };
  const runs = new Map([["toy", served]]);
  const presence = presenceBook(env);
  const feed = eventFeed();
  const metrics = serverMetrics(() => []);
  const common = { runs, identities, presence, limits, env, server: "toy 1" };
  const forClients = clientRoutes(common);
  const routes = [
    ...forClients,
    ...operatorRoutes({ ...common, metrics, feed, problems: () => [] }, forClients),
  ];
  const server = await startServer({ port: 0, ...options, env, identities, limits, routes });
  const halt = new AbortController();
  return {
    url: server.url,
    store,
    identities,
    metrics,
    routes,
    hosted: () => hosted,
    async rounds(strategy, more = {}) {
      const made: Round[] = [];
      const run = federate({
        strategy,
        ...settings,
        store,
        env,
        signal: halt.signal,
        host: { graceMs: 200, open: (opened) => (hosted = opened) },
        onEvent: (event) => feed.publish(event.type, { run: "toy", ...event }),
        ...more,
      });
      try {
        for await (const round of run) made.push(round);
      } catch (error) {
        failure = error instanceof Error ? error : new Error(String(error));
        throw error;
      }
      return made;
    },
    async join(id, strategy, { signal = halt.signal, ...rest } = {}) {
      const token = await identities.issueToken(60);
      const both = AbortSignal.any([signal, halt.signal]);
      await joinToy(server.url, id, strategy, { token, signal: both, ...rest });
    },
    async close() {
      halt.abort(new Error("the test is over"));
      await server.close();
    },
  };
}

/** How a client takes part in the toy run. */
export interface JoinToyOptions {
  readonly token: string;
  readonly signal: AbortSignal;
  readonly trainer?: ClientTrainer;
  readonly onIdle?: (why: string) => void;
  /** Default: in memory. */
  readonly store?: ClientStore;
}

/** Takes part in the toy run of a server as one of its clients, until the run is over or the signal aborts. */
export async function joinToy<State extends StateTree>(
  url: string,
  id: string,
  strategy: Strategy<State>,
  { token, signal, trainer = toyTrainer(), onIdle, store = memoryClientStore() }: JoinToyOptions,
): Promise<void> {
  const over = new AbortController();
  const connection = await connect({ url, env, signal });
  const key = newClientKey();
  const { client } = await connection.ask({
    method: "POST",
    path: "/v1/enrol",
    json: { token, publicKey: key.publicKey, name: id },
    schema: messages.enrolled,
  });
  const common = { connection, signer: { client, key }, run: "toy", env };
  const live = keepLive({ ...common, url, signal: AbortSignal.any([signal, over.signal]) });
  const transport = httpTransport({
    ...common,
    base: "pretrained",
    store,
    ...(onIdle && { onIdle }),
  });
  try {
    await serveClients({ transport, trainer, strategy, initial: settings.initial, signal });
  } finally {
    over.abort();
    await live;
  }
}
