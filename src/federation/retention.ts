import { TributaryError } from "../errors.ts";
import type { BlobStore } from "./blob-store.ts";
import type { Digest } from "./digest.ts";
import type { EventBody, Journal } from "./journal.ts";
import { getManifest } from "./manifest.ts";

/** Keeps what a run still needs. */
export interface Retention {
  /**
   * Deletes what no kept round, no client's memory and no later catch-up needs, marked from the journal, and was last put
   * more than `olderThanMs` ago; the number of deleted blobs. Reads what the journal has gained since the last time.
   */
  sweep(olderThanMs: number): Promise<number>;
}

/** The retention of a run of which the states and updates of the last `keepRounds` rounds are kept. */
export function retention(
  { journal, blobs }: { readonly journal: Journal; readonly blobs: BlobStore },
  keepRounds: number,
): Retention {
  /** Manifests that are kept for good, or until a client remembers something else. */
  const bases = new Set<Digest>();
  const memories = new Map<string, Digest>();
  const byRound = new Map<number, Set<Digest>>();
  /** What the clients of the open attempt will remember if it is committed. */
  const pending = new Map<string, Digest>();
  let next = 1;
  let chunks = new Map<Digest, readonly Digest[]>();

  function inRound(round: number): Set<Digest> {
    const known = byRound.get(round) ?? new Set();
    byRound.set(round, known);
    return known;
  }

  function mark(body: EventBody): void {
    switch (body.type) {
      case "round-opened":
      case "round-failed":
        pending.clear();
        return;
      case "update-accepted":
        inRound(body.round).add(body.manifest);
        if (body.memory === undefined) return;
        pending.set(body.client, body.memory);
        inRound(body.round).add(body.memory);
        return;
      case "checkpoint-committed":
        inRound(body.round).add(body.state);
        if (body.base !== null) bases.add(body.base);
        for (const [client, memory] of pending) memories.set(client, memory);
        pending.clear();
        for (const round of byRound.keys())
          if (round < body.round && round < body.round - keepRounds) byRound.delete(round);
    }
  }

  async function chunksOf(digest: Digest): Promise<readonly Digest[]> {
    try {
      return chunks.get(digest) ?? (await getManifest(blobs, digest)).chunks;
    } catch (error) {
      // A manifest that an earlier, shorter retention dropped keeps nothing alive.
      if (error instanceof TributaryError && error.code === "blob-missing") return [];
      throw error;
    }
  }

  return {
    async sweep(olderThanMs) {
      for await (const { seq, body } of journal.read(next)) {
        mark(body);
        next = seq + 1;
      }
      const live = new Set<Digest>();
      const known = new Map<Digest, readonly Digest[]>();
      for (const manifests of [bases, memories.values(), ...byRound.values()])
        for (const digest of manifests) {
          const of = known.get(digest) ?? (await chunksOf(digest));
          known.set(digest, of);
          for (const one of [digest, ...of]) live.add(one);
        }
      chunks = known;
      return blobs.sweep(live, olderThanMs);
    },
  };
}
