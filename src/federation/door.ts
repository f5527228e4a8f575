import type { Params } from "../tensor/params.ts";
import {
  type AdmissionOptions,
  admit,
  admitStored,
  refusedFile,
  refuseManifest,
  type Verdict,
} from "./admission.ts";
import { type BaseChain, catchUp, countScalars } from "./base-chain.ts";
import { bell } from "./bell.ts";
import type { BlobStore } from "./blob-store.ts";
import { decide, isWaiting, type OpenRound, type RunState } from "./coordinator.ts";
import { type Digest, sha256Text } from "./digest.ts";
import type { Env } from "./env.ts";
import type { RunEvent } from "./events.ts";
import { type Fold, foldFor } from "./fold.ts";
import type { UpdateAccepted, UpdateRejected } from "./journal.ts";
import type { Ledger } from "./ledger.ts";
import { type ClientHalf, clientHalf, uploadPlan } from "./local-rule.ts";
import {
  AT_ONCE,
  type ClientMemory,
  joinUpdate,
  openMemory,
  openUpdate,
  putSealed,
  sealMemory,
  sealUpdate,
  splitUpdate,
  streamOf,
} from "./manifest.ts";
import type {
  Assignment,
  AssignmentRef,
  ClientUpdate,
  Incomplete,
  Receipt,
  StoredUpdate,
  Work,
} from "./message.ts";
import { type PlanEntry, planBytes, planOf } from "./plan.ts";
import { spareArrays } from "./spare-arrays.ts";
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
  /** Milliseconds that a round with its quorum waits for clients on other machines that are away; absent: clients are in this process. */
  readonly graceMs?: number;
  readonly onEvent: (event: RunEvent) => void;
}

/** What clients on other machines reach through a wire. */
export interface RemoteDoor extends ClientTransport {
  /** Takes in an update whose tensors the client put into the store. Resolves after the journal commit. */
  submitStored(assignment: AssignmentRef, update: StoredUpdate): Promise<Receipt | Incomplete>;
  /** Notes that a client has come or gone. Going ends nothing by itself: a round that has its quorum waits for it a little. */
  note(client: string, presence: "here" | "away"): void;
  /** Renews the lease of a client in full: bytes of its work are on their way. */
  renew(client: string): void;
}

/** The coordinator's side of the client transport: lends assignments, checks updates, takes them in. */
export interface Door<State extends StateTree> extends RemoteDoor {
  /** Collects the updates of the open round until it is closed or failed; gives the fold of what was accepted. */
  collect(state: State, chain: BaseChain, signal: AbortSignal): Promise<Fold<State>>;
  /** What a client makes of a state: where it would start the next round. */
  half(state: State, client: FederatedClient, context: RoundContext): Promise<ClientHalf>;
  /** Time that the open round has been collecting; 0 where none is. */
  elapsed(): number;
  /** Wakes whoever waits at the door: an operator has changed the run. */
  wake(): void;
  /** Resolves at the next change. */
  changed(signal: AbortSignal): Promise<void>;
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
  /** Assignments given out by this process or found open at its start, with the time of their last progress. */
  readonly inHand: Map<string, { readonly id: string; seen: number; readonly prepared?: Prepared }>;
  readonly busy: Set<Promise<unknown>>;
  /** What is expected of each layout of payloads. */
  readonly plans: Map<string, PlanEntry[]>;
  /** When this process began to collect. */
  readonly since: number;
  elapsed(): number;
}

/** A round that takes in updates. */
interface Collection<State extends StateTree> extends Lending<State> {
  readonly fold: Fold<State>;
  /** Place in the cohort from which the next client is looked for, counted on over its end. */
  turn: number;
}

/** What the journal says of a delivered update. */
type Delivered = Pick<UpdateAccepted, "numExamples" | "loss" | "bytes"> & {
  readonly digest: Digest;
  readonly memory?: Digest;
  readonly metrics?: Readonly<Record<string, number>>;
};

