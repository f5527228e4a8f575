import { type BlobStore, piecesOf } from "../../src/federation/blob-store.ts";
import type { RunStore } from "../../src/federation/federate.ts";
import type { EventBody, Journal } from "../../src/federation/journal.ts";
import { whole } from "../../src/federation/manifest.ts";

/** Where a coordinator can be killed, in the order in which a round passes them. */
export const crashPoints = [
  "before round-opened",
  "after round-opened",
  "before assignment-leased",
  "after assignment-leased",
  "before update chunk",
  "after update chunk",
  "before update manifest",
  "after update manifest",
  "before update-accepted",
  "after update-accepted",
  "after receipt",
  "before round-closed",
  "after round-closed",
  "before state chunk",
  "after state chunk",
  "before state manifest",
  "after state manifest",
  "before checkpoint-committed",
  "after checkpoint-committed",
] as const;

/** Ends this process as a power cut would end it: no handler runs, nothing is flushed. */
export function die(): never {
  process.kill(process.pid, "SIGKILL");
  // The signal to the own process is delivered before the call returns.
  throw new Error("SIGKILL did not end this process");
}

/** A store that ends the process at a point of a round. */
export function crashing(
  { journal, blobs }: RunStore,
  at: { readonly point: string; readonly round: number },
): RunStore {
  let round = 0;
  let folding = false;
  const follow = (body: EventBody): void => {
    if (body.type === "round-opened") [round, folding] = [body.round, false];
    if (body.type === "round-closed") folding = true;
  };
  const passes = (point: string): void => {
    if (point === at.point && round === at.round) die();
  };
  const watched: Journal = {
    async append(events, expect) {
      const opens = events.some(({ body }) => body.type === "round-opened");
      for (const { body } of events) if (opens) follow(body);
      for (const { body } of events) passes(`before ${body.type}`);
      await journal.append(events, expect);
      for (const { body } of events) {
        follow(body);
        passes(`after ${body.type}`);
      }
    },
    async *read(from) {
      for await (const event of journal.read(from)) {
        follow(event.body);
        yield event;
      }
    },
  };
  const watchedBlobs: BlobStore = {
    ...blobs,
    async put(id, given) {
      const bytes = whole(await piecesOf(given));
      const what = `${folding ? "state" : "update"} ${isManifest(bytes) ? "manifest" : "chunk"}`;
      passes(`before ${what}`);
      await blobs.put(id, bytes);
      passes(`after ${what}`);
    },
  };
  return { journal: watched, blobs: watchedBlobs };
}

function isManifest(bytes: Uint8Array): boolean {
  if (bytes[0] !== 0x7b) return false;
  try {
    return "chunks" in JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(bytes));
  } catch {
    return false;
  }
}
