import { TributaryError } from "../errors.ts";
import { assertContent, type BlobStore, piecesOf } from "../federation/blob-store.ts";
import { type Digest, joined } from "../federation/digest.ts";
import type { EventBody, Journal, JournalEvent } from "../federation/journal.ts";

/** A blob store in memory. */
export function memoryBlobs(): BlobStore {
  const blobs = new Map<Digest, { readonly bytes: Uint8Array; at: number }>();
  return {
    missing: async (ids) => ids.filter((id) => !blobs.has(id)),
    async put(id, bytes) {
      const held = blobs.get(id);
      if (held) {
        held.at = performance.now();
        return;
      }
      const pieces = await piecesOf(bytes);
      await assertContent(id, pieces, "memory");
      blobs.set(id, { bytes: joined(pieces), at: performance.now() });
    },
    async get(id, into) {
      const held = blobs.get(id);
      if (!held) throw new TributaryError("blob-missing", `memory: there is no blob ${id}`);
      if (into?.length !== held.bytes.length) return held.bytes.slice();
      into.set(held.bytes);
      return into;
    },
    async sweep(live, olderThanMs) {
      const limit = performance.now() - olderThanMs;
      let deleted = 0;
      for (const [id, { at }] of blobs) {
        if (live.has(id) || at > limit) continue;
        blobs.delete(id);
        deleted++;
      }
      return deleted;
    },
  };
}

/** A journal in memory. */
export function memoryJournal<Body = EventBody>(): Journal<Body> {
  const rows: string[] = [];
  return {
    async append(events, expect) {
      if (rows.length !== expect) {
        throw new TributaryError(
          "journal-fenced",
          `journal: another writer has appended: ${rows.length} events, expected ${expect}`,
        );
      }
      rows.push(...events.map((event) => JSON.stringify(event)));
    },
    async *read(from) {
      for (let i = from - 1; i < rows.length; i++) {
        const row = rows[i];
        // Only `append` writes rows.
        if (row !== undefined) yield JSON.parse(row) as JournalEvent<Body>;
      }
    },
  };
}
