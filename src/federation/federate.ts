import { TributaryError } from "../errors.ts";
import { ceilLog2 } from "../tensor/exact-sum.ts";
import type { Params } from "../tensor/params.ts";
import { type BaseChain, baseChain, extendChain } from "./base-chain.ts";
import type { BlobStore } from "./blob-store.ts";
import { canonicalJson } from "./canonical-json.ts";
import { type ClientTrainer, serveClients } from "./client.ts";
import { type Command, nextStep, type OpenRound, type RunState } from "./coordinator.ts";
import { type Digest, sha256Text } from "./digest.ts";
import { type FederatedClient, finiteOnly, openDoor, type RemoteDoor } from "./door.ts";
import { type Env, systemEnv } from "./env.ts";
import type { RunEvent } from "./events.ts";
import type { Fold } from "./fold.ts";
import {
  type CheckpointCommitted,
  type EventBody,
  JOURNAL_FORMAT,
  type Journal,
  type RoundClosed,
  type RoundOpened,
} from "./journal.ts";
import { openLedger } from "./ledger.ts";
import { type ClientHalf, uploadPlan } from "./local-rule.ts";
import {
  openBaseChanges,
  openState,
  putSealed,
  type Sealed,
  seal,
  sealBaseChanges,
  sealState,
  VERSIONS,
} from "./manifest.ts";
import { planBytes, planOf } from "./plan.ts";
import { retention } from "./retention.ts";
import type { Round } from "./round.ts";
import { byText, drawCohort } from "./sampling.ts";
import type { Json } from "./state.ts";
import type { Declarations, RoundContext, StateTree, Strategy } from "./strategy.ts";

/** Where a run lives between processes. */
export interface RunStore {
  readonly journal: Journal;
  readonly blobs: BlobStore;
}

/** The frozen weights under the adapter. */
export interface BaseOptions {
  /** Names the pretrained weights, e.g. the SHA-256 of their file; the root of the base's version chain. */
  readonly root: string;
  /** Bytes of all weights: what one exchange of the full model costs. */
  readonly bytes: number;
}

/** A committed state of the run, as evaluation sees it. */
export interface Committed {
  /** 0 for the initial state. */
  readonly round: number;
  /** The parameters to evaluate. */
  global(client?: FederatedClient): Params;
  /** What a client would start the next round from: its personal model where `declares.personal`. */
  personal(client: FederatedClient): Promise<ClientHalf>;
  readonly chain: BaseChain;
}

/** A run that clients and operators reach from outside. */
export interface HostedRun {
  readonly run: string;
  readonly door: RemoteDoor;
  /** What the journal says. */
  readonly state: () => RunState;
  /** Milliseconds that the open round has been collecting; 0 where none is. */
  readonly elapsed: () => number;
  /** Lends nothing more and opens no round until it is resumed; clients at work may deliver. */
  pause(): Promise<void>;
  resume(): Promise<void>;
  /** Ends the run with its last committed round; an open round fails. */
  stop(): Promise<void>;
  /** Takes a client out of the run. */
  revoke(client: string, reason: string): Promise<void>;
}

/** How a run is opened to clients on other machines. */
export interface HostOptions {
  /** Milliseconds that a round with its quorum waits for clients that are all away. */
  readonly graceMs: number;
  /** Called once, before the first round. */
  open(hosted: HostedRun): void;
}

