import { describe, expect, it } from "vitest";
import {
  type EventBody,
  eventHash,
  GENESIS,
  type Journal,
  type JournalEvent,
  readChain,
} from "../../src/federation/journal.ts";

/** Events that continue a chain. */
export async function chainOf(
  bodies: readonly EventBody[],
  from: { readonly seq: number; readonly hash: string } = { seq: 0, hash: GENESIS },
): Promise<{ readonly events: JournalEvent[]; readonly hash: string }> {
  let { seq, hash } = from;
  const events: JournalEvent[] = [];
  for (const body of bodies) {
    const event = { seq: ++seq, previousHash: hash, at: "2026-01-01T00:00:00.000Z", body };
    hash = await eventHash(event);
    events.push(event);
  }
  return { events, hash };
}

/** An event that carries a number. */
export function numbered(attempt: number): EventBody {
  return {
    type: "round-failed",
    round: 1,
    attempt,
    reason: `é "${attempt}" \u0000 \n`,
    elapsedMs: attempt / 3,
  };
}

/** What every journal must do. `reopen` gives the journal that a later process would find. */
export function describeJournal(
  name: string,
  make: () => Promise<{ journal: Journal; reopen(): Promise<Journal> }>,
): void {
  async function all(journal: Journal): Promise<JournalEvent[]> {
    const events: JournalEvent[] = [];
    for await (const { event } of readChain(journal)) events.push(event);
    return events;
  }

  describe(`${name} as a journal`, () => {
    it("is empty at first", async () => {
      const { journal } = await make();
      expect(await all(journal)).toEqual([]);
    });

    it("gives back what was appended, in order, also when it is opened again", async () => {
      const { journal, reopen } = await make();
      const { events } = await chainOf(Array.from({ length: 600 }, (_, i) => numbered(i)));
      await journal.append(events.slice(0, 1), 0);
      await journal.append(events.slice(1), 1);
      expect(await all(journal)).toEqual(events);
      expect(await all(await reopen())).toEqual(events);
    });

    it("reads from a sequence number on", async () => {
      const { journal } = await make();
      const { events } = await chainOf([numbered(1), numbered(2), numbered(3)]);
      await journal.append(events, 0);
      const seqs: number[] = [];
      for await (const { seq } of journal.read(2)) seqs.push(seq);
      expect(seqs).toEqual([2, 3]);
    });

    it("refuses a writer that does not know the last event, and keeps nothing of what it brought", async () => {
      const { journal } = await make();
      const { events } = await chainOf([numbered(1), numbered(2)]);
      await journal.append(events.slice(0, 1), 0);
      await expect(journal.append(events.slice(0, 1), 0)).rejects.toMatchObject({ code: "journal-fenced" });
      await expect(journal.append(events.slice(1), 2)).rejects.toMatchObject({ code: "journal-fenced" });
      expect(await all(journal)).toHaveLength(1);
      await journal.append(events.slice(1), 1);
      expect(await all(journal)).toEqual(events);
    });
  });
}
