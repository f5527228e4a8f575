import { describe, expect, it } from "vitest";
import type { BlobStore } from "../../src/federation/blob-store.ts";
import { sha256, sha256Text } from "../../src/federation/digest.ts";

/** What every blob store must do. `reopen` gives the store that a later process would find. */
export function describeBlobStore(
  name: string,
  make: () => Promise<{ blobs: BlobStore; reopen(): Promise<BlobStore> }>,
): void {
  describe(`${name} as a blob store`, () => {
    it("gives back the bytes that were put, also when it is opened again", async () => {
      const { blobs, reopen } = await make();
      for (const bytes of [new Uint8Array(0), Uint8Array.of(1, 2, 3), new Uint8Array(1_000_003).fill(7)]) {
        const id = await sha256(bytes);
        await blobs.put(id, bytes);
        await blobs.put(id, bytes);
        expect(Buffer.compare(await blobs.get(id), bytes)).toBe(0);
        expect(Buffer.compare(await (await reopen()).get(id), bytes)).toBe(0);
      }
    });

    it("names what it has not", async () => {
      const { blobs } = await make();
      const [a, b] = [await sha256Text("a"), await sha256Text("b")];
      await blobs.put(a, new TextEncoder().encode("a"));
      expect(await blobs.missing([b, a])).toEqual([b]);
      await expect(blobs.get(b)).rejects.toMatchObject({ code: "blob-missing" });
    });

    it("refuses bytes that are not those of their key", async () => {
      const { blobs } = await make();
      const id = await sha256Text("a");
      await expect(blobs.put(id, new TextEncoder().encode("b"))).rejects.toMatchObject({
        code: "blob-damaged",
      });
      expect(await blobs.missing([id])).toEqual([id]);
    });

    it("is not changed through an array that was put or got", async () => {
      const { blobs } = await make();
      const bytes = Uint8Array.of(1, 2, 3);
      const id = await sha256(bytes);
      await blobs.put(id, bytes);
      bytes[0] = 9;
      (await blobs.get(id))[1] = 9;
      expect([...(await blobs.get(id))]).toEqual([1, 2, 3]);
    });

    it("takes the same blob from many at once", async () => {
      const { blobs } = await make();
      const bytes = new Uint8Array(100_000).fill(3);
      const id = await sha256(bytes);
      await Promise.all(Array.from({ length: 8 }, () => blobs.put(id, bytes)));
      expect((await blobs.get(id)).length).toBe(100_000);
    });

    it("takes bytes in pieces and as they arrive, and none that stop or are not those of their key", async () => {
      const { blobs, reopen } = await make();
      const bytes = new Uint8Array(300_000).map((_, i) => i % 251);
      const id = await sha256(bytes);
      const cut = [bytes.subarray(0, 100), bytes.subarray(100, 200_001), bytes.subarray(200_001)];
      async function* arriving(pieces: readonly Uint8Array[], stops?: Error): AsyncGenerator<Uint8Array> {
        for (const piece of pieces) {
          await Promise.resolve();
          yield piece;
        }
        if (stops) throw stops;
      }
      const stopped = new Error("the connection is gone");
      await expect(blobs.put(id, arriving(cut, stopped))).rejects.toBe(stopped);
      await expect(blobs.put(id, arriving(cut.slice(1)))).rejects.toMatchObject({ code: "blob-damaged" });
      expect(await blobs.missing([id])).toEqual([id]);
      await blobs.put(id, arriving(cut));
      await blobs.put(id, arriving(cut));
      expect(Buffer.compare(await (await reopen()).get(id), bytes)).toBe(0);

      const other = bytes.slice().reverse();
      const otherId = await sha256(other);
      await blobs.put(otherId, [other.subarray(0, 7), other.subarray(7)]);
      const into = new Uint8Array(other.length);
      expect(await blobs.get(otherId, into)).toBe(into);
      expect(Buffer.compare(into, other)).toBe(0);
      const short = new Uint8Array(3);
      expect((await blobs.get(otherId, short)).length).toBe(other.length);
    });

    it("waits for no sender that has stopped where another one brings the same blob", async () => {
      const { blobs } = await make();
      const bytes = Uint8Array.of(1, 2, 3, 4);
      const id = await sha256(bytes);
      let release: () => void = () => {};
      const stalls = new Promise<void>((resolve) => {
        release = resolve;
      });
      async function* stalling(): AsyncGenerator<Uint8Array> {
        yield bytes.subarray(0, 2);
        await stalls;
        yield bytes.subarray(2);
      }
      const first = blobs.put(id, stalling());
      await blobs.put(id, bytes);
      expect([...(await blobs.get(id))]).toEqual([1, 2, 3, 4]);
      release();
      await first;
      expect([...(await blobs.get(id))]).toEqual([1, 2, 3, 4]);
    });

    it("keeps what arrives while it sweeps", async () => {
      const { blobs } = await make();
      const bytes = Uint8Array.of(9, 8, 7);
      const id = await sha256(bytes);
      let release: () => void = () => {};
      let begun: () => void = () => {};
      const stalls = new Promise<void>((resolve) => {
        release = resolve;
      });
      const begins = new Promise<void>((resolve) => {
        begun = resolve;
      });
      async function* stalling(): AsyncGenerator<Uint8Array> {
        yield bytes.subarray(0, 1);
        begun();
        await stalls;
        yield bytes.subarray(1);
      }
      const put = blobs.put(id, stalling());
      await begins;
      await blobs.sweep(new Set(), -1000);
      release();
      await put;
      expect([...(await blobs.get(id))]).toEqual([9, 8, 7]);
    });

    it("sweeps what is not live and old enough, and nothing else", async () => {
      const { blobs } = await make();
      const texts = ["live", "dead"].map((text) => new TextEncoder().encode(text));
      const ids = await Promise.all(texts.map((bytes) => sha256(bytes)));
      for (const [i, id] of ids.entries()) await blobs.put(id, texts[i] ?? new Uint8Array());
      const live = new Set(ids.slice(0, 1));
      expect(await blobs.sweep(live, 3_600_000)).toBe(0);
      expect(await blobs.sweep(live, -1000)).toBe(1);
      expect(await blobs.missing(ids)).toEqual(ids.slice(1));
    });
  });
}