/** How a federation is run. */
export interface FederateOptions<State extends StateTree> {
  readonly strategy: Strategy<State>;
  /** Parameters before round 1, drawn at the largest rank of the run. */
  readonly initial: Params;
  readonly clients: readonly FederatedClient[];
  /** Trains the clients in this process. One of `trainer` and `host`. */
  readonly trainer?: ClientTrainer;
  /** Lets clients on other machines in. What they remember stays with them, so the run needs a store for their updates. */
  readonly host?: HostOptions;
  /** Rounds in all, those of an interrupted run included. */
  readonly rounds: number;
  /** Ends the run before `rounds`: asked with the records of all rounds so far, also those of an interrupted run. */
  readonly until?: (rounds: readonly Round[]) => boolean;
  readonly seed: number;
  /** Whatever else decides the result (model, data, optimizer): a run continues only under an equal description. */
  readonly config?: Json;
  readonly base?: BaseOptions;
  /** Share of the clients that a round waits for. Default: 1. */
  readonly participation?: number;
  /** Share of further clients asked; more than 0 makes the accepted set depend on arrival. Default: 0. */
  readonly spare?: number;
  /** Updates without which a round fails. Default: half of the target, rounded up. */
  readonly quorum?: number;
  /** Milliseconds after which a round ends with what it has. Default: none. */
  readonly deadlineMs?: number;
  /** Milliseconds without progress after which a client is given up. Default: none. */
  readonly leaseMs?: number;
  /** Attempts at one round before the run stops. Default: 3. */
  readonly attempts?: number;
  /** Clients trained side by side. Default: 1. */
  readonly concurrency?: number;
  /** Largest norm of a client's change; beyond it the update is refused. Default: none. */
  readonly maxNorm?: number;
  /** Bytes of updates that may be held in memory; more are streamed or read module by module where the strategy allows. Default: 256 MiB. */
  readonly updateMemory?: number;
  /** Measures a committed state on held-out data. */
  readonly evaluate?: (state: Committed, signal: AbortSignal) => Promise<Readonly<Record<string, number>>>;
  /** Where the run lives. Default: nowhere; then it cannot be continued, and updates are dropped once folded. */
  readonly store?: RunStore;
  /** Rounds whose updates and states are kept for `verify`. Default: all. */
  readonly keepRounds?: number;
  readonly env?: Env;
  readonly signal?: AbortSignal;
  readonly onEvent?: (event: RunEvent) => void;
}

/** Milliseconds for which the chunks of an update that is on its way outlive the coordinator that took them in. */
const UPLOAD_MS = 24 * 3_600_000;

/**
 * Runs a federation and yields a record per round. A run found in the store continues where it stopped: in the same
 * round, with the updates that had been accepted, to the same bytes.
 */
