import type { AssignmentRef, ClientUpdate, FailReason, Progress, Receipt, Work } from "./message.ts";

/**
 * How a client reaches the coordinator. Every call is safe to repeat. Tensors are host values here: how they travel
 * (passed by reference, or as content-addressed chunks that are asked for, verified and resumed) is the transport's business.
 */
export interface ClientTransport {
  /**
   * The next assignment for `client`, or for any client behind this transport, lent; null when there is none within
   * `waitMs` or the run is over. A client that already holds one is given the same again.
   */
  next(options: {
    readonly client?: string;
    readonly waitMs: number;
    readonly signal: AbortSignal;
  }): Promise<Work | null>;
  /** Renews the lease. */
  heartbeat(assignment: AssignmentRef, progress?: Progress): Promise<"continue" | "abandon">;
  /** Resolves after the journal commit. */
  submit(assignment: AssignmentRef, update: ClientUpdate): Promise<Receipt>;
  /** Ends the assignment without an update. */
  fail(assignment: AssignmentRef, why: FailReason): Promise<void>;
  close(): Promise<void>;
}
