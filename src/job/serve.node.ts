import { randomBytes } from "node:crypto";
import { chmod, readFile } from "node:fs/promises";
import { join } from "node:path";
import { canonicalJson } from "../federation/canonical-json.ts";
import type { FederatedClient } from "../federation/door.ts";
import type { RunEvent } from "../federation/events.ts";
import { type Committed, federate, type HostedRun } from "../federation/federate.ts";
import type { Round } from "../federation/round.ts";
import { writeFileAtomic } from "../formats/files.node.ts";
import { nodeEnv } from "../storage/node-env.ts";
import { openRunFolder } from "../storage/run-folder.ts";
import { sqliteJournal } from "../storage/sqlite.ts";
import { type Identities, type IdentityEvent, openIdentities } from "../transports/http/identities.ts";
import { payloadOffers } from "../transports/http/offers.ts";
import { usualLimits } from "../transports/http/protocol.ts";
import { Refused } from "../transports/http/refusal.ts";
import { clientRoutes, type ServedRun } from "../transports/http/routes.ts";
import { assertEncrypted, type ListenOptions, startServer } from "../transports/http/server.ts";
import { rankOfClient } from "./adapter.ts";
import { type Coordination, coordinate } from "./coordinate.node.ts";
import { resultKeys } from "./differences.ts";
import type { PlacedJob } from "./run.ts";
import { writeTrained } from "./run.ts";
import { keepJob, prepareRunFolder, writeRounds } from "./run-files.node.ts";

/** What a server tells while it carries a run. */
export type ServeEvent =
  | RunEvent
  | { readonly type: "listening"; readonly url: string; readonly run: string; readonly clients: number }
  | {
      readonly type: "client-joined";
      readonly client: string;
      readonly of: number;
      readonly waitsFor: number;
    };

/** How a job is carried for clients on other machines. */
export interface ServeOptions extends ListenOptions {
  /** Clients that the run waits for before its first round. */
  readonly clients: number;
  /** Milliseconds that a round with its quorum waits for clients that are all away. Default: 2,000. */
  readonly graceMs?: number;
  /** Milliseconds without progress after which a client is given up. Default: 60,000. */
  readonly leaseMs?: number;
  readonly signal?: AbortSignal;
  readonly onEvent?: (event: ServeEvent) => void;
}

/** Names of the files of a server in its run's folder. */
const serverFiles = {
  clients: "clients.sqlite",
  operator: "operator.token",
  list: "clients.json",
} as const;

/** A client as the run pins it. */
interface Pinned {
  readonly client: string;
  readonly numExamples: number | undefined;
}

