import { mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { gzipSync } from "node:zlib";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { readRecords, readTokenizer } from "../../src/data/files.node.ts";
import { shared } from "../shared.ts";

let folder = "";
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), "tributary-data-"));
  mkdirSync(join(folder, "texts", "sub"), { recursive: true });
  writeFileSync(join(folder, "rows.jsonl"), '{"a":1}\n{"a":2}\n');
  writeFileSync(join(folder, "rows.jsonl.gz"), gzipSync('{"a":1}\n{"a":2}\n'));
  writeFileSync(join(folder, "rows.tsv.gz"), gzipSync("a\tb\n1\t2\n"));
  writeFileSync(join(folder, "cut.csv.gz"), gzipSync("a,b\n1,2\n").subarray(0, 20));
  writeFileSync(join(folder, "model.bin"), "x");
  writeFileSync(join(folder, "texts", "b.txt"), "second");
  writeFileSync(join(folder, "texts", "a.md"), "first");
  writeFileSync(join(folder, "texts", "blank.txt"), "");
  writeFileSync(join(folder, "texts", "sub", "c.txt.gz"), gzipSync("third"));
  writeFileSync(join(folder, "texts", "ignored.png"), "");
  symlinkSync(join(folder, "rows.jsonl"), join(folder, "texts", "link.jsonl"));
});
afterAll(() => rmSync(folder, { recursive: true }));

describe("readRecords", () => {
  it("chooses the reader by extension, with and without .gz", async () => {
    const expected = [{ a: 1 }, { a: 2 }];
    expect((await readRecords(join(folder, "rows.jsonl"))).rows).toEqual(expected);
    expect((await readRecords(join(folder, "rows.jsonl.gz"))).rows).toEqual(expected);
    expect((await readRecords(join(folder, "rows.tsv.gz"))).rows).toEqual([{ a: "1", b: "2" }]);
  });

  it("reads a folder as one document a file, in order of names, and follows no links", async () => {
    const { rows, dropped } = await readRecords(join(folder, "texts"));
    expect(rows).toEqual([
      { text: "first", file: "a.md" },
      { text: "second", file: "b.txt" },
      { text: "third", file: "sub/c.txt.gz" },
    ]);
    expect(dropped).toEqual([{ index: 0, reason: "blank.txt: a document without text" }]);
  });

  it("refuses a missing path, an unknown kind, an empty folder and a truncated gzip file by name", async () => {
    await expect(readRecords(join(folder, "nowhere.jsonl"))).rejects.toMatchObject({ code: "missing-file" });
    await expect(readRecords(join(folder, "model.bin"))).rejects.toThrow(
      /model\.bin: unknown kind of data, expected .*\.jsonl/,
    );
    mkdirSync(join(folder, "empty"));
    await expect(readRecords(join(folder, "empty"))).rejects.toThrow("holds no file ending in");
    await expect(readRecords(join(folder, "cut.csv.gz"))).rejects.toThrow("bytes that gzip cannot expand");
  });

  it.skipIf(shared === undefined)(
    "reads the real data sets whole (skipped where shared/ is absent)",
    async () => {
      expect((await readRecords(`${shared}/data/medquad/medquad.jsonl.gz`)).rows).toHaveLength(16407);
      expect((await readRecords(`${shared}/data/e2e/devset.csv.gz`)).rows).toHaveLength(4672);
      expect((await readRecords(`${shared}/data/glue/stsb`)).rows).toHaveLength(5749 + 1499);
    },
  );
});

describe("readTokenizer", () => {
  it("refuses a folder without tokenizer.json", async () => {
    await expect(readTokenizer(folder)).rejects.toMatchObject({ code: "missing-file" });
  });
});
