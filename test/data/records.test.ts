import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { readCsv } from "../../src/data/csv.ts";
import { readJson } from "../../src/data/json.ts";
import { readJsonl } from "../../src/data/jsonl.ts";
import { readText } from "../../src/data/text.ts";

async function* inPieces(bytes: Uint8Array, size: number): AsyncIterable<Uint8Array> {
  for (let i = 0; i < bytes.length; i += size) yield bytes.subarray(i, i + size);
}

const utf8 = (text: string): Uint8Array => new TextEncoder().encode(text);

describe("readJsonl", () => {
  it("reads one object a line, with CRLF, blank lines, a byte order mark and no newline at the end", async () => {
    const { rows, dropped } = await readJsonl('\ufeff{"a":1}\r\n\n  \n{"b":"x\\ny"}');
    expect(rows).toEqual([{ a: 1 }, { b: "x\ny" }]);
    expect(dropped).toEqual([]);
  });

  it("gives the same rows however the bytes are cut, also within a character", async () => {
    const value = fc.array(fc.dictionary(fc.string({ unit: "grapheme" }), fc.string({ unit: "grapheme" })), {
      minLength: 1,
    });
    await fc.assert(
      fc.asyncProperty(value, fc.integer({ min: 1, max: 7 }), async (rows, size) => {
        const bytes = utf8(rows.map((row) => JSON.stringify(row)).join("\n"));
        const { rows: read } = await readJsonl(inPieces(bytes, size));
        expect(JSON.stringify(read)).toBe(JSON.stringify(rows));
      }),
      { numRuns: 60 },
    );
  });

  it("names file and line, what it got and what it expected, without quoting the line", async () => {
    const broken = readJsonl('{"a":1}\n{"secret": \n', { name: "notes.jsonl" });
    await expect(broken).rejects.toMatchObject({ code: "malformed-data" });
    await expect(broken).rejects.toThrow(
      /^notes\.jsonl:2: got a line of 11 characters that is not JSON, expected a JSON object/,
    );
    await expect(readJsonl("[1]\n", { name: "x" })).rejects.toThrow(
      "x:1: got an array, expected a JSON object",
    );
  });

  it("drops malformed lines on request, and lists each", async () => {
    const { rows, dropped } = await readJsonl('{"a":1}\nnull\n{"a":2}\nnope', { dropMalformed: true });
    expect(rows).toEqual([{ a: 1 }, { a: 2 }]);
    expect(dropped.map(({ index }) => index)).toEqual([2, 4]);
    expect(dropped[0]?.reason).toContain("null");
  });

  it("refuses bytes that are not UTF-8, and more text than allowed", async () => {
    await expect(readJsonl(Uint8Array.of(0x7b, 0xff, 0x7d), { name: "b" })).rejects.toThrow(
      "b: got bytes that are not UTF-8",
    );
    await expect(readJsonl('{"a":"\u00e9'.concat('"}'), { maxLength: 5 })).rejects.toThrow(
      "more than 5 characters",
    );
    await expect(readJsonl(Uint8Array.of(0x7b, 0xc3))).rejects.toThrow("UTF-8");
  });

  it("keeps a field named __proto__ a field", async () => {
    const { rows } = await readJsonl('{"__proto__":{"polluted":1}}');
    expect(Object.keys(rows[0] ?? {})).toEqual(["__proto__"]);
    expect(Object.getPrototypeOf(rows[0])).toBe(Object.prototype);
  });
});

describe("readJson", () => {
  it("reads an array of objects, or one object", async () => {
    expect((await readJson('[{"a":1},{"a":2}]')).rows).toHaveLength(2);
    expect((await readJson('{"a":1}')).rows).toEqual([{ a: 1 }]);
  });

  it("refuses entries that are no objects, by number, or lists them", async () => {
    await expect(readJson('[{"a":1},3]', { name: "d.json" })).rejects.toThrow(
      "d.json: got a number as entry 1",
    );
    expect((await readJson('[{"a":1},3]', { dropMalformed: true })).dropped).toHaveLength(1);
  });
});

describe("readCsv", () => {
  it("reads quoted delimiters, newlines and doubled quotes", async () => {
    const { rows } = await readCsv('mr,ref\r\n"name[A], area[B]","He said ""hi""\nthen left"\r\nplain,\n');
    expect(rows).toEqual([
      { mr: "name[A], area[B]", ref: 'He said "hi"\nthen left' },
      { mr: "plain", ref: "" },
    ]);
  });

  it("reads tabs as delimiters", async () => {
    expect((await readCsv("a\tb\n1\t2,3\n", { delimiter: "\t" })).rows).toEqual([{ a: "1", b: "2,3" }]);
  });

  it("round-trips any text", async () => {
    const cell = fc.string({ unit: "grapheme" });
    const quoted = (s: string): string => `"${s.replaceAll('"', '""')}"`;
    await fc.assert(
      fc.asyncProperty(fc.array(fc.tuple(cell, cell), { minLength: 1 }), async (table) => {
        const text = ["x,y", ...table.map((row) => row.map(quoted).join(","))].join("\n");
        const { rows } = await readCsv(text);
        expect(rows).toEqual(table.map(([x, y]) => ({ x, y })));
      }),
      { numRuns: 60 },
    );
  });

  it("names the line of a row with the wrong number of fields, or drops it", async () => {
    const text = 'a,b\n"1\n1",2\n3\n4,5\n';
    await expect(readCsv(text, { name: "t.csv" })).rejects.toThrow("t.csv:4: got 1 fields, expected 2");
    const { rows, dropped } = await readCsv(text, { dropMalformed: true });
    expect(rows).toHaveLength(2);
    expect(dropped).toEqual([{ index: 4, reason: "1 fields, expected 2" }]);
  });

  it("refuses an unclosed quote, an empty file, repeated and nameless columns", async () => {
    await expect(readCsv('a,b\n"1,2\n', { name: "q" })).rejects.toThrow(
      /^q:\d+: got a quoted field without its end/,
    );
    await expect(readCsv("", { name: "q" })).rejects.toThrow("q:1: got an empty file");
    await expect(readCsv("a,a\n1,2\n")).rejects.toThrow('the field "a" twice');
    await expect(readCsv("a,\n1,2\n")).rejects.toThrow("a field without a name");
  });

  it("keeps a column named __proto__ a field", async () => {
    const { rows } = await readCsv("__proto__,b\nx,y\n");
    expect(Object.keys(rows[0] ?? {})).toEqual(["__proto__", "b"]);
    expect(Object.getPrototypeOf(rows[0])).toBe(Object.prototype);
  });
});

describe("readText", () => {
  it("is one document with its name; a blank one is listed as dropped", async () => {
    expect((await readText("two\nlines", { name: "n.txt" })).rows).toEqual([
      { text: "two\nlines", file: "n.txt" },
    ]);
    expect(await readText(" \n")).toMatchObject({ rows: [], dropped: [{ index: 0 }] });
  });
});
