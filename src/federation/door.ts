import type { Params } from "../tensor/params.ts";
import { admit } from "./admission.ts";
import { type BaseChain, catchUp, countScalars } from "./base-chain.ts";
import { bell } from "./bell.ts";
import type { BlobStore } from "./blob-store.ts";
import { isWaiting, type OpenRound, type RunState } from "./coordinator.ts";
import { type Digest, sha256Text } from "./digest.ts";
import type { Env } from "./env.ts";
import type { RunEvent } from "./events.ts";
import { type Fold, foldFor } from "./fold.ts";
import type { UpdateAccepted, UpdateRejected } from "./journal.ts";
import type { Ledger } from "./ledger.ts";
import { type ClientHalf, clientHalf, uploadPlan } from "./local-rule.ts";
import { type ClientMemory, joinUpdate, openMemory, putSealed, sealMemory, sealUpdate } from "./manifest.ts";
import type { Assignment, AssignmentRef, ClientUpdate, Receipt, Work } from "./message.ts";
import { type PlanEntry, planBytes, planOf } from "./plan.ts";
import type { ClientRef, Payload, RoundContext, StateTree, Strategy } from "./strategy.ts";
import type { ClientTransport } from "./transport.ts";

/** A client as the run knows it. */
export interface FederatedClient extends ClientRef {
  /** Examples that the client holds; no update may claim more. */
  readonly numExamples: number;
}

/** What the door needs to know of the run. */
export interface DoorOptions<State extends StateTree> {
  readonly strategy: Strategy<State>;
  readonly clients: ReadonlyMap<string, FederatedClient>;
  /** The parameters before round 1, at the largest rank. */
  readonly initial: Params;
  readonly ledger: Ledger;
  readonly blobs?: BlobStore;
  readonly env: Env;
  /** Milliseconds without progress after which a lease ends. */
  readonly leaseMs: number;
  readonly maxNorm: number;
  readonly onEvent: (event: RunEvent) => void;
}

/** The coordinator's side of the client transport: lends assignments, checks updates, takes them in. */
export interface Door<State extends StateTree> extends ClientTransport {
  /** Collects the updates of the open round until it is closed or failed; gives the fold of what was accepted. */
  collect(state: State, chain: BaseChain, signal: AbortSignal): Promise<Fold<State>>;
  /** What a client makes of a state: where it would start the next round. */
  half(state: State, client: FederatedClient, context: RoundContext): Promise<ClientHalf>;
  /** Forgets what no client remembers any more. */
  prune(memories: ReadonlySet<Digest>): void;
}

/** A round while its assignments are lent. */
interface Lending<State extends StateTree> {
  readonly opened: OpenRound["opened"];
  readonly run: string;
  readonly context: RoundContext;
  readonly state: State;
  readonly chain: BaseChain;
  /** Assignments given out by this process, with the time of their last progress. */
  readonly inHand: Map<string, { readonly id: string; seen: number; readonly prepared?: Prepared }>;
  readonly busy: Set<Promise<unknown>>;
  /** What is expected of each layout of payloads. */
  readonly plans: Map<string, PlanEntry[]>;
  elapsed(): number;
}

/** A round that takes in updates. */
interface Collection<State extends StateTree> extends Lending<State> {
  readonly fold: Fold<State>;
  /** Place in the cohort from which the next client is looked for, counted on over its end. */
  turn: number;
}

interface Prepared {
  readonly payload: Payload;
  readonly kept: ClientMemory;
  readonly half: ClientHalf;
}

