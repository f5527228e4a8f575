import { TributaryError } from "../errors.ts";
import type { BlobStore } from "./blob-store.ts";
import type { Digest } from "./digest.ts";
import type { Journal } from "./journal.ts";
import { getManifest } from "./manifest.ts";

/**
 * Deletes what no kept round, no client's memory and no later catch-up needs, marked from the journal, and was last put
 * more than `olderThanMs` ago; the number of deleted blobs.
 */
export async function sweepRun(
  { journal, blobs }: { readonly journal: Journal; readonly blobs: BlobStore },
  keepRounds: number,
  olderThanMs = 0,
): Promise<number> {
  const manifests = await liveManifests(journal, keepRounds);
  const live = new Set<Digest>();
  for (const digest of manifests) {
    live.add(digest);
    for (const chunk of await chunksOf(blobs, digest)) live.add(chunk);
  }
  return blobs.sweep(live, olderThanMs);
}

async function liveManifests(journal: Journal, keepRounds: number): Promise<Set<Digest>> {
  const bases = new Set<Digest>();
  const memories = new Map<string, Digest>();
  const byRound = new Map<number, Set<Digest>>();
  let pending = new Map<string, Digest>();
  let last = 0;
  const inRound = (round: number): Set<Digest> => {
    const known = byRound.get(round) ?? new Set();
    byRound.set(round, known);
    return known;
  };
  for await (const { body } of journal.read(1)) {
    switch (body.type) {
      case "round-opened":
      case "round-failed":
        pending = new Map();
        break;
      case "update-accepted":
        inRound(body.round).add(body.manifest);
        if (body.memory !== undefined) {
          pending.set(body.client, body.memory);
          inRound(body.round).add(body.memory);
        }
        break;
      case "checkpoint-committed":
        last = body.round;
        inRound(body.round).add(body.state);
        if (body.base !== null) bases.add(body.base);
        for (const [client, memory] of pending) memories.set(client, memory);
        pending = new Map();
        for (const round of byRound.keys())
          if (round < last && round < last - keepRounds) byRound.delete(round);
        break;
    }
  }
  const kept = [...byRound].flatMap(([, digests]) => [...digests]);
  return new Set([...bases, ...memories.values(), ...kept]);
}

async function chunksOf(blobs: BlobStore, digest: Digest): Promise<readonly Digest[]> {
  try {
    return (await getManifest(blobs, digest)).chunks;
  } catch (error) {
    // A manifest that an earlier, shorter retention dropped keeps nothing alive.
    if (error instanceof TributaryError && error.code === "blob-missing") return [];
    throw error;
  }
}
