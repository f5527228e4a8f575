import type { Digest, Hash } from "../federation/digest.ts";
import { virtualEnv } from "../federation/env.ts";
import { federate } from "../federation/federate.ts";
import { type EventBody, type JournalEvent, type RoundOpened, readChain } from "../federation/journal.ts";
import { memoryBlobs, memoryJournal } from "../storage/memory.ts";
import { nodeEnv } from "../storage/node-env.ts";
import { type History, runOptions } from "./simulate.ts";
import { toyResult } from "./toy-training.ts";

/** What a committed round came to. */
interface Outcome {
  readonly round: number;
  readonly state: Digest;
  readonly baseVersion: string;
}

/** What the journal of a run says, as far as the checks go by it. */
interface Said {
  /** Accepted updates, by round, client and assignment. */
  readonly accepted: ReadonlyMap<string, Extract<EventBody, { type: "update-accepted" }>>;
  /** Counted pairs, by round, attempt and client. */
  readonly counted: ReadonlySet<string>;
  /** Keys of `accepted` that a committed round counted. */
  readonly final: ReadonlySet<string>;
  readonly outcomes: readonly Outcome[];
  readonly problems: readonly string[];
}

/** Everything in which a run differs from what it promises; nothing for a good one. */
export async function problemsOf(history: History): Promise<string[]> {
  const { events, receipts, faults, lastState } = history;
  const { hash } = nodeEnv();
  const problems = [...history.problems, ...(await brokenChain(events, hash))];
  const said = read(events);
  problems.push(...said.problems);
  if (lastState !== undefined) problems.push(`the state of the last checkpoint cannot be read: ${lastState}`);
  if (events.at(-1)?.body.type !== "run-ended")
    problems.push("the journal does not end with the end of the run");
  for (const { client, round, assignment, manifest, receipt } of receipts) {
    const key = keyOf(round, client, assignment);
    const event = said.accepted.get(key);
    const same = event?.manifest === manifest;
    if (receipt.status === "accepted" && !same)
      problems.push(`${client} holds a receipt for round ${round}, the journal has no such update`);
    if (receipt.status === "rejected" && same && said.final.has(key))
      problems.push(`${client} was told "${receipt.code}" in round ${round}, and its update counts`);
    if (receipt.status === "rejected" && faults.all)
      problems.push(`${client} was told "${receipt.code}" in round ${round}: ${receipt.reason}`);
  }
  if (faults.all) problems.push(...absent(events));
  if (said.problems.length > 0) return problems;
  const calm = await calmly(history, said.counted).catch((error: unknown) => {
    problems.push(`without faults the run does not end: ${String(error)}`);
    return [];
  });
  for (const { round, state, baseVersion } of said.outcomes) {
    const other = calm.find((one) => one.round === round);
    if (other?.state !== state)
      problems.push(`round ${round} ended in state ${state}, without faults in ${other?.state}`);
    if (other?.baseVersion !== baseVersion)
      problems.push(
        `round ${round} left the base at ${baseVersion}, without faults at ${other?.baseVersion}`,
      );
  }
  if (said.outcomes.length !== faults.rounds)
    problems.push(`${said.outcomes.length} rounds were committed, expected ${faults.rounds}`);
  return problems;
}

async function brokenChain(events: readonly JournalEvent[], hash: Hash): Promise<string[]> {
  const journal = {
    append: async () => undefined,
    async *read() {
      yield* events;
    },
  };
  try {
    for await (const _ of readChain(journal, hash));
    return [];
  } catch (error) {
    return [String(error)];
  }
}

function keyOf(round: number, client: string, assignment: string): string {
  return `${round} ${client} ${assignment}`;
}

/** Reads a journal, and notes what it must not say. */
function read(events: readonly JournalEvent[]): Said {
  const accepted = new Map<string, Extract<EventBody, { type: "update-accepted" }>>();
  const counted = new Set<string>();
  const final = new Set<string>();
  const outcomes: Outcome[] = [];
  const problems: string[] = [];
  let open: RoundOpened | undefined;
  let arrived = new Map<string, string>();
  let closed: readonly string[] = [];
  for (const { body } of events) {
    switch (body.type) {
      case "round-opened":
        open = body;
        arrived = new Map();
        closed = [];
        break;
      case "update-accepted":
        accepted.set(keyOf(body.round, body.client, body.assignment), body);
        if (arrived.has(body.client)) problems.push(`${body.client} counts twice in round ${body.round}`);
        arrived.set(body.client, keyOf(body.round, body.client, body.assignment));
        break;
      case "round-closed":
        closed = body.accepted;
        if (closed.length !== arrived.size || closed.some((client) => !arrived.has(client)))
          problems.push(
            `round ${body.round} was closed with [${closed}], accepted were [${[...arrived.keys()]}]`,
          );
        break;
      case "checkpoint-committed":
        if (body.round > 0) outcomes.push(body);
        for (const client of closed) {
          counted.add(`${body.round} ${open?.attempt} ${client}`);
          final.add(arrived.get(client) ?? "");
        }
        break;
    }
  }
  return { accepted, counted, final, outcomes, problems };
}

/** Members of a cohort that a round ended without, where no fault may keep anybody out. */
function absent(events: readonly JournalEvent[]): string[] {
  const problems: string[] = [];
  let cohort: readonly string[] = [];
  for (const { body } of events) {
    if (body.type === "round-opened") cohort = body.cohort;
    if (body.type === "round-failed") problems.push(`round ${body.round} failed: ${body.reason}`);
    if (body.type === "round-closed" && body.accepted.length !== cohort.length)
      problems.push(
        `round ${body.round} was closed (${body.why}) with ${body.accepted.length} of ${cohort.length}`,
      );
  }
  return problems;
}

/** The rounds of the same federation in one process, without faults, where exactly some (round, attempt, client) answer. */
async function calmly(
  { faults, strategy }: History,
  counted: ReadonlySet<string>,
): Promise<readonly Outcome[]> {
  const {
    leaseMs: _lease,
    deadlineMs: _deadline,
    keepRounds: _keep,
    evaluate: _,
    ...run
  } = runOptions(faults, strategy);
  const outcomes: Outcome[] = [];
  const { hash } = nodeEnv();
  const attempts = 1 + Math.max(0, ...[...counted].map((pair) => Number(pair.split(" ")[1])));
  const rounds = federate({
    ...run,
    quorum: 1,
    attempts,
    env: virtualEnv({ hash }),
    // Updates are read from a store where they are not held together.
    ...(run.updateMemory === 0 && { store: { journal: memoryJournal(), blobs: memoryBlobs() } }),
    trainer: {
      async train(task) {
        const { round, attempt, client } = task.assignment;
        if (!counted.has(`${round} ${attempt} ${client}`)) throw new Error("absent");
        return toyResult(task);
      },
    },
  });
  for await (const { number, state, baseVersion } of rounds)
    outcomes.push({ round: number, state, baseVersion });
  return outcomes;
}