/** Opens the door of a run. */
export function openDoor<State extends StateTree>({
  strategy,
  clients,
  initial,
  ledger,
  blobs,
  env,
  leaseMs,
  maxNorm,
  onEvent,
}: DoorOptions<State>): Door<State> {
  const changed = bell();
  const remembered = new Map<Digest, ClientMemory>();
  let collection: Collection<State> | undefined;
  let closed = false;

  async function memoryOf(client: string): Promise<ClientMemory> {
    const digest = ledger.state.memories.get(client);
    if (digest === undefined) return {};
    return remembered.get(digest) ?? (blobs ? openMemory(blobs, digest) : {});
  }

  /** Both sides of what a client receives in this round: what is sent, and what the client makes of it. */
  async function prepare(
    { context, state }: Pick<Lending<State>, "context" | "state">,
    client: FederatedClient,
  ): Promise<Prepared> {
    const payload = strategy.broadcast(state, client, context);
    const kept = await memoryOf(client.id);
    const half = clientHalf(strategy, { client, received: payload, memory: kept.memory, initial, context });
    return { payload, kept, half };
  }

  function planOfUpload({ plans }: Lending<State>, half: ClientHalf): PlanEntry[] {
    const key = JSON.stringify([planOf(half.start.params), planOf(half.start.extra)]);
    const known = plans.get(key);
    if (known) return known;
    const plan = uploadPlan(half);
    plans.set(key, plan);
    return plan;
  }

  /** The next client of the round that nobody works for, marked as in hand. */
  function take(current: Collection<State>): string | undefined {
    const { open } = ledger.state;
    if (!open || open.closed || open.opened !== current.opened) return undefined;
    const orphan = [...open.leases.keys()].find((client) => !current.inHand.has(client));
    const client = orphan ?? nextWaiting(current, open);
    if (client !== undefined) current.inHand.set(client, { id: "", seen: env.monotonic() });
    return client;
  }

  async function lend(current: Collection<State>, client: string): Promise<Work | undefined> {
    const { opened, run, context, chain } = current;
    const { round, attempt } = opened;
    const ref = clients.get(client);
    const open = ledger.state.open;
    if (!ref || !open) return undefined;
    const prepared = await prepare(current, ref);
    const { payload, kept } = prepared;
    const held = open.leases.get(client);
    const lease = held?.lease ?? (open.expired.get(client) ?? 0) + 1;
    const id =
      held?.assignment ?? (await sha256Text(`${run}|${round}|${attempt}|${lease}|${client}`, env.hash));
    current.inHand.set(client, { id, seen: env.monotonic(), prepared });
    if (!held) {
      const bytes = offline(strategy) ? 0 : payloadBytes(payload) + missedBytes(ledger.state, chain, client);
      const { events } = await ledger.execute({ type: "lease", assignment: { id, round, client }, bytes });
      if (events.length === 0) return undefined;
    }
    onEvent({ type: "client-started", round, client });
    const assignment: Assignment = {
      id,
      round,
      client,
      run,
      attempt,
      lease,
      context,
      ref,
      state: opened.state,
      baseVersion: chain.version,
    };
    return { assignment, payload, chain, ...kept };
  }

  async function takeIn(
    current: Collection<State>,
    ref: AssignmentRef,
    update: ClientUpdate,
  ): Promise<Receipt> {
    const { opened, run, fold } = current;
    const { round, client } = ref;
    const known = clients.get(client);
    if (!known) {
      const submission = await sha256Text(`${ref.id}|unknown`, env.hash);
      return {
        status: "rejected",
        submission,
        code: "unknown-assignment",
        reason: `no client ${client} in this run`,
      };
    }
    const { half } = current.inHand.get(client)?.prepared ?? (await prepare(current, known));
    const tensors = joinUpdate(update);
    const verdict = admit(
      { tensors, numExamples: update.numExamples, loss: update.loss },
      {
        plan: planOfUpload(current, half),
        start: joinUpdate({ params: half.start.params }),
        maxExamples: known.numExamples,
        maxNorm,
        ...(opened.fold.kind === "sum" && { bound: opened.fold.bound }),
      },
    );
    const head = { run, round, client } as const;
    const sealed = await sealUpdate({ kind: "update", ...head, parent: opened.state }, update, env.hash);
    const submission = await sha256Text(`${run}|${round}|${client}|${ref.id}|${sealed.digest}`, env.hash);
    const bytes = offline(strategy) ? 0 : sealed.manifest.bytes;
    const common = { round, client, assignment: ref.id, submission, bytes, elapsedMs: current.elapsed() };
    if ("code" in verdict) {
      const rejected: UpdateRejected = { type: "update-rejected", ...common, ...verdict };
      const { events, receipt } = await ledger.execute({ type: "submit", submission: rejected });
      if (events.length > 0) onEvent({ type: "client-dropped", round, client, ...verdict });
      return receipt ?? { status: "rejected", submission, ...verdict };
    }
    const kept: ClientMemory = {
      ...(update.memory && { memory: update.memory }),
      ...(update.optimizer && { optimizer: update.optimizer }),
    };
    const keeps = update.memory !== undefined || update.optimizer !== undefined;
    const memory = keeps ? await sealMemory({ kind: "memory", ...head }, kept, env.hash) : undefined;
    if (blobs) {
      await putSealed(blobs, sealed);
      if (memory) await putSealed(blobs, memory);
    } else if (memory) remembered.set(memory.digest, kept);
    const accepted: UpdateAccepted = {
      type: "update-accepted",
      ...common,
      manifest: sealed.digest,
      ...(memory && { memory: memory.digest }),
      numExamples: update.numExamples,
      norm: verdict.norm,
      loss: update.loss,
      metrics: finiteOnly(update.metrics ?? {}),
    };
    const { events, receipt } = await ledger.execute({ type: "submit", submission: accepted });
    if (events.length > 0) {
      fold.add({ client: known, numExamples: update.numExamples, ...pick(update) }, sealed.digest);
      onEvent({
        type: "update-accepted",
        round,
        client,
        loss: update.loss,
        numExamples: update.numExamples,
        bytes,
      });
    }
    return receipt ?? { status: "accepted", submission };
  }

  /** Ends leases without progress, and the round at its deadline. */
  async function watch(current: Collection<State>, signal: AbortSignal): Promise<void> {
    const { deadlineMs, round } = current.opened;
    if (deadlineMs === null && leaseMs === Number.POSITIVE_INFINITY) return;
    while (!signal.aborted) {
      const now = env.monotonic();
      const left = deadlineMs === null ? Number.POSITIVE_INFINITY : deadlineMs - current.elapsed();
      if (left <= 0) {
        await ledger.execute({ type: "deadline", elapsedMs: current.elapsed() });
        changed.ring();
        return;
      }
      let soonest = Math.min(left, leaseMs);
      for (const [client, { id, seen }] of current.inHand) {
        const rest = seen + leaseMs - now;
        if (rest > 0) soonest = Math.min(soonest, rest);
        else if (id !== "") {
          const why = `no progress for ${Math.round(leaseMs / 1000)} s`;
          await door.fail({ id, round, client }, { code: "lease-expired", message: why });
        }
      }
      await env.sleep(soonest, signal).catch(() => undefined);
    }
  }

  const door: Door<State> = {
    async next({ waitMs, signal }) {
      const end = env.monotonic() + waitMs;
      while (!closed && !signal.aborted) {
        const current = collection;
        const client = current && take(current);
        if (current && client !== undefined) {
          const work = await lend(current, client);
          if (work) return work;
          current.inHand.delete(client);
          continue;
        }
        const left = end - env.monotonic();
        if (left <= 0) return null;
        if (left === Number.POSITIVE_INFINITY) await changed.wait(signal);
        else await within(changed.wait, env, left, signal);
      }
      return null;
    },
    async heartbeat({ id, round, client }, progress) {
      const held = collection?.inHand.get(client);
      const { open } = ledger.state;
      const current =
        open && !open.closed && open.opened.round === round && open.leases.get(client)?.assignment === id;
      if (!current || held?.id !== id) return "abandon";
      held.seen = env.monotonic();
      onEvent({ type: "client-progress", round, client, progress });
      return "continue";
    },
    async submit(ref, update) {
      const current = collection;
      if (!current || current.opened.round !== ref.round) {
        const submission = await sha256Text(`${ref.id}|late`, env.hash);
        return {
          status: "rejected",
          submission,
          code: "round-closed",
          reason: `round ${ref.round} is not open`,
        };
      }
      const work = takeIn(current, ref, update);
      current.busy.add(work);
      try {
        return await work;
      } finally {
        current.busy.delete(work);
        if (current.inHand.get(ref.client)?.id === ref.id) current.inHand.delete(ref.client);
        changed.ring();
      }
    },
    async fail(ref, why) {
      const current = collection;
      const { events } = await ledger.execute({
        type: "fail",
        assignment: ref,
        why,
        elapsedMs: current?.elapsed() ?? 0,
      });
      if (current?.inHand.get(ref.client)?.id === ref.id) current.inHand.delete(ref.client);
      if (events.length > 0) {
        const { code, message: reason } = why;
        onEvent({ type: "client-dropped", round: ref.round, client: ref.client, code, reason });
      }
      changed.ring();
    },
    async close() {
      closed = true;
      changed.ring();
    },
    async collect(state, chain, signal) {
      const { open, created } = ledger.state;
      if (!open || !created) throw new RangeError("collect: no round is open");
      const { opened } = open;
      const begun = env.monotonic() - open.elapsedMs;
      const context = { round: opened.round, seed: created.seed, numClients: clients.size };
      const common = { opened, run: created.run, context, state, chain, plans: new Map(), inHand: new Map() };
      const unfolded = {
        ...common,
        busy: new Set<Promise<unknown>>(),
        elapsed: () => env.monotonic() - begun,
      };
      const first = clients.get(opened.cohort[0] ?? "");
      const plan = first ? planOfUpload(unfolded, (await prepare(unfolded, first)).half) : [];
      const fold = foldFor(strategy, { how: opened.fold, plan, ...(blobs && { blobs }) });
      for (const { client, numExamples, manifest } of open.accepted.values()) {
        const known = clients.get(client);
        if (known && blobs) await fold.addStored({ client: known, numExamples }, manifest);
      }
      const current: Collection<State> = { ...unfolded, fold, turn: 0 };
      collection = current;
      changed.ring();
      const stop = new AbortController();
      const either = AbortSignal.any([signal, stop.signal]);
      const watching = watch(current, either);
      try {
        while (collecting(ledger.state, opened)) {
          signal.throwIfAborted();
          await changed.wait(signal);
        }
        while (current.busy.size > 0) await Promise.allSettled(current.busy);
      } finally {
        stop.abort();
        collection = undefined;
        await watching;
      }
      return current.fold;
    },
    async half(state, client, context) {
      return (await prepare({ state, context }, client)).half;
    },
    prune(memories) {
      for (const digest of remembered.keys()) if (!memories.has(digest)) remembered.delete(digest);
    },
  };

  return door;
}

