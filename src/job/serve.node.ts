import { randomBytes } from "node:crypto";
import { mkdir, readFile, rm } from "node:fs/promises";
import { join } from "node:path";
import process from "node:process";
import { TributaryError } from "../errors.ts";
import type { RunEvent } from "../federation/events.ts";
import type { EventBody } from "../federation/journal.ts";
import { writeFileAtomic } from "../formats/files.node.ts";
import { nodeEnv } from "../storage/node-env.ts";
import { lockRun } from "../storage/run-lock.ts";
import { sqliteJournal } from "../storage/sqlite.ts";
import { eventFeed } from "../transports/http/event-feed.ts";
import { type Identities, type IdentityEvent, openIdentities } from "../transports/http/identities.ts";
import { type ClientCounts, serverMetrics } from "../transports/http/metrics.ts";
import { operatorRoutes } from "../transports/http/operator-routes.ts";
import { presenceBook } from "../transports/http/presence.ts";
import { usualLimits } from "../transports/http/protocol.ts";
import { clientRoutes } from "../transports/http/routes.ts";
import {
  type Answered,
  assertEncrypted,
  type ListenOptions,
  startServer,
} from "../transports/http/server.ts";
import type { PlacedJob } from "./run.ts";
import { type CarriedRun, type ClientJoined, openCarriedRun } from "./served-run.node.ts";

/** What a server tells while it carries runs. */
export type ServeEvent =
  | ((RunEvent | ClientJoined) & { readonly run: string })
  | {
      readonly type: "listening";
      readonly url: string;
      readonly runs: readonly string[];
      readonly clients: number;
      /** File of the one-time tokens; absent where all clients are enrolled. */
      readonly tokens?: string;
    }
  | { readonly type: "run-failed"; readonly run: string; readonly reason: string };

/** A line of the log: what a run's journal holds, by its name there, and what only the server knows. */
export type LogLine = { readonly at: string } & LogBody;

type LogBody =
  | (EventBody & { readonly run: string; readonly seq: number })
  | (ClientJoined & { readonly run: string })
  | Exclude<ServeEvent, RunEvent | ClientJoined>
  | { readonly type: "waiting"; readonly run: string; readonly why: string }
  | ({ readonly type: "request-refused" } & Omit<Answered, "bytesIn" | "bytesOut">)
  | { readonly type: "server-error"; readonly route: string; readonly message: string };

/** How jobs are carried for clients on other machines. */
export interface ServeOptions extends ListenOptions {
  /** Clients that each run waits for before its first round, in the order of the jobs. */
  readonly clients: readonly number[];
  /** Folder of the list of clients and of the operator's token. Default: that of the first job's run. */
  readonly home?: string;
  /** Milliseconds that a round with its quorum waits for clients that are all away. Default: 2,000. */
  readonly graceMs?: number;
  /** Milliseconds without progress after which a client is given up. Default: 60,000. */
  readonly leaseMs?: number;
  /** Milliseconds after which a round ends with what it has, where the job does not say. Default: an hour. */
  readonly deadlineMs?: number;
  /** Rounds whose updates and states are kept for `verify`. Default: all. */
  readonly keepRounds?: number;
  /** Name and version of the program, as clients hear them. Default: tributary. */
  readonly program?: string;
  readonly signal?: AbortSignal;
  readonly onEvent?: (event: ServeEvent) => void;
  readonly onLog?: (line: LogLine) => void;
}

/** Names of the files of a server in its folder. */
export const serverFiles = {
  clients: "clients.sqlite",
  operator: "operator.token",
  tokens: "tokens.txt",
  /** Where the server listens, while it does. */
  address: "server.json",
} as const;

/** Milliseconds that a server stays up after its last run, so that clients hear that it is over. */
const FAREWELL = 3000;

