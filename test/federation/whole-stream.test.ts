import { expect, it } from "vitest";
import { type Manifest, wholeStream } from "../../src/federation/manifest.ts";

it("a stream of which a chunk is missing is given up when nothing writes to its array any more", async () => {
  const manifest: Manifest = {
    kind: "update",
    run: "run",
    round: 1,
    tensors: [],
    bytes: 5,
    chunkSize: 2,
    chunks: ["missing", "late", "short"],
    versions: {},
  };
  const into = new Uint8Array(8);
  const late = async (target: Uint8Array): Promise<Uint8Array> => {
    await new Promise((resolve) => setTimeout(resolve, 50));
    return target.fill(7);
  };
  const get = (id: string, target: Uint8Array): Promise<Uint8Array> =>
    id === "missing" ? Promise.reject(new Error("there is no such blob")) : late(target);
  await expect(wholeStream(manifest, get, into)).rejects.toThrow("there is no such blob");
  const then = into.slice();
  into.fill(0);
  await new Promise((resolve) => setTimeout(resolve, 100));
  expect([...then]).toEqual([0, 0, 7, 7, 7, 0, 0, 0]);
  expect([...into]).toEqual([0, 0, 0, 0, 0, 0, 0, 0]);
});
