import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { TributaryError } from "../errors.ts";
import { canonicalJson } from "../federation/canonical-json.ts";
import type { RunState } from "../federation/coordinator.ts";
import type { FederatedClient } from "../federation/door.ts";
import type { Env } from "../federation/env.ts";
import type { RunEvent } from "../federation/events.ts";
import { type Committed, federate, type HostedRun } from "../federation/federate.ts";
import type { EventBody, Journal, JournalEvent } from "../federation/journal.ts";
import type { Progress } from "../federation/message.ts";
import { writeFileAtomic } from "../formats/files.node.ts";
import { openRunFolder } from "../storage/run-folder.ts";
import { payloadOffers } from "../transports/http/offers.ts";
import type { Presence } from "../transports/http/presence.ts";
import type { Joining, RunStatus } from "../transports/http/protocol.ts";
import { Refused } from "../transports/http/refusal.ts";
import type { ServedRun } from "../transports/http/served-run.ts";
import { rankOfClient } from "./adapter.ts";
import { isSpent } from "./budget.ts";
import { type Coordination, coordinate } from "./coordinate.node.ts";
import { resultKeys } from "./differences.ts";
import type { PlacedJob } from "./run.ts";
import { isDue, writeTrained } from "./run.ts";
import { clientsFile, keepJob, prepareRunFolder, writeRounds } from "./run-files.node.ts";
import { clock } from "./units.ts";

/** How a job is carried. */
export interface CarryOptions {
  readonly env: Env;
  readonly presence: Presence;
  readonly chunkBytes: number;
  /** Clients that the run waits for before its first round. */
  readonly clients: number;
  /** Milliseconds that a round with its quorum waits for clients that are all away. */
  readonly graceMs: number;
  /** Milliseconds without progress after which a client is given up. */
  readonly leaseMs: number;
  /** Milliseconds after which a round ends with what it has, where the job does not say. */
  readonly deadlineMs: number;
  /** Rounds whose updates and states are kept for `verify`; all where absent. */
  readonly keepRounds?: number;
  /** Told of everything that happens, after it is durable. */
  onEvent(event: RunEvent | ClientJoined): void;
  /** Told of each commit of the journal. */
  onCommit(events: readonly JournalEvent[], seconds: number): void;
}

/** A client has joined a run that waits for its clients. */
export interface ClientJoined {
  readonly type: "client-joined";
  readonly client: string;
  readonly of: number;
  readonly waitsFor: number;
}

/** A run on a server: what clients and operators reach, and the rounds. */
export interface CarriedRun {
  readonly served: ServedRun;
  /** Gathers the clients, then carries the rounds. Resolves when the run is over. */
  carry(signal: AbortSignal): Promise<void>;
  /** Why the run cannot go on; undefined while it can. */
  failure(): Error | undefined;
  close(): void;
}

/** A client as the run pins it. */
interface Pinned {
  readonly client: string;
  readonly numExamples: number | undefined;
}

