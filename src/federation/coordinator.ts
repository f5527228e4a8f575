import { grown } from "./grown-map.ts";
import type {
  AssignmentEnded,
  AssignmentLeased,
  CheckpointCommitted,
  EventBody,
  RoundClosed,
  RoundEvaluated,
  RoundOpened,
  RunCreated,
  RunEnded,
  UpdateAccepted,
  UpdateRejected,
} from "./journal.ts";
import type { AssignmentRef, FailReason, Receipt } from "./message.ts";
import type { Round } from "./round.ts";
import { byText } from "./sampling.ts";

/** An attempt at a round. */
export interface OpenRound {
  readonly opened: RoundOpened;
  /** Open leases, by client. */
  readonly leases: ReadonlyMap<string, AssignmentLeased>;
  readonly accepted: ReadonlyMap<string, UpdateAccepted>;
  /** Clients that will not answer any more, by client. */
  readonly dropped: ReadonlyMap<string, UpdateRejected | AssignmentEnded>;
  /** How many leases of a client have expired, and the assignment of the last. */
  readonly expired: ReadonlyMap<string, { readonly count: number; readonly assignment: string }>;
  readonly closed?: RoundClosed;
  readonly bytesDown: number;
  readonly bytesUp: number;
  /** Leases and submissions so far. */
  readonly exchanges: number;
  /** Time that the round has been open, as far as its events say; the coordinator's downtime does not count. */
  readonly elapsedMs: number;
}

/** What the journal says. */
export interface RunState {
  readonly created?: RunCreated;
  readonly checkpoint?: CheckpointCommitted;
  readonly open?: OpenRound;
  /** Attempts at the next round that failed. */
  readonly failedAttempts: number;
  /** Why the last of them failed. */
  readonly lastFailure?: string;
  /** Bytes that failed attempts at the next round cost. */
  readonly wastedDown: number;
  readonly wastedUp: number;
  /** Manifest of what each client remembers from its last committed round. */
  readonly memories: ReadonlyMap<string, string>;
  /** The last submission of each client that a committed round counted: a receipt may have been lost on its way. */
  readonly counted: ReadonlyMap<string, string>;
  /** The last ended attempt's round in which each client answered. */
  readonly lastAsked: ReadonlyMap<string, number>;
  readonly rounds: readonly Round[];
  /** Manifest of the base changes, and version of the base after them, by round from 0. */
  readonly bases: readonly { readonly changes: string | null; readonly version: string }[];
  /** Held-out measurements by round, from 0. */
  readonly evaluations: ReadonlyMap<number, RoundEvaluated>;
  readonly ended?: RunEnded;
  /** Whether an operator holds the run: nothing is lent and no round opens; a stopped run ends with what it has. */
  readonly halted?: "paused" | "stopped";
  /** Clients that take part no more. */
  readonly revoked: ReadonlySet<string>;
}

/** The state before the first event. */
export const emptyRun: RunState = {
  failedAttempts: 0,
  wastedDown: 0,
  wastedUp: 0,
  memories: new Map(),
  counted: new Map(),
  lastAsked: new Map(),
  rounds: [],
  bases: [],
  evaluations: new Map(),
  revoked: new Set(),
};

/** Leases of one assignment before its client is given up. */
export const MAX_LEASES = 2;

/** The state after some events. */
export function reduce(state: RunState, events: readonly EventBody[]): RunState {
  return events.reduce(apply, state);
}