export async function* federate<State extends StateTree>(
  options: FederateOptions<State>,
): AsyncGenerator<Round, void, void> {
  const {
    strategy,
    initial,
    trainer,
    host,
    rounds,
    until = () => false,
    seed,
    config = null,
    base = { root: "pretrained", bytes: 0 },
    participation = 1,
    spare = 0,
    deadlineMs,
    leaseMs = Number.POSITIVE_INFINITY,
    attempts = 3,
    concurrency = 1,
    maxNorm = Number.POSITIVE_INFINITY,
    updateMemory = 256 * 1024 * 1024,
    evaluate,
    store,
    keepRounds = Number.POSITIVE_INFINITY,
    env = systemEnv(),
    onEvent = () => {},
  } = options;
  const clients = new Map([...options.clients].sort((a, b) => byText(a.id, b.id)).map((c) => [c.id, c]));
  const target = Math.max(1, Math.round(participation * clients.size));
  const quorum = options.quorum ?? Math.ceil(target / 2);
  assertOptions({ ...options, target, quorum, concurrency, spare, participation });

  const blobs = store?.blobs;
  const halt = new AbortController();
  const ledger = await openLedger({
    env,
    ...(store && { journal: store.journal }),
    // Nothing can be decided any more: whoever waits for the next event would wait for ever.
    onFailure: (error) => halt.abort(error),
  });
  const description = await sha256Text(
    canonicalJson({
      config,
      strategy: strategy.name,
      seed,
      participation,
      spare,
      base: base.root,
      updateMemory,
    }),
    env.hash,
  );
  assertSameRun(ledger.state, description, strategy.name);
  const kept = store && retention(store, keepRounds);
  // What is younger than any upload stays, so that clients elsewhere need not wait for the sweep of what is left behind.
  let swept = ledger.resumedFrom > 0 ? kept?.sweep(host ? UPLOAD_MS : 0) : undefined;
  swept?.catch((error: unknown) => halt.abort(error));
  if (!host) await swept;

  const signal = options.signal ? AbortSignal.any([options.signal, halt.signal]) : halt.signal;
  const door = openDoor({
    strategy,
    clients,
    initial,
    ledger,
    env,
    leaseMs,
    maxNorm,
    onEvent,
    ...(host && { graceMs: host.graceMs }),
    ...(blobs && { blobs }),
  });
  const loops = Array.from({ length: trainer ? concurrency : 0 }, () =>
    trainer
      ? serveClients({ transport: door, trainer, strategy, initial, signal }).catch((error) =>
          halt.abort(error),
        )
      : undefined,
  );

  let state: State | undefined;
  let chain = baseChain(base.root);
  let fold: Fold<State> | undefined;
  let failures = 0;
  const run = ledger.state.created?.run ?? description.slice(0, 16);
  if (ledger.resumedFrom > 0) onEvent(resumption(ledger.state));

  host?.open({
    run,
    door,
    state: () => ledger.state,
    elapsed: () => door.elapsed(),
    pause: () => command({ type: "record", events: ledger.state.halted ? [] : [{ type: "run-paused" }] }),
    resume: () => command({ type: "record", events: ledger.state.halted ? [{ type: "run-resumed" }] : [] }),
    stop: () => command({ type: "stop", elapsedMs: door.elapsed() }),
    revoke: (client, reason) => command({ type: "revoke", client, reason, elapsedMs: door.elapsed() }),
  });

  const digest = (bytes: Uint8Array): Digest | Promise<Digest> => env.hash([bytes]);

  /** Carries out what an operator asks for, and wakes whoever waits for it. */
  async function command(asked: Command): Promise<void> {
    await ledger.execute(asked);
    door.wake();
  }

  async function record(events: readonly EventBody[]): Promise<void> {
    await ledger.execute({ type: "record", events });
  }

  async function keep(sealed: Sealed): Promise<Digest> {
    if (blobs) await putSealed(blobs, sealed);
    return sealed.digest;
  }

  /** Digest of the published parameters; they follow from the state, so they are named and not stored. */
  async function published(next: State, round: number): Promise<Digest | null> {
    if (strategy.declares.personal) return null;
    return (await seal({ kind: "model", run, round }, strategy.global(next), env)).digest;
  }

  /** The state of the last checkpoint: in memory, or read back. */
  async function current(): Promise<State> {
    const { checkpoint, bases } = ledger.state;
    if (!state) {
      if (!blobs || !checkpoint) throw new RangeError("federate: a run without a store has no earlier state");
      // The digest has vouched for the bytes, which only `sealState` wrote.
      state = (await openState(blobs, checkpoint.state)) as State;
      for (const { changes } of bases) {
        if (changes) chain = await extendChain(chain, await openBaseChanges(blobs, changes), digest);
      }
      if (chain.version !== checkpoint.baseVersion) {
        throw new TributaryError(
          "base-mismatch",
          `federate: the base is at version ${chain.version}, the checkpoint of round ${checkpoint.round} was made on ${checkpoint.baseVersion}; was the base model replaced?`,
        );
      }
    }
    return state;
  }

  async function commit(round: number, events: readonly EventBody[]): Promise<void> {
    await record(events);
    door.prune(new Set(ledger.state.memories.values()));
    await swept;
    if (keepRounds < round) swept = kept?.sweep(0);
    await swept;
  }

  async function closeRound(open: OpenRound, closed: RoundClosed): Promise<Round> {
    const before = await current();
    const folded = fold ?? (await door.collect(before, chain, signal));
    fold = undefined;
    const began = env.monotonic();
    const { round } = closed;
    const context: RoundContext = { round, seed, numClients: clients.size };
    const { state: next, base: changes = [], measurements = {} } = await folded.finish(before, context);
    const nextChain = await extendChain(chain, changes, digest);
    const aggregated = env.monotonic();
    const head = { run, round } as const;
    const stored = await keep(
      await sealState({ kind: "state", ...head, parent: open.opened.state }, next, env.hash),
    );
    const model = await published(next, round);
    const baseDigest =
      changes.length > 0
        ? await keep(await sealBaseChanges({ kind: "base", ...head }, changes, env.hash))
        : null;
    const checkpoint: Omit<CheckpointCommitted, "record"> = {
      type: "checkpoint-committed",
      round,
      state: stored,
      model,
      base: baseDigest,
      baseVersion: nextChain.version,
    };
    const committed = env.monotonic();
    const phases = {
      train: open.elapsedMs / 1000,
      aggregate: (aggregated - began) / 1000,
      commit: (committed - aggregated) / 1000,
    };
    const made = roundRecord(ledger.state, {
      open,
      closed,
      checkpoint,
      measurements,
      phases,
      fullBytes: base.bytes,
    });
    await commit(round, [{ ...checkpoint, record: made }]);
    state = next;
    chain = nextChain;
    return made;
  }

  try {
    for (;;) {
      signal.throwIfAborted();
      const made = ledger.state.rounds;
      const last = until(made) ? made.length : rounds;
      const step = nextStep(ledger.state, { rounds: last, evaluates: evaluate !== undefined });
      switch (step.kind) {
        case "create": {
          const ids = await sha256Text(canonicalJson([...clients.values()]), env.hash);
          await record([
            {
              type: "run-created",
              run,
              config: description,
              strategy: strategy.name,
              seed,
              plan: planOf(initial),
              clients: ids,
              numClients: clients.size,
              versions: { ...VERSIONS, journal: String(JOURNAL_FORMAT) },
            },
          ]);
          break;
        }
        case "initialise": {
          const first = strategy.init(initial, [...clients.values()]);
          const stored = await keep(await sealState({ kind: "state", run, round: 0 }, first, env.hash));
          await record([
            {
              type: "checkpoint-committed",
              round: 0,
              state: stored,
              model: await published(first, 0),
              base: null,
              baseVersion: chain.version,
              record: null,
            },
          ]);
          state = first;
          break;
        }
        case "evaluate": {
          const at = await current();
          const began = env.monotonic();
          const { round } = step;
          const context = { round: round + 1, seed, numClients: clients.size };
          const committed: Committed = {
            round,
            chain,
            global: (client) => strategy.global(at, client),
            personal: (client) => {
              if (host) throw elsewhere();
              return door.half(at, client, context);
            },
          };
          const metrics = finiteOnly((await evaluate?.(committed, signal)) ?? {});
          const seconds = (env.monotonic() - began) / 1000;
          await record([{ type: "round-evaluated", round, metrics, seconds }]);
          onEvent({ type: "evaluated", round, metrics, seconds });
          const made = ledger.state.rounds.at(-1);
          if (made?.number === round) yield made;
          break;
        }
        case "open": {
          const { round, attempt } = step;
          if (failures >= attempts) throw stopped(round, failures, ledger.state.lastFailure);
          const before = await current();
          const ids = [...clients.keys()].filter((id) => !ledger.state.revoked.has(id));
          if (ids.length < quorum) throw tooFew(ids.length, clients.size, quorum);
          const aim = Math.min(target, ids.length);
          const cohort = drawCohort({ clients: ids, seed, round, attempt, target: aim, spare });
          const members = cohort.flatMap((id) => clients.get(id) ?? []);
          const [first] = members;
          const context: RoundContext = { round, seed, numClients: clients.size };
          const opened: RoundOpened = {
            type: "round-opened",
            round,
            attempt,
            state: ledger.state.checkpoint?.state ?? "",
            cohort,
            target: aim,
            quorum,
            deadlineMs: deadlineMs ?? null,
            fold: first
              ? foldingOf(strategy.declares, {
                  half: await door.half(before, first, context),
                  cohort: members,
                  updateMemory,
                  stored: blobs !== undefined,
                })
              : { kind: "all" },
          };
          await record([opened]);
          onEvent({ type: "round-opened", round, attempt, cohort, target: aim, quorum });
          break;
        }
        case "collect": {
          const { round, attempt } = step.open.opened;
          const collected = await door.collect(await current(), chain, signal);
          const { open } = ledger.state;
          if (open?.closed) {
            fold = collected;
            failures = 0;
            onEvent({ type: "round-closed", round, accepted: open.closed.accepted, why: open.closed.why });
          } else {
            failures++;
            onEvent({ type: "round-failed", round, attempt, reason: ledger.state.lastFailure ?? "" });
          }
          break;
        }
        case "fold": {
          const made = await closeRound(step.open, step.closed);
          onEvent({ type: "round-committed", round: made });
          if (!evaluate) yield made;
          break;
        }
        case "wait": {
          onEvent({ type: "waiting", why: "paused by an operator" });
          await door.changed(signal);
          break;
        }
        case "end": {
          const { checkpoint } = ledger.state;
          if (!checkpoint) break;
          const { round, state: last, model } = checkpoint;
          await record([{ type: "run-ended", round, state: last, model }]);
          onEvent({ type: "run-ended", rounds: round });
          break;
        }
        case "done":
          return;
      }
    }
  } finally {
    halt.abort(new TributaryError("run-over", "federate: the run is over"));
    await door.close();
    await Promise.allSettled([...loops, swept]);
  }
}