/** Carries a job as its coordinator until all rounds are done. A run that is found in the folder goes on. */
export async function serveJob(given: PlacedJob, options: ServeOptions): Promise<void> {
  const { clients: wanted, graceMs = 2000, leaseMs = 60_000, signal, onEvent = () => {} } = options;
  assertEncrypted(options);
  const env = nodeEnv();
  const coordination = await coordinate(given);
  const job = await prepareRunFolder(given.out, given, 1, { fresh: false });
  const store = await openRunFolder(job.out);
  const identityJournal = await sqliteJournal<IdentityEvent>(join(job.out, serverFiles.clients));
  try {
    await keepJob(job.out, job);
    const identities = await openIdentities({
      journal: identityJournal,
      env,
      operatorToken: await operatorToken(job.out),
    });
    const list = await pinnedClients(job.out);
    const joined = new Map(list.map((one) => [one.client, one]));
    let full = joined.size >= wanted;
    let ready: () => void = () => {};
    const gathered = new Promise<void>((resolve) => {
      ready = resolve;
    });
    if (full) ready();
    let hosted: HostedRun | undefined;
    const sent = canonicalJson(forClients(job));
    const served: ServedRun = {
      id: runName(job.name),
      hosted: () => hosted,
      blobs: store.blobs,
      offers: payloadOffers(env, usualLimits.chunkBytes),
      described: { run: runName(job.name), job: sent, base: coordination.base.root },
      async join(client, { numExamples }) {
        if (joined.has(client)) return;
        if (full)
          throw new Refused(
            409,
            "run-full",
            `run ${served.id} began with ${joined.size} clients and takes no more; ask for the next run`,
          );
        joined.set(client, { client, numExamples });
        await keepClients(job.out, [...joined.values()]);
        onEvent({ type: "client-joined", client, of: joined.size, waitsFor: wanted });
        if (joined.size >= wanted && !full) {
          full = true;
          ready();
        }
      },
      waits: () =>
        hosted ? waitOf(hosted) : `the run waits for ${wanted - joined.size} more of ${wanted} clients`,
    };
    const runs = new Map([[served.id, served]]);
    const server = await startServer({
      ...options,
      env,
      identities,
      limits: usualLimits,
      routes: clientRoutes({ runs, identities, limits: usualLimits, env, server: "tributary" }),
    });
    try {
      await issueTokens(identities, wanted);
      onEvent({ type: "listening", url: server.url, run: served.id, clients: wanted });
      await whenGathered(gathered, signal);
      await carry();
      await farewell();
    } finally {
      await server.close();
    }

    async function carry(): Promise<void> {
      const members = pinned([...joined.values()], coordination, job);
      const rounds: Round[] = [];
      const made = federate({
        strategy: coordination.strategy,
        initial: coordination.initial,
        clients: members,
        host: {
          graceMs,
          open(run) {
            hosted = run;
          },
        },
        rounds: job.rounds,
        seed: job.seed,
        config: { job: resultKeys(job), model: coordination.base.root },
        base: coordination.base,
        participation: Math.min(
          1,
          (job.clientsPerRound ?? members.length * job.participation) / members.length,
        ),
        spare: job.spare,
        leaseMs,
        ...(job.quorum === undefined ? {} : { quorum: job.quorum }),
        ...(job.deadline === undefined ? {} : { deadlineMs: 1000 * job.deadline }),
        store,
        env,
        ...(signal && { signal }),
        onEvent,
        async evaluate(state: Committed) {
          await writeTrained(job.out, state, coordination, job);
          return {};
        },
      });
      for await (const round of made) {
        rounds.push(round);
        await writeRounds(job.out, rounds);
      }
    }

    /** Stays up until clients had time to hear that the run is over. */
    async function farewell(): Promise<void> {
      await env.sleep(3000, signal).catch(() => undefined);
    }

    /** One token a client, in a file that only its owner may read. */
    async function issueTokens(known: Identities, count: number): Promise<void> {
      const open = count - known.list().length;
      if (open <= 0) return;
      const tokens: string[] = [];
      for (let i = 0; i < open; i++) tokens.push(await known.issueToken(7 * 24 * 3600));
      const path = join(job.out, "tokens.txt");
      await writeFileAtomic(path, new TextEncoder().encode(`${tokens.join("\n")}\n`));
      await chmod(path, 0o600);
    }
  } finally {
    identityJournal.close();
    store.close();
  }
}

/** The job as clients need it: without the coordinator's own files and machine. */
function forClients(job: PlacedJob): object {
  const {
    out: _out,
    workers: _workers,
    threads: _threads,
    device: _device,
    generate: _generate,
    ...rest
  } = job;
  return rest;
}

function pinned(list: readonly Pinned[], { adapter }: Coordination, job: PlacedJob): FederatedClient[] {
  return [...list]
    .sort((a, b) => (a.client < b.client ? -1 : 1))
    .map(({ client, numExamples }, i) => {
      const rank = rankOfClient(job.adapter, client, i);
      return { id: client, rank, scaling: adapter.scaling(rank), numExamples: numExamples ?? 1 };
    });
}

async function whenGathered(gathered: Promise<void>, signal: AbortSignal | undefined): Promise<void> {
  if (!signal) return gathered;
  await Promise.race([
    gathered,
    new Promise<never>((_, reject) => {
      if (signal.aborted) reject(signal.reason);
      signal.addEventListener("abort", () => reject(signal.reason), { once: true });
    }),
  ]);
}

/** What a round waits for. */
function waitOf({ state }: HostedRun): string {
  const { open, halted } = state();
  if (halted) return `an operator has ${halted} the run`;
  if (!open) return "the round is being aggregated";
  const { round, target } = open.opened;
  return `round ${round} waits: ${open.accepted.size} of ${target} updates`;
}

/** A name that may stand in a path. */
export function runName(name: string): string {
  const plain = name
    .toLowerCase()
    .replace(/[^a-z0-9-]+/g, "-")
    .replace(/^-+|-+$/g, "");
  return plain.slice(0, 64) || "run";
}

async function operatorToken(folder: string): Promise<string> {
  const path = join(folder, serverFiles.operator);
  const found = await readFile(path, "utf8").catch(() => undefined);
  if (found !== undefined) return found.trim();
  const token = randomBytes(32).toString("base64url");
  await writeFileAtomic(path, new TextEncoder().encode(`${token}\n`));
  await chmod(path, 0o600);
  return token;
}

async function pinnedClients(folder: string): Promise<Pinned[]> {
  const text = await readFile(join(folder, serverFiles.list), "utf8").catch(() => "[]");
  // Only `keepClients` writes the file, whole or not at all.
  return JSON.parse(text) as Pinned[];
}

async function keepClients(folder: string, list: readonly Pinned[]): Promise<void> {
  await writeFileAtomic(join(folder, serverFiles.list), new TextEncoder().encode(JSON.stringify(list)));
}