function apply(state: RunState, event: EventBody): RunState {
  switch (event.type) {
    case "run-created":
      return { ...state, created: event };
    case "round-opened": {
      const { ended: _, ...rest } = state;
      return {
        ...rest,
        open: {
          opened: event,
          leases: new Map(),
          accepted: new Map(),
          dropped: new Map(),
          expired: new Map(),
          bytesDown: 0,
          bytesUp: 0,
          exchanges: 0,
          elapsedMs: 0,
        },
      };
    }
    case "assignment-leased":
      return withOpen(state, (open) => ({
        ...open,
        leases: grown(open.leases, event.client, event),
        bytesDown: open.bytesDown + event.bytes,
        exchanges: open.exchanges + 1,
      }));
    case "assignment-ended":
      return withOpen(state, (open) => {
        const leases = without(open.leases, event.client);
        const elapsedMs = Math.max(open.elapsedMs, event.elapsedMs);
        const { client, assignment } = event;
        const expired = { count: (open.expired.get(client)?.count ?? 0) + 1, assignment };
        return event.code === "lease-expired" && expired.count < MAX_LEASES
          ? { ...open, leases, elapsedMs, expired: grown(open.expired, client, expired) }
          : { ...open, leases, elapsedMs, dropped: grown(open.dropped, event.client, event) };
      });
    case "update-accepted":
      return withOpen(state, (open) => ({
        ...open,
        leases: without(open.leases, event.client),
        accepted: grown(open.accepted, event.client, event),
        bytesUp: open.bytesUp + event.bytes,
        exchanges: open.exchanges + 1,
        elapsedMs: Math.max(open.elapsedMs, event.elapsedMs),
      }));
    case "update-rejected":
      return withOpen(state, (open) => ({
        ...open,
        leases: without(open.leases, event.client),
        dropped: grown(open.dropped, event.client, event),
        bytesUp: open.bytesUp + event.bytes,
        exchanges: open.exchanges + 1,
        elapsedMs: Math.max(open.elapsedMs, event.elapsedMs),
      }));
    case "round-closed":
      return withOpen(state, (open) => ({
        ...open,
        closed: event,
        leases: new Map(),
        elapsedMs: Math.max(open.elapsedMs, event.elapsedMs),
      }));
    case "round-failed": {
      const { open, ...rest } = state;
      return {
        ...rest,
        failedAttempts: state.failedAttempts + 1,
        lastFailure: event.reason,
        lastAsked: asked(state),
        wastedDown: state.wastedDown + (open?.bytesDown ?? 0),
        wastedUp: state.wastedUp + (open?.bytesUp ?? 0),
      };
    }
    case "checkpoint-committed": {
      const { open, ...rest } = state;
      const memories = new Map(state.memories);
      const counted = new Map(state.counted);
      for (const client of open?.closed?.accepted ?? []) {
        const { memory, submission = "" } = open?.accepted.get(client) ?? {};
        if (memory !== undefined) memories.set(client, memory);
        counted.set(client, submission);
      }
      return {
        ...rest,
        checkpoint: event,
        failedAttempts: 0,
        wastedDown: 0,
        wastedUp: 0,
        memories,
        counted,
        lastAsked: asked(state),
        rounds: event.record ? [...state.rounds, event.record] : state.rounds,
        bases: [...state.bases, { changes: event.base, version: event.baseVersion }],
      };
    }
    case "round-evaluated":
      return {
        ...state,
        evaluations: grown(state.evaluations, event.round, event),
        rounds: state.rounds.map((round) =>
          round.number === event.round ? { ...round, evaluation: event.metrics } : round,
        ),
      };
    case "run-ended":
      return { ...state, ended: event };
    case "run-paused":
      return { ...state, halted: "paused" };
    case "run-stopped":
      return { ...state, halted: "stopped" };
    case "run-resumed": {
      const { halted: _, ...rest } = state;
      return rest;
    }
    case "client-revoked":
      return { ...state, revoked: new Set([...state.revoked, event.client]) };
  }
}

/** What a client, a clock or the driver asks for. */
export type Command =
  | { readonly type: "lease"; readonly assignment: AssignmentRef; readonly bytes: number }
  | { readonly type: "submit"; readonly submission: UpdateAccepted | UpdateRejected }
  | {
      readonly type: "fail";
      readonly assignment: AssignmentRef;
      readonly why: FailReason;
      readonly elapsedMs: number;
    }
  /** The time of the round is over; or all that it still waits for are away. */
  | { readonly type: "end"; readonly why: "deadline" | "departed"; readonly elapsedMs: number }
  /** Asks for the answer to a submission that may have been given before; causes nothing. */
  | { readonly type: "repeat"; readonly assignment: AssignmentRef; readonly submission: string }
  /** An operator takes a client out of the run. */
  | {
      readonly type: "revoke";
      readonly client: string;
      readonly reason: string;
      readonly elapsedMs: number;
    }
  /** An operator stops the run; an open round fails. */
  | { readonly type: "stop"; readonly elapsedMs: number }
  | { readonly type: "record"; readonly events: readonly EventBody[] };

/** What follows from a command: events to commit, and the answer to give once they are. */
export interface Decision {
  readonly events: readonly EventBody[];
  readonly receipt?: Receipt;
}

