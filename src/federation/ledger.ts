import { type Command, type Decision, decide, emptyRun, type RunState, reduce } from "./coordinator.ts";
import type { Env } from "./env.ts";
import {
  assertReadable,
  type EventBody,
  eventHash,
  GENESIS,
  type Journal,
  type JournalEvent,
  readChain,
} from "./journal.ts";

/** A run's state and the journal behind it: commands are decided at once, their answers wait for the commit. */
export interface Ledger {
  readonly state: RunState;
  /** Number of events committed when the ledger was opened. */
  readonly resumedFrom: number;
  /** Decides a command and resolves once its events, and all before them, are durable. */
  execute(command: Command): Promise<Decision>;
}

/**
 * Opens a ledger: checks the chain, replays it. Without a journal the state lives in memory only. Commands that arrive
 * while a commit is on its way share the next one. After a failed commit every command fails: reopen the ledger.
 */
export async function openLedger({
  journal,
  env,
  onFailure = () => {},
}: {
  readonly journal?: Journal;
  readonly env: Env;
  /** Called once where a commit fails. */
  readonly onFailure?: (error: unknown) => void;
}): Promise<Ledger> {
  let state = emptyRun;
  let seq = 0;
  let hash = GENESIS;
  if (journal) {
    for await (const { event, hash: next } of readChain(journal, env.hash)) {
      assertReadable(event, state.created);
      state = reduce(state, [event.body]);
      seq = event.seq;
      hash = next;
    }
  }
  const resumedFrom = seq;
  let queue: EventBody[] = [];
  let flushing: Promise<void> | undefined;

  async function flush(target: Journal): Promise<void> {
    await env.turn?.();
    while (queue.length > 0) {
      const bodies = queue;
      queue = [];
      const expect = seq;
      const at = new Date(env.wall()).toISOString();
      const events: JournalEvent[] = [];
      for (const body of bodies) {
        const event = { seq: ++seq, previousHash: hash, at, body };
        hash = await eventHash(event, env.hash);
        events.push(event);
      }
      await target.append(events, expect);
    }
    flushing = undefined;
  }

  return {
    get state() {
      return state;
    },
    resumedFrom,
    async execute(command) {
      const decision = decide(state, command);
      state = reduce(state, decision.events);
      if (!journal) return decision;
      queue.push(...decision.events);
      if (queue.length > 0 && !flushing) {
        flushing = flush(journal);
        flushing.catch(onFailure);
      }
      // A repeated answer also waits: what it repeats may not be durable yet.
      await flushing;
      return decision;
    },
  };
}