/** The next client of the cohort, in turn, that the round waits for and nobody works for. */
function nextWaiting<State extends StateTree>(
  current: Collection<State>,
  open: OpenRound,
): string | undefined {
  const { cohort } = open.opened;
  for (const _ of cohort) {
    const client = cohort[current.turn++ % cohort.length];
    if (client !== undefined && !current.inHand.has(client) && isWaiting(open, client)) return client;
  }
  return undefined;
}

function collecting({ open }: RunState, opened: OpenRound["opened"]): boolean {
  return open !== undefined && open.opened === opened && !open.closed;
}

/** Strategies that exchange nothing: what the simulation hands around does not travel. */
function offline({ declares }: Pick<Strategy, "declares">): boolean {
  return declares.isolated === true || declares.centralized === true;
}

function pick({ params, extra }: ClientUpdate): { readonly params: Params; readonly extra?: Params } {
  return { params, ...(extra && { extra }) };
}

/** The entries that have a JSON form. */
export function finiteOnly(values: Readonly<Record<string, number>>): Record<string, number> {
  return Object.fromEntries(Object.entries(values).filter(([, value]) => Number.isFinite(value)));
}

/** Bytes of the tensors of a payload. */
function payloadBytes({ params, extra = new Map() }: Payload): number {
  return planBytes(planOf(params)) + planBytes(planOf(extra));
}

/** Bytes of the shared base changes since the client's last assignment. */
function missedBytes({ lastAsked, bases }: RunState, chain: BaseChain, client: string): number {
  const last = lastAsked.get(client);
  const held = last === undefined ? chain.root : (bases[last - 1]?.version ?? chain.root);
  return 4 * countScalars(catchUp(chain, held).changes);
}

async function within(
  wait: (signal: AbortSignal) => Promise<void>,
  env: Env,
  ms: number,
  signal: AbortSignal,
): Promise<void> {
  const stop = new AbortController();
  const either = AbortSignal.any([signal, stop.signal]);
  await Promise.race([wait(either), env.sleep(ms, either).catch(() => undefined)]);
  stop.abort();
}
