import { mkdtemp, readdir, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { readAll } from "../../src/formats/byte-source.ts";
import { fileSource, openFolder, removeTemporaries, writeFileAtomic } from "../../src/formats/files.node.ts";

describe("files", () => {
  let folder = "";
  beforeAll(async () => {
    folder = await mkdtemp(join(tmpdir(), "tributary-files-"));
  });
  afterAll(() => rm(folder, { recursive: true }));

  it("deletes what a killed process left half written, and nothing else", async () => {
    const path = join(folder, "left");
    await writeFileAtomic(join(path, "x.bin"), Uint8Array.of(1));
    await writeFile(join(path, "x.bin.tmp-4711-2108.861395"), "half");
    await writeFile(join(path, "notes.tmp"), "mine");
    await removeTemporaries(path);
    expect(await readdir(path)).toEqual(["notes.tmp", "x.bin"]);
    await removeTemporaries(join(folder, "nowhere"));
  });

  it("writes whole files through a temporary one, in folders that it makes, and reads them by range", async () => {
    const path = join(folder, "deep", "er", "x.bin");
    await writeFileAtomic(path, Uint8Array.of(1, 2, 3));
    await writeFileAtomic(
      path,
      (async function* () {
        yield Uint8Array.of(9, 8);
        yield Uint8Array.of(7, 6, 5);
      })(),
    );
    const source = await fileSource(path);
    expect(source.size).toBe(5);
    expect(Array.from(await source.read(1, 4))).toEqual([8, 7, 6]);
    expect(await readdir(join(folder, "deep", "er"))).toEqual(["x.bin"]);
  });

  it("keeps the old bytes and leaves no temporary file when the new ones fail", async () => {
    const path = join(folder, "kept.bin");
    await writeFileAtomic(path, Uint8Array.of(1));
    const failing = (async function* () {
      yield Uint8Array.of(2);
      throw new Error("source failed");
    })();
    await expect(writeFileAtomic(path, failing)).rejects.toThrow("source failed");
    expect(Array.from(await readAll(await fileSource(path)))).toEqual([1]);
    expect((await readdir(folder)).filter((name) => name.includes("tmp"))).toEqual([]);
  });

  it("lists the files of a folder, and names what is missing or was cut while open", async () => {
    await writeFile(join(folder, "b"), "12");
    await writeFile(join(folder, "a"), "1");
    expect([...(await openFolder(folder)).keys()].filter((name) => name.length === 1)).toEqual(["a", "b"]);
    await expect(openFolder(join(folder, "none"))).rejects.toThrow(/none: no such folder/);
    await expect(fileSource(join(folder, "none"))).rejects.toThrow(/none: no such file/);
    const source = await fileSource(join(folder, "b"));
    await writeFile(join(folder, "b"), "1");
    await expect(source.read(0, 2)).rejects.toThrow(/ended at byte 1, expected 2/);
  });
});
