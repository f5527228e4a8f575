import type { Digest } from "../../federation/digest.ts";
import type { Env } from "../../federation/env.ts";
import { type Sealed, sealPayload, whole } from "../../federation/manifest.ts";
import type { Payload } from "../../federation/strategy.ts";

/** What the clients of a round receive, held as views of the tensors that the strategy sends. */
export interface Offers {
  /** The manifest of a payload; equal payloads of a round are sealed once. */
  offer(run: string, round: number, payload: Payload): Promise<Digest>;
  /** The bytes of a chunk or manifest of this round or the one before. */
  get(id: Digest): Uint8Array | undefined;
}

interface Offer {
  readonly round: number;
  readonly payload: Payload;
  readonly sealed: Promise<Sealed>;
}

/** Seals payloads when they are first asked for, and forgets them two rounds later. */
export function payloadOffers({ hash }: Pick<Env, "hash">, chunkSize: number): Offers {
  let offers: Offer[] = [];
  const blobs = new Map<Digest, { readonly round: number; readonly pieces: readonly Uint8Array[] }>();

  return {
    async offer(run, round, payload) {
      const known = offers.find((offer) => offer.round === round && same(offer.payload, payload));
      if (known) return (await known.sealed).digest;
      offers = offers.filter((offer) => offer.round >= round - 1);
      for (const [id, blob] of blobs) if (blob.round < round - 1) blobs.delete(id);
      const sealed = sealPayload({ kind: "payload", run, round }, payload, hash, chunkSize);
      offers.push({ round, payload, sealed });
      const { digest, blobs: pieces } = await sealed;
      for (const [id, parts] of pieces) blobs.set(id, { round, pieces: parts });
      return digest;
    },
    get(id) {
      const blob = blobs.get(id);
      if (!blob) return undefined;
      const bytes = whole(blob.pieces);
      // Every client of the round asks for it: it is put together once.
      blobs.set(id, { round: blob.round, pieces: [bytes] });
      return bytes;
    },
  };
}

/** Whether two payloads are the same sets: a strategy that sends all clients one state makes it once. */
function same(a: Payload, b: Payload): boolean {
  return a.params === b.params && a.extra === b.extra && a.stage === b.stage;
}
