import { readFileSync, statSync, truncateSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { sha256 } from "../../src/federation/digest.ts";
import { diskBlobs } from "../../src/storage/disk.ts";
import { describeBlobStore } from "../contracts/blob-store.ts";
import { temporaryFolder } from "./temporary.ts";

const root = temporaryFolder();
let folders = 0;

describeBlobStore("disk", async () => {
  const folder = join(root, `${folders++}`, "blobs");
  return { blobs: diskBlobs(folder), reopen: async () => diskBlobs(folder) };
});

describe("blobs on disk", () => {
  it("lie in ab/<sha256>, readable by their owner only", async () => {
    const folder = join(root, "layout");
    const bytes = Uint8Array.of(5, 6);
    const id = await sha256(bytes);
    await diskBlobs(folder).put(id, bytes);
    const path = join(folder, id.slice(0, 2), id);
    expect([...readFileSync(path)]).toEqual([5, 6]);
    if (process.platform !== "win32") expect(statSync(path).mode & 0o777).toBe(0o600);
  });

  it("that were damaged are refused, never handed out", async () => {
    const folder = join(root, "damaged");
    const bytes = new Uint8Array(1000).fill(1);
    const id = await sha256(bytes);
    const path = join(folder, id.slice(0, 2), id);
    await diskBlobs(folder).put(id, bytes);
    truncateSync(path, 999);
    await expect(diskBlobs(folder).get(id)).rejects.toMatchObject({ code: "blob-damaged" });
  });

  it("sweep removes the temporaries of a killed process", async () => {
    const folder = join(root, "temporaries");
    const bytes = Uint8Array.of(1);
    const id = await sha256(bytes);
    const blobs = diskBlobs(folder);
    await blobs.put(id, bytes);
    const draft = join(folder, id.slice(0, 2), `${id}.tmp-4711-0`);
    writeFileSync(draft, "half");
    expect(await blobs.sweep(new Set([id]), -1000)).toBe(1);
    expect(() => statSync(draft)).toThrow("ENOENT");
    expect(await blobs.missing([id])).toEqual([]);
  });

  it("never reach a path through a key", async () => {
    await expect(diskBlobs(root).get("../../etc/passwd")).rejects.toThrow("not a digest");
  });
});
