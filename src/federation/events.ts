import type { CloseReason } from "./journal.ts";
import type { FailCode, Progress, RejectCode } from "./message.ts";
import type { Round } from "./round.ts";

/** What a run reports while it goes on; each event comes after the commit that it tells of. */
export type RunEvent =
  /** An earlier part of the run was found: its rounds, and how many updates of the open round are kept. */
  | {
      readonly type: "resumed";
      readonly rounds: readonly Round[];
      readonly evaluation?: Readonly<Record<string, number>>;
      readonly openRound?: number;
      readonly kept: number;
    }
  | {
      readonly type: "round-opened";
      readonly round: number;
      readonly attempt: number;
      readonly cohort: readonly string[];
      readonly target: number;
      readonly quorum: number;
    }
  | { readonly type: "client-started"; readonly round: number; readonly client: string }
  | {
      readonly type: "client-progress";
      readonly round: number;
      readonly client: string;
      readonly progress: Progress;
    }
  | {
      readonly type: "update-accepted";
      readonly round: number;
      readonly client: string;
      readonly loss: number;
      readonly numExamples: number;
      readonly bytes: number;
    }
  /** A contribution was dropped: refused at the door, or its client failed. */
  | {
      readonly type: "client-dropped";
      readonly round: number;
      readonly client: string;
      readonly code: RejectCode | FailCode;
      readonly reason: string;
    }
  | {
      readonly type: "round-closed";
      readonly round: number;
      readonly accepted: readonly string[];
      readonly why: CloseReason;
    }
  | {
      readonly type: "round-failed";
      readonly round: number;
      readonly attempt: number;
      readonly reason: string;
    }
  | { readonly type: "round-committed"; readonly round: Round }
  /** Held-out measurements; round 0 is the initial state. */
  | {
      readonly type: "evaluated";
      readonly round: number;
      readonly metrics: Readonly<Record<string, number>>;
      readonly seconds: number;
    }
  /** Nothing goes on until somebody acts. */
  | { readonly type: "waiting"; readonly why: string }
  | { readonly type: "run-ended"; readonly rounds: number };