/** Opens the folder of a run, new or not, for clients on other machines. */
export async function openCarriedRun(given: PlacedJob, options: CarryOptions): Promise<CarriedRun> {
  const { env, presence, clients: wanted, onEvent } = options;
  const coordination = await coordinate(given);
  refuseSimulated(given, coordination);
  const job = await prepareRunFolder(given.out, given, 1, { fresh: false });
  const store = await openRunFolder(job.out);
  await keepJob(job.out, job);
  const joined = new Map((await pinnedClients(job.out)).map((one) => [one.client, one]));
  const id = runName(job.name);
  const deadlineMs = job.deadline === undefined ? options.deadlineMs : 1000 * job.deadline;
  const progress = new Map<string, Progress>();
  const delivered = new Map<string, number>();
  let counted = 0;
  let full = joined.size >= wanted;
  let ready: () => void = () => {};
  const gathered = new Promise<void>((resolve) => {
    ready = resolve;
  });
  if (full) ready();
  let hosted: HostedRun | undefined;
  let failure: Error | undefined;
  let keeping: Promise<void> = Promise.resolve();

  async function takeIn(client: string, { numExamples }: Joining): Promise<void> {
    if (joined.has(client)) return keeping;
    if (full)
      throw new Refused(
        409,
        "run-full",
        `run ${id} began with ${joined.size} clients and takes no more; ask for the next run`,
      );
    joined.set(client, { client, numExamples });
    full = joined.size >= wanted;
    const list = [...joined.values()];
    keeping = keeping.then(() => keepClients(job.out, list));
    await keeping;
    onEvent({ type: "client-joined", client, of: list.length, waitsFor: wanted });
    if (list.length >= wanted) ready();
  }

  const served: ServedRun = {
    id,
    hosted: () => hosted,
    blobs: store.blobs,
    offers: payloadOffers(env, options.chunkBytes),
    described: { run: id, job: canonicalJson(forClients(job)), base: coordination.base.root },
    join: takeIn,
    status() {
      const here = [...joined.keys()].filter((client) => presence.isHere(client)).length;
      const clients = { joined: joined.size, of: wanted, here };
      const status = hosted
        ? statusOf(hosted, { run: id, clients, rounds: job.rounds, deadlineMs, presence })
        : idle(clients);
      return failure ? { ...status, phase: "failed", why: failure.message } : status;
    },
    clientState(client) {
      if (!joined.has(client)) return undefined;
      if (!hosted) return { state: "waiting", accepted: 0 };
      const state = hosted.state();
      const at = progress.get(client);
      const part = partOf(state, client);
      return {
        state: part,
        accepted: deliveredIn(state.rounds).get(client) ?? 0,
        ...(part === "working" && at && { progress: at }),
      };
    },
  };

  /** Updates of each client in the rounds so far. */
  function deliveredIn(rounds: RunState["rounds"]): ReadonlyMap<string, number> {
    for (; counted < rounds.length; counted++)
      for (const { client } of rounds[counted]?.accepted ?? [])
        delivered.set(client, (delivered.get(client) ?? 0) + 1);
    return delivered;
  }

  const idle = (clients: RunStatus["clients"]): RunStatus => ({
    run: id,
    phase: "gathering",
    rounds: { done: 0, of: job.rounds },
    why: `the run waits for ${wanted - joined.size} more of ${wanted} clients`,
    clients,
  });

  function tell(event: RunEvent): void {
    if (event.type === "client-progress") progress.set(event.client, event.progress);
    if (event.type === "round-opened") progress.clear();
    onEvent(event);
  }

  async function rounds(signal: AbortSignal): Promise<void> {
    const members = pinned([...joined.values()], coordination, job);
    // Only a run that measures loads what trains and measures.
    const evaluation = coordination.strategy.declares.personal
      ? undefined
      : await (await import("./served-evaluation.ts")).servedEvaluation(job);
    const asked = job.clientsPerRound ?? members.length * job.participation;
    const run = federate({
      strategy: coordination.strategy,
      initial: coordination.initial,
      clients: members,
      host: {
        graceMs: options.graceMs,
        open(opened) {
          hosted = opened;
        },
      },
      rounds: job.rounds,
      seed: job.seed,
      config: { job: resultKeys(job), model: coordination.base.root },
      base: coordination.base,
      participation: Math.min(1, asked / members.length),
      spare: job.spare,
      leaseMs: options.leaseMs,
      deadlineMs,
      ...(job.quorum === undefined ? {} : { quorum: job.quorum }),
      ...(options.keepRounds === undefined ? {} : { keepRounds: options.keepRounds }),
      store: { ...store, journal: watched(store.journal, env, options.onCommit) },
      env,
      signal,
      onEvent: tell,
      until: (before) => isSpent(job.budget, before),
      async evaluate(state: Committed, stop) {
        await writeTrained(job.out, state, coordination, job);
        const earlier = hosted?.state().rounds ?? [];
        return evaluation && isDue(state.round, job, earlier) ? evaluation.measure(state, stop) : {};
      },
    });
    try {
      // Rounds of earlier processes are in the state too.
      for await (const _ of run) await writeRounds(job.out, hosted?.state().rounds ?? []);
    } finally {
      await evaluation?.close();
    }
  }

  return {
    served,
    async carry(signal) {
      try {
        await whenGathered(gathered, signal);
        await rounds(signal);
      } catch (error) {
        failure = error instanceof Error ? error : new Error(String(error));
        throw error;
      }
    },
    failure: () => failure,
    close: () => store.close(),
  };
}

/** Throws TributaryError where a job says what only a simulation can do. */
function refuseSimulated(
  { name, updates, strategy }: PlacedJob,
  { strategy: { declares } }: Coordination,
): void {
  const what =
    updates.late !== undefined
      ? "updates.late draws from the seed how late silos are"
      : declares.centralized || declares.isolated
        ? `${strategy.name} exchanges nothing`
        : undefined;
  if (what === undefined) return;
  throw new TributaryError(
    "simulation-only",
    `serve: ${what}; run ${name} with tributary run, or change the job`,
  );
}

