import type { Digest } from "./digest.ts";
import type { FailCode, RejectCode } from "./message.ts";

/** One client's part in a round. */
export interface Contribution {
  readonly client: string;
  readonly numExamples: number;
  /** Norm of what the client changed. */
  readonly norm: number;
  readonly loss: number;
  readonly metrics: Readonly<Record<string, number>>;
  readonly bytes: number;
}

/** A contribution that was dropped, and why. */
export interface Dropped {
  readonly client: string;
  readonly code: RejectCode | FailCode;
  readonly reason: string;
}

/** The record of one round: what the progress display, the report and the sinks read. */
export interface Round {
  /** From 1. */
  readonly number: number;
  /** The cohort of the attempt that succeeded. */
  readonly clients: readonly string[];
  readonly accepted: readonly Contribution[];
  readonly rejected: readonly Dropped[];
  /** Attempts at this round that ended below the quorum. */
  readonly failedAttempts: number;
  /** Mean training loss, weighted by examples. */
  readonly loss: number;
  /** Means of the clients' metrics, weighted by examples. */
  readonly metrics: Readonly<Record<string, number>>;
  /** What the strategy measured while aggregating, e.g. `deviation/<module>`. */
  readonly measurements: Readonly<Record<string, number>>;
  /** Held-out measurements of the state after the round; empty where nothing was evaluated. */
  readonly evaluation: Readonly<Record<string, number>>;
  readonly bytesDown: number;
  readonly bytesUp: number;
  /** What the same exchange would have cost with the full weights. */
  readonly bytesFull: number;
  /** From opening to the committed checkpoint, evaluation apart. */
  readonly seconds: number;
  readonly phases: { readonly train: number; readonly aggregate: number; readonly commit: number };
  /** Digest of the manifest of the state after the round. */
  readonly state: Digest;
  /** Digest of the manifest of the published parameters; null where every client has its own. */
  readonly model: Digest | null;
  readonly baseVersion: string;
}