/** Carries jobs as their coordinator until all rounds are done. Runs that are found in their folders go on. */
export async function serveJobs(jobs: readonly PlacedJob[], options: ServeOptions): Promise<void> {
  const { clients: wanted, graceMs = 2000, leaseMs = 60_000, deadlineMs = 3_600_000 } = options;
  const { keepRounds, program = "tributary", onEvent = () => {}, onLog = () => {} } = options;
  assertEncrypted(options);
  const env = nodeEnv();
  const signal = options.signal ?? new AbortController().signal;
  const home = options.home ?? jobs[0]?.out ?? "";
  const presence = presenceBook(env);
  const feed = eventFeed();
  const metrics = serverMetrics(counts);
  const carried: CarriedRun[] = [];
  const closers: (() => void)[] = [];
  let flooded = Number.NEGATIVE_INFINITY;
  const log = (line: LogBody): void => onLog({ at: new Date(env.wall()).toISOString(), ...line });

  try {
    for (const [i, job] of jobs.entries()) {
      const one = await openCarriedRun(job, {
        env,
        presence,
        chunkBytes: usualLimits.chunkBytes,
        clients: wanted[i] ?? 1,
        graceMs,
        leaseMs,
        deadlineMs,
        ...(keepRounds !== undefined && { keepRounds }),
        onEvent(event) {
          const { id } = one.served;
          onEvent({ ...event, run: id });
          feed.publish(event.type, { run: id, ...event });
          if (event.type === "client-joined" || event.type === "waiting") log({ run: id, ...event });
        },
        onCommit(events, seconds) {
          const { id } = one.served;
          const bodies = events.map(({ body }) => body);
          metrics.committed(id, bodies, seconds);
          for (const { at, seq, body } of events) onLog({ at, run: id, seq, ...body });
        },
      });
      closers.push(one.close);
      if (carried.some(({ served }) => served.id === one.served.id))
        throw new TributaryError(
          "same-name",
          `serve: two jobs are named ${one.served.id}; give one of them another name`,
        );
      carried.push(one);
    }
    await mkdir(home, { recursive: true });
    // A home that is the folder of a run is locked with it.
    if (!jobs.some(({ out }) => out === home)) {
      const lock = lockRun(home);
      closers.push(() => lock.release());
    }
    const identityJournal = await sqliteJournal<IdentityEvent>(join(home, serverFiles.clients));
    closers.push(() => identityJournal.close());
    const identities = await openIdentities({
      journal: identityJournal,
      env,
      operatorToken: await operatorToken(home),
    });
    const runs = new Map(carried.map(({ served }) => [served.id, served]));
    const common = { runs, identities, presence, limits: usualLimits, env, server: program };
    const forClients = clientRoutes(common);
    const problems = (): string[] =>
      carried.flatMap((one) => {
        const failure = one.failure();
        return failure ? [`run ${one.served.id} has failed: ${failure.message}`] : [];
      });
    const server = await startServer({
      ...options,
      env,
      identities,
      limits: usualLimits,
      routes: [...forClients, ...operatorRoutes({ ...common, metrics, feed, problems }, forClients)],
      onAnswer(answered) {
        metrics.answered(answered);
        const { bytesIn: _in, bytesOut: _out, ...rest } = answered;
        // Those who ask too often do not fill the log: a line a second says that they do.
        const now = env.monotonic();
        if (answered.code === undefined || (answered.code === "too-many" && now - flooded < 1000)) return;
        if (answered.code === "too-many") flooded = now;
        log({ type: "request-refused", ...rest });
      },
      onError: (error, route) => log({ type: "server-error", route, message: String(error) }),
    });
    try {
      const tokens = await issueTokens(identities, home, Math.max(...wanted));
      await keepAddress(home, server.url);
      const listening = {
        type: "listening",
        url: server.url,
        runs: [...runs.keys()],
        clients: Math.max(...wanted),
        ...(tokens !== undefined && { tokens }),
      } as const;
      onEvent(listening);
      log(listening);
      const ends = await Promise.allSettled(carried.map(carryOne));
      if (!signal.aborted) await env.sleep(FAREWELL, signal).catch(() => undefined);
      for (const end of ends) if (end.status === "rejected") throw end.reason;
    } finally {
      await rm(join(home, serverFiles.address), { force: true });
      await server.close();
    }
  } finally {
    for (const close of closers.reverse()) close();
  }

  /** A run that fails leaves the others as they are. */
  async function carryOne(one: CarriedRun): Promise<void> {
    try {
      await one.carry(signal);
    } catch (error) {
      if (!signal.aborted) {
        const reason = error instanceof Error ? error.message : String(error);
        const failed = { type: "run-failed", run: one.served.id, reason } as const;
        onEvent(failed);
        log(failed);
        feed.publish(failed.type, failed);
      }
      throw error;
    }
  }

  function counts(): ClientCounts[] {
    return carried.flatMap(({ served }) => {
      const { clients } = served.status();
      const { open, revoked } = served.hosted()?.state() ?? {};
      const of = {
        joined: clients.joined,
        here: clients.here,
        working: open?.leases.size,
        revoked: revoked?.size,
      };
      return (["joined", "here", "working", "revoked"] as const).map((state) => ({
        run: served.id,
        state,
        count: of[state] ?? 0,
      }));
    });
  }
}

/** Tokens for the clients that are still to enrol, one a line, in a file that only its owner may read. */
async function issueTokens(
  identities: Identities,
  home: string,
  wanted: number,
): Promise<string | undefined> {
  const path = join(home, serverFiles.tokens);
  const open = wanted - identities.list().length;
  if (open <= 0) {
    await rm(path, { force: true });
    return undefined;
  }
  const tokens: string[] = [];
  for (let i = 0; i < open; i++) tokens.push(await identities.issueToken(7 * 24 * 3600));
  await writePrivate(path, `${tokens.join("\n")}\n`);
  return path;
}

/** Lets commands on this machine find the server. */
async function keepAddress(home: string, url: string): Promise<void> {
  const text = JSON.stringify({ url, pid: process.pid });
  await writeFileAtomic(join(home, serverFiles.address), new TextEncoder().encode(`${text}\n`));
}

async function operatorToken(folder: string): Promise<string> {
  const path = join(folder, serverFiles.operator);
  const found = await readFile(path, "utf8").catch((error: NodeJS.ErrnoException) => {
    if (error.code === "ENOENT") return undefined;
    throw error;
  });
  if (found !== undefined) return found.trim();
  const token = randomBytes(32).toString("base64url");
  await writePrivate(path, `${token}\n`);
  return token;
}

async function writePrivate(path: string, text: string): Promise<void> {
  await writeFileAtomic(path, new TextEncoder().encode(text), { mode: 0o600 });
}