/** A journal that says what it has committed. */
function watched(journal: Journal, env: Env, onCommit: CarryOptions["onCommit"]): Journal {
  return {
    async append(events: readonly JournalEvent<EventBody>[], expect) {
      const began = env.monotonic();
      await journal.append(events, expect);
      onCommit(events, (env.monotonic() - began) / 1000);
    },
    read: (from) => journal.read(from),
  };
}

function statusOf(
  hosted: HostedRun,
  {
    run,
    clients,
    rounds,
    deadlineMs,
    presence,
  }: {
    readonly run: string;
    readonly clients: RunStatus["clients"];
    readonly rounds: number;
    readonly deadlineMs: number;
    readonly presence: Presence;
  },
): RunStatus {
  const state = hosted.state();
  const { open, halted, ended } = state;
  const last = state.rounds.at(-1);
  const seconds = state.rounds.map((round) => round.seconds).sort((a, b) => a - b);
  const middle = seconds[seconds.length >> 1];
  const common = {
    run,
    rounds: { done: state.rounds.length, of: rounds },
    clients,
    ...(last && Number.isFinite(last.loss) && { loss: last.loss }),
    ...(middle !== undefined && { roundSeconds: middle }),
  };
  if (ended)
    return halted === "stopped"
      ? { ...common, phase: "stopped", why: "an operator stopped the run" }
      : { ...common, phase: "ended", why: "all rounds are done" };
  if (!open || open.closed) {
    if (halted) return { ...common, phase: halted, why: `an operator has ${halted} the run` };
    const why = open ? `round ${open.opened.round} is being aggregated` : "the next round is about to open";
    return { ...common, phase: "aggregating", why };
  }
  const { round, attempt, target, quorum } = open.opened;
  const elapsed = hosted.elapsed();
  const left = deadlineMs - elapsed;
  const away = open.opened.cohort.filter(
    (client) => !open.accepted.has(client) && !open.dropped.has(client) && !presence.isHere(client),
  );
  const whom = away.length > 0 ? `; away: ${some(away)}` : "";
  const why = `round ${round} waits: ${open.accepted.size} of ${target} updates, quorum ${quorum}, deadline in ${clock(left / 1000)}${whom}`;
  return {
    ...common,
    phase: halted ?? "collecting",
    open: {
      round,
      attempt,
      accepted: open.accepted.size,
      target,
      quorum,
      elapsedSeconds: elapsed / 1000,
      deadlineSeconds: left / 1000,
    },
    why: halted ? `an operator has ${halted} the run; ${why}` : why,
  };
}

function some(names: readonly string[]): string {
  return names.length > 5 ? `${names.slice(0, 5).join(", ")} and ${names.length - 5} more` : names.join(", ");
}

/** What a client is to the open round. */
function partOf(
  { open, revoked }: RunState,
  client: string,
): "waiting" | "working" | "delivered" | "dropped" | "not-asked" {
  if (revoked.has(client)) return "dropped";
  if (!open?.opened.cohort.includes(client)) return "not-asked";
  if (open.accepted.has(client)) return "delivered";
  if (open.dropped.has(client)) return "dropped";
  return open.leases.has(client) ? "working" : "waiting";
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

async function whenGathered(gathered: Promise<void>, signal: AbortSignal): Promise<void> {
  signal.throwIfAborted();
  let stop: () => void = () => {};
  const aborted = new Promise<never>((_, reject) => {
    stop = () => reject(signal.reason);
    signal.addEventListener("abort", stop, { once: true });
  });
  await Promise.race([gathered, aborted]).finally(() => signal.removeEventListener("abort", stop));
}

/** A name that may stand in a path. */
export function runName(name: string): string {
  const plain = name
    .toLowerCase()
    .replace(/[^a-z0-9-]+/g, "-")
    .replace(/^-+|-+$/g, "");
  return plain.slice(0, 64) || "run";
}

async function pinnedClients(folder: string): Promise<Pinned[]> {
  const text = await readFile(join(folder, clientsFile), "utf8").catch((error: NodeJS.ErrnoException) => {
    if (error.code === "ENOENT") return "[]";
    throw error;
  });
  // Only `keepClients` writes the file, whole or not at all.
  return JSON.parse(text) as Pinned[];
}

async function keepClients(folder: string, list: readonly Pinned[]): Promise<void> {
  await writeFileAtomic(join(folder, clientsFile), new TextEncoder().encode(JSON.stringify(list)));
}