/** The events that a command causes in a state. Repeating a command that has had its effect causes none. */
export function decide(state: RunState, command: Command): Decision {
  switch (command.type) {
    case "record":
      return { events: command.events };
    case "lease": {
      const { id, round, client } = command.assignment;
      const open = openFor(state, command.assignment);
      if (!open?.opened.cohort.includes(client) || !isWaiting(open, client)) return { events: [] };
      const lease = (open.expired.get(client)?.count ?? 0) + 1;
      return {
        events: [{ type: "assignment-leased", round, client, assignment: id, lease, bytes: command.bytes }],
      };
    }
    case "submit":
      return decideSubmit(state, command.submission);
    case "fail": {
      const open = openFor(state, command.assignment);
      if (!open?.leases.has(command.assignment.client)) return { events: [] };
      const { id, round, client } = command.assignment;
      return closing(state, {
        type: "assignment-ended",
        round,
        client,
        assignment: id,
        code: command.why.code,
        reason: command.why.message,
        elapsedMs: command.elapsedMs,
      });
    }
    case "end": {
      const { open } = state;
      if (!open || open.closed) return { events: [] };
      if (command.why === "departed" && open.accepted.size < open.opened.quorum) return { events: [] };
      return { events: [ending(open, command.why, command.elapsedMs)] };
    }
    case "repeat": {
      const { assignment, submission } = command;
      const { client, round } = assignment;
      const open = state.open?.opened.round === round ? state.open : undefined;
      const earlier = open ? open.accepted.get(client)?.submission : state.counted.get(client);
      return earlier === submission
        ? { events: [], receipt: { status: "accepted", submission } }
        : { events: [] };
    }
    case "revoke":
      return decideRevoke(state, command);
    case "stop": {
      const { open } = state;
      const collecting = open !== undefined && !open.closed;
      return {
        events: [
          ...(state.halted === "stopped" ? [] : [{ type: "run-stopped" } as const]),
          ...(collecting ? [failed(open, "an operator stopped the run", command.elapsedMs)] : []),
        ],
      };
    }
  }
}

function decideRevoke(
  state: RunState,
  { client, reason, elapsedMs }: Extract<Command, { type: "revoke" }>,
): Decision {
  if (state.revoked.has(client)) return { events: [] };
  const revoked: EventBody = { type: "client-revoked", client, reason };
  const { open } = state;
  const expected =
    open?.opened.cohort.includes(client) && !open.accepted.has(client) && !open.dropped.has(client);
  if (!open || open.closed || !expected) return { events: [revoked] };
  const { round } = open.opened;
  const assignment = open.leases.get(client)?.assignment ?? "";
  const ended = {
    type: "assignment-ended",
    round,
    client,
    assignment,
    code: "revoked",
    reason,
    elapsedMs,
  } as const;
  const { events } = closing(state, ended);
  return { events: [revoked, ...events] };
}

function decideSubmit(state: RunState, submission: UpdateAccepted | UpdateRejected): Decision {
  const { submission: id, round, client, assignment } = submission;
  const refuse = (code: "unknown-assignment" | "round-closed" | "other-body", reason: string): Decision => ({
    events: [],
    receipt: { status: "rejected", submission: id, code, reason },
  });
  const open = state.open?.opened.round === round ? state.open : undefined;
  const earlier = open?.accepted.get(client);
  if (earlier && earlier.assignment === assignment) {
    return earlier.submission === id
      ? { events: [], receipt: { status: "accepted", submission: id } }
      : refuse(
          "other-body",
          `${client} already has an accepted update for round ${round}, with other content`,
        );
  }
  if (!open || open.closed) return refuse("round-closed", `round ${round} takes no more updates`);
  // A lease that has ended and was not lent again still names the work that is waited for.
  const held = open.leases.get(client) ?? (open.dropped.has(client) ? undefined : open.expired.get(client));
  if (held?.assignment !== assignment) {
    return refuse("unknown-assignment", `${client} holds no assignment ${assignment} in round ${round}`);
  }
  const { events } = closing(state, submission);
  return {
    events,
    receipt:
      submission.type === "update-accepted"
        ? { status: "accepted", submission: id }
        : { status: "rejected", submission: id, code: submission.code, reason: submission.reason },
  };
}

/** The event, and the end of the round if it leaves nobody to wait for. */
function closing(state: RunState, event: UpdateAccepted | UpdateRejected | AssignmentEnded): Decision {
  // One event answers for one client at most.
  if (state.open && !isLastBut(state.open, 1)) return { events: [event] };
  const { open } = reduce(state, [event]);
  if (!open) return { events: [event] };
  const { target } = open.opened;
  if (open.accepted.size >= target) return { events: [event, ending(open, "target", event.elapsedMs)] };
  if (!isOutstanding(open)) return { events: [event, ending(open, "all-answered", event.elapsedMs)] };
  return { events: [event] };
}

