import type { Params } from "../tensor/params.ts";
import type { BaseChain } from "./base-chain.ts";
import type { Digest } from "./digest.ts";
import type { Manifest } from "./manifest.ts";
import type { ClientRef, Payload, RoundContext } from "./strategy.ts";

/** Names one assignment. */
export interface AssignmentRef {
  readonly id: string;
  readonly round: number;
  readonly client: string;
}

/** One client's task in one round: a control message, small and plain. */
export interface Assignment extends AssignmentRef {
  readonly run: string;
  readonly attempt: number;
  readonly lease: number;
  readonly context: RoundContext;
  /** What the server knows of the client. */
  readonly ref: ClientRef;
  /** Digest of the state that the round starts from. */
  readonly state: Digest;
  /** Version of the base that the client trains on. */
  readonly baseVersion: string;
  /** Digest of what the client remembers from its last committed round; absent before its first. */
  readonly memory?: Digest;
}

/** An assignment with the tensors it needs. */
export interface Work {
  readonly assignment: Assignment;
  readonly payload: Payload;
  /** What the client remembers from its last committed round; absent before its first. */
  readonly memory?: Params;
  /** Its optimizer's state, where the rule of the strategy keeps it. */
  readonly optimizer?: Params;
  /** The shared changes of the base; `catchUp(chain, held)` brings a worker's base to the assignment's version. */
  readonly chain: BaseChain;
}

/** What a client hands over. */
export interface ClientUpdate {
  readonly params: Params;
  readonly extra?: Params;
  /** What the client will remember if the round is committed. */
  readonly memory?: Params;
  /** State of the optimizer, remembered likewise. */
  readonly optimizer?: Params;
  readonly numExamples: number;
  /** Mean training loss. */
  readonly loss: number;
  /** Further measurements of local training. */
  readonly metrics?: Readonly<Record<string, number>>;
}

/** An update whose tensors lie in the coordinator's store; what the client remembers stays with the client. */
export interface StoredUpdate {
  readonly digest: Digest;
  /** What the digest names. */
  readonly manifest: Manifest;
  /** Digest of what the client will remember if the round is committed. */
  readonly memory?: Digest;
  readonly numExamples: number;
  readonly loss: number;
  readonly metrics?: Readonly<Record<string, number>>;
}

/** How far a client is; any progress renews its lease. */
export interface Progress {
  readonly step: number;
  readonly steps: number;
  readonly loss?: number;
}

/** Why an assignment ended without an update. */
export type FailCode = (typeof failCodes)[number] | "lease-expired" | "revoked";

/** The codes of errors that a trainer may throw to say what is wrong; any other error is a `client-error`. */
export const failCodes = ["empty-silo", "loss-not-finite", "client-error"] as const;

/** What a client or the coordinator says of a failed assignment. */
export interface FailReason {
  readonly code: FailCode;
  readonly message: string;
}

/** Why an update was refused. */
export type RejectCode = (typeof rejectCodes)[number];

/** The codes of refusals at the door. */
export const rejectCodes = [
  "unknown-assignment",
  "round-closed",
  "other-body",
  "bad-manifest",
  "missing-tensor",
  "unknown-tensor",
  "wrong-dtype",
  "wrong-shape",
  "not-finite",
  "loss-not-finite",
  "out-of-bounds",
  "norm-bound",
  "no-examples",
  "too-many-examples",
] as const;

/** The answer to a submitted update; given after the journal commit, the same for the same update. */
export type Receipt =
  | { readonly status: "accepted"; readonly submission: Digest }
  | {
      readonly status: "rejected";
      readonly submission: Digest;
      readonly code: RejectCode;
      readonly reason: string;
    };

/** The answer to an update of which the store lacks chunks: put them, then submit again. */
export interface Incomplete {
  readonly status: "incomplete";
  readonly missing: readonly Digest[];
}
