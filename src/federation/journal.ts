import { TributaryError } from "../errors.ts";
import { canonicalJson } from "./canonical-json.ts";
import { type Digest, type Hash, sha256Text } from "./digest.ts";
import type { FailCode, RejectCode } from "./message.ts";
import type { PlanEntry } from "./plan.ts";
import type { Round } from "./round.ts";

/** Number of events before and including one; the first event has sequence number 1. */
export type Seq = number;

/** One entry of the audit log. */
export interface JournalEvent<Body = EventBody> {
  readonly seq: Seq;
  /** Digest of the event before; 64 zeros for the first. */
  readonly previousHash: Digest;
  /** Wall time in ISO 8601, for people. */
  readonly at: string;
  readonly body: Body;
}

/** An append-only log. One writer at a time, fenced by the sequence number that it expects. */
export interface Journal<Body = EventBody> {
  /** Appends all events or none, durable on return. Throws TributaryError `journal-fenced` if `expect` is not the last seq. */
  append(events: readonly JournalEvent<Body>[], expect: Seq): Promise<void>;
  /** The events from `seq` on, in order. */
  read(from: Seq): AsyncIterable<JournalEvent<Body>>;
}

/** What a run is; written once. */
export interface RunCreated {
  readonly type: "run-created";
  readonly run: string;
  readonly config: Digest;
  readonly strategy: string;
  readonly seed: number;
  readonly plan: readonly PlanEntry[];
  /** Digest of the list of clients. */
  readonly clients: Digest;
  readonly numClients: number;
  readonly versions: Readonly<Record<string, string>>;
}

/** Fixes everything about an attempt at a round before any client hears of it. */
export interface RoundOpened {
  readonly type: "round-opened";
  readonly round: number;
  readonly attempt: number;
  /** Digest of the state that the round starts from. */
  readonly state: Digest;
  readonly cohort: readonly string[];
  readonly target: number;
  readonly quorum: number;
  /** Milliseconds after opening; null for none. */
  readonly deadlineMs: number | null;
  /** How updates are folded; the bound and weight fix the grid of the exact sum. */
  readonly fold:
    | { readonly kind: "all" }
    | { readonly kind: "modules" }
    | { readonly kind: "sum"; readonly bound: number; readonly maxWeight: number };
}

/** An assignment was lent to a client. */
export interface AssignmentLeased {
  readonly type: "assignment-leased";
  readonly round: number;
  readonly client: string;
  readonly assignment: string;
  /** From 1; higher where the lease before it expired. */
  readonly lease: number;
  /** Bytes that travel down. */
  readonly bytes: number;
}

/** An assignment ended without an update. */
export interface AssignmentEnded {
  readonly type: "assignment-ended";
  readonly round: number;
  readonly client: string;
  readonly assignment: string;
  readonly code: FailCode;
  readonly reason: string;
  readonly elapsedMs: number;
}

/** An update is on disk and counts. */
export interface UpdateAccepted {
  readonly type: "update-accepted";
  readonly round: number;
  readonly client: string;
  readonly assignment: string;
  readonly submission: Digest;
  readonly manifest: Digest;
  /** What the client remembers if the round is committed. */
  readonly memory?: Digest;
  readonly numExamples: number;
  /** Norm of what the client changed. */
  readonly norm: number;
  readonly loss: number;
  readonly metrics: Readonly<Record<string, number>>;
  /** Bytes that travelled up. */
  readonly bytes: number;
  readonly elapsedMs: number;
}

/** An update was refused at the door. */
export interface UpdateRejected {
  readonly type: "update-rejected";
  readonly round: number;
  readonly client: string;
  readonly assignment: string;
  readonly submission: Digest;
  readonly code: RejectCode;
  readonly reason: string;
  readonly bytes: number;
  readonly elapsedMs: number;
}

/** Why a round takes no more updates: it has all that it aimed at, or all answers, or those that it waits for are away, or its time is over. */
export type CloseReason = "target" | "all-answered" | "departed" | "deadline";

/** Fixes the set that is folded. */
export interface RoundClosed {
  readonly type: "round-closed";
  readonly round: number;
  /** In order of client id. */
  readonly accepted: readonly string[];
  readonly why: CloseReason;
  readonly elapsedMs: number;
}