/** The event that ends the collection: closed with a quorum, failed without. */
function ending(open: OpenRound, why: RoundClosed["why"], elapsedMs: number): EventBody {
  const { round, quorum, cohort } = open.opened;
  if (open.accepted.size >= quorum) {
    return { type: "round-closed", round, accepted: [...open.accepted.keys()].sort(byText), why, elapsedMs };
  }
  const late = why === "deadline" ? ", the deadline is past" : "";
  const reason = `${open.accepted.size} of ${cohort.length} updates, the quorum is ${quorum}${late}`;
  return failed(open, [reason, ...missingFor(open)].join("; "), elapsedMs);
}

/** Why updates are missing: a few of the reasons, each with who gave it. */
function missingFor({ dropped }: OpenRound): string[] {
  const groups = new Map<string, string[]>();
  for (const { client, code, reason } of dropped.values()) {
    const said = reason.length > 200 ? `${reason.slice(0, 200)} ...` : reason;
    const group = `${code}: ${said}`;
    const clients = groups.get(group) ?? [];
    clients.push(client);
    groups.set(group, clients);
  }
  const reasons = [...groups].map(([group, clients]) => `${group} (${few(clients, 4)})`);
  return reasons.length > 3 ? [...reasons.slice(0, 3), `${reasons.length - 3} other reasons`] : reasons;
}

function few(names: readonly string[], most: number): string {
  return names.length > most
    ? `${names.slice(0, most).join(", ")} and ${names.length - most} more`
    : names.join(", ");
}

function failed({ opened: { round, attempt } }: OpenRound, reason: string, elapsedMs: number): EventBody {
  return { type: "round-failed", round, attempt, reason, elapsedMs };
}

/** `lastAsked` after the open round. */
function asked({ lastAsked, open }: RunState): ReadonlyMap<string, number> {
  const next = new Map(lastAsked);
  for (const client of [...(open?.accepted.keys() ?? []), ...(open?.dropped.keys() ?? [])]) {
    next.set(client, open?.opened.round ?? 0);
  }
  return next;
}

/** Whether so many more answers could end the collection. */
function isLastBut({ opened, accepted, dropped }: OpenRound, answers: number): boolean {
  const { target, cohort } = opened;
  return accepted.size + answers >= target || accepted.size + dropped.size + answers >= cohort.length;
}

/** Whether any client may still answer. */
function isOutstanding({ opened, accepted, dropped }: OpenRound): boolean {
  return accepted.size + dropped.size < opened.cohort.length;
}

/** Whether the round waits for a client of its cohort that nobody works for. */
export function isWaiting({ accepted, dropped, leases, closed }: OpenRound, client: string): boolean {
  return !closed && !accepted.has(client) && !dropped.has(client) && !leases.has(client);
}

/** What the run needs next. It follows from the state alone, so it is the same after a crash. */
export type Step =
  | { readonly kind: "create" }
  | { readonly kind: "initialise" }
  | { readonly kind: "evaluate"; readonly round: number }
  | { readonly kind: "open"; readonly round: number; readonly attempt: number }
  | { readonly kind: "collect"; readonly open: OpenRound }
  | { readonly kind: "wait" }
  | { readonly kind: "fold"; readonly open: OpenRound; readonly closed: RoundClosed }
  | { readonly kind: "end" }
  | { readonly kind: "done" };

/** The next step of a run of `rounds` rounds. */
export function nextStep(
  state: RunState,
  { rounds, evaluates }: { readonly rounds: number; readonly evaluates: boolean },
): Step {
  const { created, checkpoint, open } = state;
  if (!created) return { kind: "create" };
  if (!checkpoint) return { kind: "initialise" };
  if (open) return open.closed ? { kind: "fold", open, closed: open.closed } : { kind: "collect", open };
  if (evaluates && !state.evaluations.has(checkpoint.round))
    return { kind: "evaluate", round: checkpoint.round };
  if (state.halted === "paused") return { kind: "wait" };
  if (checkpoint.round < rounds && state.halted === undefined)
    return { kind: "open", round: checkpoint.round + 1, attempt: state.failedAttempts + 1 };
  return state.ended?.round === checkpoint.round ? { kind: "done" } : { kind: "end" };
}

function openFor(state: RunState, { round }: AssignmentRef): OpenRound | undefined {
  const { open } = state;
  return open && !open.closed && open.opened.round === round ? open : undefined;
}

function withOpen(state: RunState, change: (open: OpenRound) => OpenRound): RunState {
  return state.open ? { ...state, open: change(state.open) } : state;
}

function without<V>(map: ReadonlyMap<string, V>, key: string): ReadonlyMap<string, V> {
  const rest = new Map(map);
  rest.delete(key);
  return rest;
}
