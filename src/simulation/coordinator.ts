import type { BlobStore } from "../federation/blob-store.ts";
import type { RunEvent } from "../federation/events.ts";
import { type FederateOptions, federate, type HostedRun } from "../federation/federate.ts";
import type { Journal } from "../federation/journal.ts";
import type { StateTree, Strategy } from "../federation/strategy.ts";
import { diskBlobs } from "../storage/disk.ts";

import type { Identities } from "../transports/http/identities.ts";
import { payloadOffers } from "../transports/http/offers.ts";
import { presenceBook } from "../transports/http/presence.ts";
import { type RunStatus, usualLimits } from "../transports/http/protocol.ts";
import { Refused, refusalOf } from "../transports/http/refusal.ts";
import { findRoute, type Route } from "../transports/http/route.ts";
import { clientRoutes } from "../transports/http/routes.ts";
import type { Answer } from "../transports/http/send.ts";
import type { ServedRun } from "../transports/http/served-run.ts";
import type { Life } from "./life.ts";
import type { SimFiles } from "./sim-disk.ts";
import { openSimJournal } from "./sim-journal.ts";
import type { Arrival, Listener } from "./sim-net.ts";

/** Name of the run that a simulated server carries. */
export const RUN = "toy";

/** Faults of the coordinator's own, to see that the checks find them. */
export interface Mutation {
  readonly files?: (files: SimFiles) => SimFiles;
  readonly blobs?: (blobs: BlobStore) => BlobStore;
  readonly journal?: (journal: Journal) => Journal;
  readonly hosted?: (hosted: HostedRun) => HostedRun;
  readonly strategy?: (strategy: Strategy) => Strategy;
}

/** What one life of a coordinator is made of. */
export interface CoordinatorOptions {
  readonly life: Life;
  readonly files: SimFiles;
  /** The federation, but for where it lives. */
  readonly run: Omit<FederateOptions<StateTree>, "host" | "store" | "env" | "onEvent" | "trainer">;
  readonly graceMs: number;
  readonly chunkBytes: number;
  readonly mutation: Mutation;
  listen(listener: Listener): void;
  onEvent(event: RunEvent): void;
  /** Called with what a request came to where that is not told to its client. */
  onError(error: unknown): void;
}

/** Folder of the coordinator's disk that holds the run. */
export const RUN_FOLDER = "/run";

/** One life of the coordinator: listens, goes on with the run that its disk holds, and returns when that is over. */
export async function coordinate(options: CoordinatorOptions): Promise<void> {
  const { life, run, graceMs, mutation, onEvent } = options;
  const { env } = life;
  const files = mutation.files?.(options.files) ?? options.files;
  const kept = diskBlobs(`${RUN_FOLDER}/blobs`, { files, hash: env.hash });
  const blobs = mutation.blobs?.(kept) ?? kept;
  const limits = { ...usualLimits, chunkBytes: options.chunkBytes };
  let hosted: HostedRun | undefined;
  const served: ServedRun = {
    id: RUN,
    hosted: () => hosted,
    blobs,
    offers: payloadOffers(env, limits.chunkBytes),
    described: { run: RUN, job: "{}", base: "pretrained" },
    join: async () => undefined,
    status: () => idle,
    clientState: () => undefined,
  };
  const routes = clientRoutes({
    runs: new Map([[RUN, served]]),
    identities: nobody,
    presence: presenceBook(env),
    limits,
    env,
    server: "simulation",
  });
  options.listen({ life, answer: (arrival) => answer(routes, arrival, options.onError) });
  const opened = await openSimJournal(files, { folder: RUN_FOLDER, hash: env.hash });
  const journal = mutation.journal?.(opened) ?? opened;
  const rounds = federate({
    ...run,
    strategy: mutation.strategy?.(run.strategy) ?? run.strategy,
    store: { journal, blobs },
    env,
    onEvent: (event) => life.alive && onEvent(event),
    host: {
      graceMs,
      open: (run) => {
        hosted = mutation.hosted?.(run) ?? run;
      },
    },
  });
  for await (const _ of rounds);
}

/** What a server says while nobody reads it. */
const idle: RunStatus = {
  run: RUN,
  phase: "collecting",
  rounds: { done: 0, of: 0 },
  why: "the run waits",
  clients: { joined: 0, of: 0, here: 0 },
};

/** Clients are known by the connection that they come over; they neither enrol nor sign. */
const nobody: Identities = {
  keyOf: () => undefined,
  list: () => [],
  issueToken: async () => refuse(),
  enrol: async () => refuse(),
  revoke: async () => refuse(),
  assertOperator: refuse,
};

function refuse(): never {
  throw new Refused(403, "simulated", "nobody enrols in a simulation");
}

/** The answer of the route of a request, after the checks that a server makes, signatures apart. */
async function answer(
  routes: readonly Route[],
  { method, path, body, headers, client, gone }: Arrival,
  onError: (error: unknown) => void,
): Promise<Answer> {
  try {
    const { route, parameters, query } = findRoute(routes, method, path);
    const limit = route.body?.limit ?? 0;
    if (body.length > limit)
      throw new Refused(413, "too-large", `${body.length} bytes, the limit is ${limit}`);
    const json = route.body?.kind === "json" ? route.body.parse(body) : undefined;
    const bytes = halves(body);
    const reply = await route.handle({ client, parameters, query, headers, bytes, json, gone });
    return answered(reply.status, reply.json, reply.bytes, reply.headers);
  } catch (error) {
    const refused = refusalOf(error);
    if (refused !== error) onError(error);
    const { status, code, message, retryAfter } = refused;
    const retry = retryAfter === undefined ? {} : { "retry-after": String(retryAfter) };
    return answered(status, { error: { code, message } }, undefined, retry);
  }
}

/** A body that arrives in two pieces. */
async function* halves(body: Uint8Array): AsyncGenerator<Uint8Array> {
  yield body.subarray(0, body.length >> 1);
  yield body.subarray(body.length >> 1);
}

function answered(
  status: number,
  json: unknown,
  bytes: Uint8Array = new Uint8Array(0),
  headers: Readonly<Record<string, string>> = {},
): Answer {
  const body = json === undefined ? bytes : new TextEncoder().encode(JSON.stringify(json));
  return { status, headers: { get: (name) => headers[name] ?? null }, body };
}