/** The next state is durable; from here on the round is history. */
export interface CheckpointCommitted {
  readonly type: "checkpoint-committed";
  readonly round: number;
  /** Digest of the manifest of the next state. */
  readonly state: Digest;
  /** Digest of the manifest of the published parameters; null where every client has its own. */
  readonly model: Digest | null;
  /** Digest of the manifest of this round's changes of the base; null for none. */
  readonly base: Digest | null;
  /** Version of the base after them. */
  readonly baseVersion: string;
  /** The round's record; null for the initial state. */
  readonly record: Round | null;
}

/** Measurements of a committed state on held-out data. */
export interface RoundEvaluated {
  readonly type: "round-evaluated";
  readonly round: number;
  readonly metrics: Readonly<Record<string, number>>;
  readonly seconds: number;
}

/** An attempt ended below its quorum. */
export interface RoundFailed {
  readonly type: "round-failed";
  readonly round: number;
  readonly attempt: number;
  readonly reason: string;
  readonly elapsedMs: number;
}

/** All rounds asked for are committed. */
export interface RunEnded {
  readonly type: "run-ended";
  readonly round: number;
  readonly state: Digest;
  readonly model: Digest | null;
}

/** An operator holds the run: nothing is lent and no round opens. */
export interface RunPaused {
  readonly type: "run-paused";
}

/** An operator ends the run before its last round. */
export interface RunStopped {
  readonly type: "run-stopped";
}

/** An operator lets the run go on. */
export interface RunResumed {
  readonly type: "run-resumed";
}

/** A client takes part no more. */
export interface ClientRevoked {
  readonly type: "client-revoked";
  readonly client: string;
  readonly reason: string;
}

/** What can happen in a run. */
export type EventBody =
  | RunCreated
  | RoundOpened
  | AssignmentLeased
  | AssignmentEnded
  | UpdateAccepted
  | UpdateRejected
  | RoundClosed
  | CheckpointCommitted
  | RoundEvaluated
  | RoundFailed
  | RunEnded
  | RunPaused
  | RunStopped
  | RunResumed
  | ClientRevoked;

/** The hash before the first event. */
export const GENESIS: Digest = "0".repeat(64);

/** Version of the events. A program reads journals of its own version and of earlier ones. */
export const JOURNAL_FORMAT = 1;

const eventTypes: { readonly [Type in EventBody["type"]]: true } = {
  "run-created": true,
  "round-opened": true,
  "assignment-leased": true,
  "assignment-ended": true,
  "update-accepted": true,
  "update-rejected": true,
  "round-closed": true,
  "checkpoint-committed": true,
  "round-evaluated": true,
  "round-failed": true,
  "run-ended": true,
  "run-paused": true,
  "run-stopped": true,
  "run-resumed": true,
  "client-revoked": true,
};

/** Throws TributaryError `journal-version` where an event is of a later version than this program; `created` says which wrote the journal. */
export function assertReadable({ seq, body }: JournalEvent, created?: RunCreated): void {
  const writer = body.type === "run-created" ? body : created;
  // The first journals do not say their version.
  const format = writer?.versions.journal ?? "1";
  const known = Object.hasOwn(eventTypes, body.type);
  if (known && Number(format) <= JOURNAL_FORMAT) return;
  const why = known ? "" : `event ${seq} is of type ${JSON.stringify(body.type)}, which is not known here; `;
  throw new TributaryError(
    "journal-version",
    `journal: ${why}the journal was begun in format ${format}, this program reads formats up to ${JOURNAL_FORMAT}; continue the run with the version of tributary that wrote it, or a later one`,
  );
}

/** The digest that the next event carries as `previousHash`. */
export function eventHash(event: JournalEvent<unknown>, hash?: Hash): Promise<Digest> {
  return sha256Text(canonicalJson(event), hash);
}

/** The events of a journal, checked: sequence numbers without gaps and every hash that of the event before. */
export async function* readChain<Body>(
  journal: Journal<Body>,
  sha256?: Hash,
): AsyncGenerator<{ event: JournalEvent<Body>; hash: Digest }> {
  let seq = 0;
  let hash = GENESIS;
  for await (const event of journal.read(1)) {
    seq++;
    if (event.seq !== seq) {
      throw new TributaryError(
        "journal-damaged",
        `journal: event ${seq} is missing, found ${event.seq}; restore the journal from a copy of the run folder`,
      );
    }
    if (event.previousHash !== hash) {
      throw new TributaryError(
        "journal-damaged",
        `journal: event ${seq} does not continue event ${seq - 1}: its previousHash is ${event.previousHash}, expected ${hash}; restore the journal from a copy of the run folder`,
      );
    }
    hash = await eventHash(event, sha256);
    yield { event, hash };
  }
}