/** The record of a round, from what the journal says of it. */
function roundRecord(
  state: RunState,
  {
    open,
    closed,
    checkpoint,
    measurements,
    phases,
    fullBytes,
  }: {
    readonly open: OpenRound;
    readonly closed: RoundClosed;
    readonly checkpoint: Omit<CheckpointCommitted, "record">;
    readonly measurements: Readonly<Record<string, number>>;
    readonly phases: Round["phases"];
    readonly fullBytes: number;
  },
): Round {
  const accepted = closed.accepted.flatMap((id) => open.accepted.get(id) ?? []);
  const mean = (value: (update: (typeof accepted)[number]) => number | undefined): number => {
    let sum = 0;
    let weight = 0;
    for (const update of accepted) {
      const measured = value(update);
      if (measured === undefined) continue;
      sum += update.numExamples * measured;
      weight += update.numExamples;
    }
    return sum / weight;
  };
  const names = new Set(accepted.flatMap(({ metrics }) => Object.keys(metrics)));
  return {
    number: closed.round,
    clients: open.opened.cohort,
    accepted: accepted.map(({ client, numExamples, norm, loss, metrics, bytes }) => ({
      client,
      numExamples,
      norm,
      loss,
      metrics,
      bytes,
    })),
    rejected: [...open.dropped.values()]
      .map(({ client, code, reason }) => ({ client, code, reason }))
      .sort((a, b) => byText(a.client, b.client)),
    failedAttempts: state.failedAttempts,
    loss: mean(({ loss }) => loss),
    metrics: Object.fromEntries(
      [...names].sort().map((name) => [name, mean(({ metrics }) => metrics[name])]),
    ),
    measurements: finiteOnly(measurements),
    evaluation: {},
    bytesDown: open.bytesDown + state.wastedDown,
    bytesUp: open.bytesUp + state.wastedUp,
    bytesFull: open.exchanges * fullBytes,
    seconds: phases.train + phases.aggregate + phases.commit,
    phases,
    state: checkpoint.state,
    model: checkpoint.model,
    baseVersion: checkpoint.baseVersion,
  };
}