/** Arrays for updates that are read and folded. */
const SPARE = 4;

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
  graceMs = Number.POSITIVE_INFINITY,
  onEvent,
}: DoorOptions<State>): Door<State> {
  const changed = bell();
  /** Rings where there may be work for somebody: a thousand clients that wait are not woken by every update. */
  const offered = bell();
  /** Clients that asked again while an assignment was on its way to them. */
  const again = new Set<string>();
  const remote = graceMs !== Number.POSITIVE_INFINITY;
  const remembered = new Map<Digest, ClientMemory>();
  const spare = spareArrays(SPARE);
  /** When each client was last seen to go; absent while it is here, and before it first came. */
  const away = new Map<string, number>();
  const here = new Set<string>();
  const never = new AbortController().signal;
  let collection: Collection<State> | undefined;
  let closed = false;

  async function memoryOf(client: string): Promise<ClientMemory> {
    const digest = ledger.state.memories.get(client);
    if (digest === undefined || remote) return {};
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

  /** The next client of the round that nobody works for, or `asked` if the round has work for it, marked as in hand. */
  function take(current: Collection<State>, asked: string | undefined): string | undefined {
    const { open, halted } = ledger.state;
    if (!open || open.closed || open.opened !== current.opened) return undefined;
    if (asked !== undefined) {
      const held = open.leases.has(asked);
      if (!held && (halted || !open.opened.cohort.includes(asked) || !isWaiting(open, asked)))
        return undefined;
      if (!held && current.inHand.has(asked)) return undefined;
      const { id = "", prepared } = current.inHand.get(asked) ?? {};
      current.inHand.set(asked, { id, seen: env.monotonic(), ...(prepared && { prepared }) });
      return asked;
    }
    const orphan = [...open.leases.keys()].find((client) => !current.inHand.has(client));
    const client = orphan ?? (halted ? undefined : nextWaiting(current, open));
    if (client !== undefined) current.inHand.set(client, { id: "", seen: env.monotonic() });
    return client;
  }

  async function lend(current: Collection<State>, client: string): Promise<Work | undefined> {
    const { opened, run, context, chain } = current;
    const { round, attempt } = opened;
    const ref = clients.get(client);
    const open = ledger.state.open;
    if (!ref || !open) return undefined;
    const prepared = current.inHand.get(client)?.prepared ?? (await prepare(current, ref));
    const { payload, kept } = prepared;
    const held = open.leases.get(client);
    const lease = held?.lease ?? (open.expired.get(client)?.count ?? 0) + 1;
    const id =
      held?.assignment ?? (await sha256Text(`${run}|${round}|${attempt}|${lease}|${client}`, env.hash));
    // Of clients elsewhere there may be thousands: what they start from is made again when their update is here.
    current.inHand.set(client, { id, seen: env.monotonic(), ...(!remote && { prepared }) });
    if (!held) {
      const bytes = offline(strategy) ? 0 : payloadBytes(payload) + missedBytes(ledger.state, chain, client);
      const { events } = await ledger.execute({ type: "lease", assignment: { id, round, client }, bytes });
      if (events.length === 0) return undefined;
    }
    onEvent({ type: "client-started", round, client });
    const memory = ledger.state.memories.get(client);
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
      ...(memory !== undefined && { memory }),
    };
    return { assignment, payload, chain, ...kept };
  }

  /** What is asked of the update of a client. */
  async function demands(current: Collection<State>, client: FederatedClient): Promise<AdmissionOptions> {
    const { half } = current.inHand.get(client.id)?.prepared ?? (await prepare(current, client));
    const { fold } = current.opened;
    return {
      plan: planOfUpload(current, half),
      start: joinUpdate({ params: half.start.params }),
      maxExamples: client.numExamples,
      maxNorm,
      ...(fold.kind === "sum" && { bound: fold.bound }),
    };
  }

  /** Commits the verdict on an update, and has it folded where it counts from now on. */
  async function settle(
    { run, elapsed }: Collection<State>,
    ref: AssignmentRef,
    { digest, bytes, memory, numExamples, loss, metrics = {} }: Delivered,
    verdict: Verdict,
    fold: () => void | Promise<void>,
  ): Promise<Receipt> {
    const { round, client, id } = ref;
    const submission = await submissionId(run, ref, digest);
    const common = {
      round,
      client,
      assignment: id,
      submission,
      bytes: offline(strategy) ? 0 : bytes,
      elapsedMs: elapsed(),
    };
    if ("code" in verdict) {
      const rejected: UpdateRejected = { type: "update-rejected", ...common, ...verdict };
      const { events, receipt } = await ledger.execute({ type: "submit", submission: rejected });
      if (events.length > 0) onEvent({ type: "client-dropped", round, client, ...verdict });
      return receipt ?? { status: "rejected", submission, ...verdict };
    }
    const accepted: UpdateAccepted = {
      type: "update-accepted",
      ...common,
      manifest: digest,
      ...(memory !== undefined && { memory }),
      numExamples,
      norm: verdict.norm,
      loss,
      metrics: finiteOnly(metrics),
    };
    const { events, receipt } = await ledger.execute({ type: "submit", submission: accepted });
    if (events.length > 0) {
      await fold();
      onEvent({ type: "update-accepted", round, client, loss, numExamples, bytes: common.bytes });
    }
    return receipt ?? { status: "accepted", submission };
  }

  async function takeIn(
    current: Collection<State>,
    ref: AssignmentRef,
    update: ClientUpdate,
  ): Promise<Receipt> {
    const { opened, run, fold } = current;
    const { round, client } = ref;
    const known = clients.get(client);
    if (!known) return notOfTheRun(ref);
    const { numExamples, loss, metrics } = update;
    const tensors = joinUpdate(update);
    const verdict = admit({ tensors, numExamples, loss }, await demands(current, known));
    const head = { run, round, client } as const;
    const sealed = await sealUpdate({ kind: "update", ...head, parent: opened.state }, update, env.hash);
    const kept: ClientMemory = {
      ...(update.memory && { memory: update.memory }),
      ...(update.optimizer && { optimizer: update.optimizer }),
    };
    const keeps = !("code" in verdict) && (update.memory !== undefined || update.optimizer !== undefined);
    const memory = keeps ? await sealMemory({ kind: "memory", ...head }, kept, env.hash) : undefined;
    if (!("code" in verdict)) {
      if (blobs) {
        await putSealed(blobs, sealed);
        if (memory) await putSealed(blobs, memory);
      } else if (memory) remembered.set(memory.digest, kept);
    }
    const delivered: Delivered = {
      digest: sealed.digest,
      bytes: sealed.manifest.bytes,
      ...(memory && { memory: memory.digest }),
      numExamples,
      loss,
      ...(metrics && { metrics }),
    };
    return settle(current, ref, delivered, verdict, () =>
      fold.add({ client: known, numExamples, ...pick(update) }, sealed.digest),
    );
  }

  /** Small updates are read once and stay in memory until they are folded; of large ones a few megabytes at a time. */
  async function takeInStored(
    current: Collection<State>,
    ref: AssignmentRef,
    update: StoredUpdate,
  ): Promise<Receipt | Incomplete> {
    const { run, fold } = current;
    const known = clients.get(ref.client);
    if (!known) return notOfTheRun(ref);
    if (!blobs) throw new RangeError("door: without a store there are no stored updates");
    const { digest, manifest, memory, numExamples, loss, metrics } = update;
    const missing = await blobs.missing([...new Set(manifest.chunks)]);
    if (missing.length > 0) return { status: "incomplete", missing };
    const delivered: Delivered = {
      digest,
      bytes: manifest.bytes,
      ...(memory !== undefined && { memory }),
      numExamples,
      loss,
      ...(metrics && { metrics }),
    };
    const wanted = await demands(current, known);
    const claims = { numExamples, loss };
    const head = { client: known, numExamples };
    const refused = refuseManifest(manifest, { run, ...ref }, wanted.plan);
    if (refused) return settle(current, ref, delivered, refused, () => undefined);
    if (manifest.bytes > AT_ONCE) {
      const verdict = await admitStored(streamOf(blobs, manifest), claims, wanted);
      return settle(current, ref, delivered, verdict, () => fold.addStored(head, digest));
    }
    const array = fold.keeps ? new Uint8Array(manifest.bytes) : spare.take(manifest.bytes);
    try {
      const tensors = await openUpdate(blobs, update, array).catch(refusedFile);
      if ("code" in tensors) return await settle(current, ref, delivered, tensors, () => undefined);
      const verdict = admit({ tensors, ...claims }, wanted);
      return await settle(current, ref, delivered, verdict, () =>
        fold.add({ ...head, ...splitUpdate(tensors) }, digest),
      );
    } finally {
      if (!fold.keeps) spare.give(array);
    }
  }

  /** The receipt of an update that was counted before, also by a round that is over. */
  async function receiptOf(ref: AssignmentRef, digest: Digest): Promise<Receipt | undefined> {
    const { created } = ledger.state;
    const submission = await submissionId(created?.run ?? "", ref, digest);
    const { receipt } = decide(ledger.state, { type: "repeat", assignment: ref, submission });
    // What it repeats may not be durable yet.
    if (receipt) await ledger.execute({ type: "record", events: [] });
    return receipt;
  }

  function submissionId(run: string, { round, client, id }: AssignmentRef, digest: Digest): Promise<Digest> {
    return sha256Text(`${run}|${round}|${client}|${id}|${digest}`, env.hash);
  }

  async function notOfTheRun({ id, client }: AssignmentRef): Promise<Receipt> {
    const submission = await sha256Text(`${id}|unknown`, env.hash);
    const reason = `no client ${client} in this run`;
    return { status: "rejected", submission, code: "unknown-assignment", reason };
  }

  function isOpen(round: number): boolean {
    const { open } = ledger.state;
    return open !== undefined && !open.closed && open.opened.round === round;
  }

  /** Runs the intake of an update of the open round; an assignment of another round is answered by its code. */
  async function delivering<Answer>(
    ref: AssignmentRef,
    take: (current: Collection<State>) => Promise<Answer>,
  ): Promise<Answer | Receipt> {
    // A coordinator that starts again opens its door before it has read what the round holds already.
    while (!closed && !collection && isOpen(ref.round)) await offered.wait(never);
    const current = collection;
    if (!current || current.opened.round !== ref.round) {
      const submission = await sha256Text(`${ref.id}|late`, env.hash);
      const reason = `round ${ref.round} is not open`;
      return { status: "rejected", submission, code: "round-closed", reason };
    }
    const work = take(current);
    current.busy.add(work);
    try {
      return await work;
    } finally {
      current.busy.delete(work);
      if (current.inHand.get(ref.client)?.id === ref.id && !ledger.state.open?.leases.has(ref.client))
        current.inHand.delete(ref.client);
      changed.ring();
    }
  }

  /** How long a round that has its quorum has waited for clients that are all away; undefined where it waits for others. */
  function alone({ opened, since }: Collection<State>): number | undefined {
    const { open } = ledger.state;
    if (!remote || !open || open.accepted.size < opened.quorum) return undefined;
    const outstanding = opened.cohort.filter(
      (client) => !open.accepted.has(client) && !open.dropped.has(client),
    );
    if (outstanding.some((client) => here.has(client))) return undefined;
    const last = Math.max(since, ...outstanding.map((client) => away.get(client) ?? since));
    return env.monotonic() - last;
  }

  /** Ends leases without progress, and the round at its deadline or when all that it waits for have been away too long. */
  async function watch(current: Collection<State>, signal: AbortSignal): Promise<void> {
    const { deadlineMs, round } = current.opened;
    if (deadlineMs === null && leaseMs === Number.POSITIVE_INFINITY && !remote) return;
    while (!signal.aborted) {
      const now = env.monotonic();
      const left = deadlineMs === null ? Number.POSITIVE_INFINITY : deadlineMs - current.elapsed();
      const waited = alone(current);
      const patience = waited === undefined ? Number.POSITIVE_INFINITY : graceMs - waited;
      if (left <= 0 || patience <= 0) {
        const why = left <= 0 ? "deadline" : "departed";
        await ledger.execute({ type: "end", why, elapsedMs: current.elapsed() });
        changed.ring();
        return;
      }
      let soonest = Math.min(left, leaseMs, patience);
      for (const [client, { id, seen }] of current.inHand) {
        const rest = seen + leaseMs - now;
        if (rest > 0) soonest = Math.min(soonest, rest);
        else if (id !== "") {
          const why = `no progress for ${Math.round(leaseMs / 1000)} s`;
          // Whoever has been silent for so long is not here, whatever a connection says that nobody has closed.
          leave(client);
          await door.fail({ id, round, client }, { code: "lease-expired", message: why });
          soonest = 0; // What is waited for has changed.
        }
      }
      await within(changed.wait, env, soonest, signal);
    }
  }

  function leave(client: string): void {
    if (here.delete(client)) away.set(client, env.monotonic());
  }

  function wake(): void {
    changed.ring();
    offered.ring();
  }

  const door: Door<State> = {
    async next({ client: asked, waitMs, signal }) {
      const end = env.monotonic() + waitMs;
      while (!closed && !signal.aborted) {
        const current = collection;
        const client = current && take(current, asked);
        if (current && client !== undefined) {
          const work = await lend(current, client);
          if (again.delete(client)) offered.ring();
          if (work) return work;
          current.inHand.delete(client);
          continue;
        }
        if (asked !== undefined && current?.inHand.has(asked)) again.add(asked);
        const left = end - env.monotonic();
        if (left <= 0) return null;
        await within(offered.wait, env, left, signal);
      }
      return null;
    },
    async heartbeat({ id, round, client }, progress) {
      const lent = isOpen(round) && ledger.state.open?.leases.get(client)?.assignment === id;
      const held = collection?.inHand.get(client);
      if (!lent || (collection && held?.id !== id)) return "abandon";
      if (held) held.seen = env.monotonic();
      if (progress) onEvent({ type: "client-progress", round, client, progress });
      return "continue";
    },
    submit: (ref, update) => delivering(ref, (current) => takeIn(current, ref, update)),
    submitStored: async (ref, update) =>
      (await receiptOf(ref, update.digest)) ??
      delivering(ref, (current) => takeInStored(current, ref, update)),
    note(client, presence) {
      if (presence === "here") {
        here.add(client);
        away.delete(client);
      } else leave(client);
      changed.ring();
    },
    renew(client) {
      const held = collection?.inHand.get(client);
      if (held) held.seen = env.monotonic();
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
      wake();
    },
    async close() {
      closed = true;
      wake();
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
        since: env.monotonic(),
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
      // Open leases of clients elsewhere are renewed in full: they may be at work.
      // Whether they are is told by their lease: those of before are not known to be away.
      if (remote)
        for (const [client, { assignment }] of open.leases) {
          current.inHand.set(client, { id: assignment, seen: env.monotonic() });
          if (!away.has(client)) here.add(client);
        }
      collection = current;
      wake();
      const stop = new AbortController();
      const either = AbortSignal.any([signal, stop.signal]);
      let failure: unknown;
      const watching = watch(current, either).catch((error: unknown) => {
        failure = error;
        changed.ring();
      });
      try {
        while (collecting(ledger.state, opened)) {
          signal.throwIfAborted();
          if (failure !== undefined) throw failure;
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
    elapsed: () => collection?.elapsed() ?? 0,
    wake,
    changed: (signal) => changed.wait(signal),
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
  if (ms === Number.POSITIVE_INFINITY || signal.aborted) return wait(signal);
  const stop = new AbortController();
  // Without a reason of its own each abort would make an error with its stack.
  const end = (): void => stop.abort("over");
  signal.addEventListener("abort", end, { once: true });
  await Promise.race([wait(stop.signal), env.sleep(ms, stop.signal).catch(() => undefined)]);
  signal.removeEventListener("abort", end);
  end();
}