/**
 * Updates that would take more than `updateMemory` are not held together: where modules are aggregated apart they are
 * read from the store one module after the other, a weighted sum is streamed. The grid of the sum is fixed here:
 * values may grow to eight times the largest at the start, at least to 1024; weights are at most the examples of the cohort.
 */
function foldingOf(
  { moduleWise, weightedSum, uniformWeights }: Declarations,
  {
    half,
    cohort,
    updateMemory,
    stored,
  }: {
    /** What one member of the cohort starts from. */
    readonly half: ClientHalf;
    readonly cohort: readonly FederatedClient[];
    readonly updateMemory: number;
    /** Whether there is a store for updates. */
    readonly stored: boolean;
  },
): RoundOpened["fold"] {
  if (cohort.length * planBytes(uploadPlan(half)) <= updateMemory) return { kind: "all" };
  if (moduleWise && stored) return { kind: "modules" };
  const tensors = [...half.start.params.values(), ...half.start.extra.values()];
  if (!weightedSum || tensors.some(({ dtype }) => dtype !== "float32")) return { kind: "all" };
  let largest = 128;
  for (const { data } of tensors) {
    if (!(data instanceof Float32Array)) continue;
    for (let i = 0; i < data.length; i++) {
      const size = Math.abs(data[i] ?? 0);
      if (size > largest) largest = size;
    }
  }
  const examples = cohort.reduce((sum, { numExamples }) => sum + numExamples, 0);
  const maxWeight = uniformWeights ? cohort.length : examples;
  return { kind: "sum", bound: 2 ** (ceilLog2(largest) + 3), maxWeight };
}

function resumption({ rounds, evaluations, open }: RunState): RunEvent {
  const initial = evaluations.get(0)?.metrics;
  return {
    type: "resumed",
    rounds,
    ...(initial && { evaluation: initial }),
    ...(open && { openRound: open.opened.round }),
    kept: open?.accepted.size ?? 0,
  };
}

function stopped(round: number, failures: number, reason = "no update was accepted"): TributaryError {
  return new TributaryError(
    "round-failed",
    `round ${round} failed ${failures} times and the run stopped; the last time: ${reason.replace(/\.$/, "")}. Start it again to continue with round ${round}, or lower the quorum`,
  );
}

function elsewhere(): TributaryError {
  return new TributaryError(
    "not-here",
    "federate: what clients on other machines remember stays there, so their own models cannot be measured here; measure them where they are",
  );
}

function tooFew(left: number, all: number, quorum: number): TributaryError {
  return new TributaryError(
    "too-few-clients",
    `${left} of ${all} clients are left in the run, the quorum is ${quorum}; stop the run, or start another with more clients`,
  );
}

function assertSameRun({ created }: RunState, config: Digest, strategy: string): void {
  if (!created || created.config === config) return;
  const what =
    created.strategy === strategy
      ? "other data or settings"
      : `the strategy ${created.strategy}, this job asks for ${strategy}`;
  throw new TributaryError(
    "other-run",
    `federate: the run found here was made with ${what} (description ${created.config.slice(0, 12)}, now ${config.slice(0, 12)}); restore the job, or write to another folder`,
  );
}

function assertOptions({
  clients,
  rounds,
  target,
  quorum,
  concurrency,
  spare,
  participation,
  trainer,
  host,
  store,
}: Pick<FederateOptions<StateTree>, "clients" | "rounds" | "trainer" | "host" | "store"> & {
  readonly target: number;
  readonly quorum: number;
  readonly concurrency: number;
  readonly spare: number;
  readonly participation: number;
}): void {
  const problems: string[] = [];
  const ids = new Set<string>();
  for (const { id } of clients) {
    if (ids.has(id)) problems.push(`client ${id} is listed twice`);
    ids.add(id);
  }
  if (clients.length === 0) problems.push("there are no clients");
  if (!(Number.isInteger(rounds) && rounds >= 0))
    problems.push(`rounds is ${rounds}, expected an integer >= 0`);
  if (!(participation > 0 && participation <= 1))
    problems.push(`participation is ${participation}, expected more than 0 and at most 1`);
  if (!(spare >= 0)) problems.push(`spare is ${spare}, expected 0 or more`);
  if (!(quorum >= 1 && quorum <= target)) problems.push(`quorum is ${quorum}, expected 1 to ${target}`);
  if (!(Number.isInteger(concurrency) && concurrency >= 1))
    problems.push(`concurrency is ${concurrency}, expected an integer >= 1`);
  if ((trainer === undefined) === (host === undefined))
    problems.push("expected either a trainer or a host for clients elsewhere");
  if (host && !store) problems.push("clients elsewhere need a store for their updates");
  if (problems.length > 0) throw new RangeError(`federate: ${problems.join("; ")}`);
}
