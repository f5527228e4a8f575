import { readFileSync } from "node:fs";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { TributaryError } from "../../src/errors.ts";
import { type ByteSource, bytesSource } from "../../src/formats/byte-source.ts";
import { ggufCheckpoint } from "../../src/formats/gguf/checkpoint.ts";
import { ggufModel } from "../../src/formats/gguf/export.ts";
import { openGguf } from "../../src/formats/gguf/gguf.ts";
import type { GgufArray, GgufValue } from "../../src/formats/gguf/metadata.ts";
import { ggufTokenizer } from "../../src/formats/gguf/tokenizer.ts";
import { tokenizerMetadata } from "../../src/formats/gguf/tokenizer-metadata.ts";
import { type GgufFile, ggufPieces } from "../../src/formats/gguf/write.ts";
import { parseJsonObject } from "../../src/formats/json.ts";
import { encodeBlocks } from "../../src/tensor/quant/blocks.ts";
import { familyJsons, tinyModel } from "../models/tiny.ts";
import { mutations } from "./mutate.ts";

// Written by the reference library for Python (gguf_fixture.py).
const recorded: { readonly bytes: string; readonly values: Readonly<Record<string, string>> } = JSON.parse(
  readFileSync(new URL("gguf-all-types.json", import.meta.url), "utf8"),
);
const reference = new Uint8Array(Buffer.from(recorded.bytes, "base64"));

async function bytesOf(file: GgufFile): Promise<Uint8Array> {
  const pieces: Uint8Array[] = [];
  for await (const piece of ggufPieces(file)) pieces.push(piece);
  return new Uint8Array(Buffer.concat(pieces));
}

const codeOf = (bytes: Uint8Array): Promise<string | undefined> =>
  openGguf(bytesSource(bytes)).then(
    () => undefined,
    (error: unknown) => (error instanceof TributaryError ? error.code : String(error)),
  );

/** The place of some text in the reference file. */
function placeOf(text: string): number {
  const at = Buffer.from(reference).indexOf(text);
  if (at < 0) throw new Error(`the file has no ${text}`);
  return at;
}

/** A copy of the reference file with some bytes in other places. */
function changed(at: number, ...bytes: readonly number[]): Uint8Array {
  const copy = reference.slice();
  copy.set(bytes, at);
  return copy;
}

describe("reading", () => {
  it("reads every type of value as the reference library wrote it", async () => {
    const { metadata, version } = await openGguf(bytesSource(reference));
    expect(version).toBe(3);
    expect(Object.fromEntries(metadata)).toEqual({
      "general.architecture": { type: "string", value: "test" },
      "n.uint8": { type: "uint8", value: 200 },
      "n.int8": { type: "int8", value: -100 },
      "n.uint16": { type: "uint16", value: 60_000 },
      "n.int16": { type: "int16", value: -30_000 },
      "n.uint32": { type: "uint32", value: 4_000_000_000 },
      "n.int32": { type: "int32", value: -2_000_000_000 },
      "n.float32": { type: "float32", value: Math.fround(1e-5) },
      "n.uint64": { type: "uint64", value: 2n ** 63n + 1n },
      "n.int64": { type: "int64", value: -(2n ** 62n) },
      "n.float64": { type: "float64", value: 1e-300 },
      "n.bool": { type: "bool", value: true },
      s: { type: "string", value: "naïve ▁" },
      "a.strings": { type: "array", of: "string", values: ["a", "", "é"] },
      "a.ints": { type: "array", of: "int32", values: Int32Array.of(1, -2, 3) },
      "a.floats": { type: "array", of: "float32", values: Float32Array.of(0.5, -1.25) },
      "a.bools": { type: "array", of: "bool", values: Uint8Array.of(1, 0) },
      "a.arrays": {
        type: "array",
        of: "array",
        values: [
          { type: "array", of: "int32", values: Int32Array.of(1, 2) },
          { type: "array", of: "int32", values: Int32Array.of(3) },
        ],
      },
    });
  });

  it.each(Object.keys(recorded.values))("decodes %s bit for bit", async (name) => {
    const gguf = await openGguf(bytesSource(reference));
    const bytes = new Uint8Array(Buffer.from(recorded.values[name] ?? "", "base64"));
    const expected = new Float32Array(bytes.buffer);
    const { type, shape } = gguf.info(name);
    expect(name.endsWith(`.${type}`)).toBe(true);
    expect(await gguf.tensor(name)).toEqual({ dtype: "float32", shape, data: expected });
    expect(shape).toEqual(name === "plain.F16" ? [3, 2] : [2, expected.length / 2]);
  });

  it("reads version 2 alike, refuses others and big-endian files by name", async () => {
    const { metadata } = await openGguf(bytesSource(changed(4, 2)));
    expect(metadata.size).toBe(18);
    await expect(openGguf(bytesSource(changed(4, 1)))).rejects.toThrow(/GGUF version 1, expected 2 or 3/);
    await expect(openGguf(bytesSource(changed(4, 0, 0, 0, 3)))).rejects.toThrow(/big-endian/);
  });

  it("reads only the rows that are asked for, beyond 4 GiB too", async () => {
    const width = 2 ** 22;
    const rows = 400;
    const header = await bytesOf({
      metadata: new Map(),
      tensors: [{ name: "x", type: "Q8_0", shape: [0, width], encode: () => new Uint8Array(0) }],
    });
    new DataView(header.buffer).setBigUint64(24 + 9 + 4 + 8, BigInt(rows), true);
    const row = (width / 32) * 34;
    const reads: [number, number][] = [];
    const source: ByteSource = {
      size: header.length + rows * row,
      async read(start, end) {
        reads.push([start, end]);
        if (start > 0) return new Uint8Array(end - start).fill(60);
        const bytes = new Uint8Array(end);
        bytes.set(header.subarray(0, end));
        return bytes;
      },
    };
    const gguf = await openGguf(source);
    expect(gguf.info("x").shape).toEqual([rows, width]);
    expect((await gguf.blocks("x", 398, 399)).length).toBe(row);
    expect(reads.at(-1)).toEqual([header.length + 398 * row, header.length + 399 * row]);
  });

  it("reads headers longer than its first read", async () => {
    const values = Array.from({ length: 120_000 }, (_, i) => `token ${i}`);
    const bytes = await bytesOf({
      metadata: new Map([["tokens", { type: "array", of: "string", values }]]),
      tensors: [
        { name: "x", type: "F32", shape: [2], encode: () => encodeBlocks("F32", Float32Array.of(1, 2)) },
      ],
    });
    expect(bytes.length).toBeGreaterThan(2 ** 20);
    const gguf = await openGguf(bytesSource(bytes));
    expect(gguf.metadata.get("tokens")).toEqual({ type: "array", of: "string", values });
    expect((await gguf.tensor("x")).data).toEqual(Float32Array.of(1, 2));
  });
});

describe("writing", () => {
  const numbers: fc.Arbitrary<GgufValue> = fc.oneof(
    fc.integer({ min: 0, max: 255 }).map((value): GgufValue => ({ type: "uint8", value })),
    fc.integer({ min: -(2 ** 15), max: 2 ** 15 - 1 }).map((value): GgufValue => ({ type: "int16", value })),
    fc.integer({ min: 0, max: 2 ** 32 - 1 }).map((value): GgufValue => ({ type: "uint32", value })),
    fc.bigInt({ min: 0n, max: 2n ** 64n - 1n }).map((value): GgufValue => ({ type: "uint64", value })),
    fc.float({ noNaN: true }).map((value): GgufValue => ({ type: "float32", value })),
    fc.boolean().map((value): GgufValue => ({ type: "bool", value })),
    fc.string({ unit: "binary" }).map((value): GgufValue => ({ type: "string", value })),
  );
  const flat: fc.Arbitrary<GgufArray> = fc.oneof(
    fc.array(fc.string()).map((values): GgufArray => ({ type: "array", of: "string", values })),
    fc.float32Array({ noNaN: true }).map((values): GgufArray => ({ type: "array", of: "float32", values })),
    fc.bigInt64Array().map((values): GgufArray => ({ type: "array", of: "int64", values })),
  );
  const value = fc.oneof(
    numbers,
    flat,
    fc.array(flat, { maxLength: 3 }).map((values): GgufValue => ({ type: "array", of: "array", values })),
  );

  it("gives back what was written, for any metadata and shapes", async () => {
    const tensor = fc.tuple(fc.array(fc.integer({ min: 1, max: 4 }), { maxLength: 3 }), fc.nat());
    await fc.assert(
      fc.asyncProperty(
        fc.dictionary(
          fc.string().filter((key) => key !== "general.alignment"),
          value,
        ),
        fc.array(tensor, { maxLength: 4 }),
        async (metadata, tensors) => {
          const written: GgufFile = {
            metadata: new Map(Object.entries(metadata)),
            tensors: tensors.map(([outer, seed], i) => ({
              name: `t${i}`,
              type: i % 2 === 0 ? "Q8_0" : "F16",
              shape: [...outer, 32],
              encode: () =>
                encodeBlocks(
                  i % 2 === 0 ? "Q8_0" : "F16",
                  new Float32Array(outer.reduce((a, b) => a * b, 32)).map(
                    (_, j) => ((j * 7 + seed) % 31) - 15,
                  ),
                ),
            })),
          };
          const gguf = await openGguf(bytesSource(await bytesOf(written)));
          expect(gguf.metadata).toEqual(written.metadata);
          expect(gguf.names).toEqual(written.tensors.map(({ name }) => name));
          for (const { name, type, shape, encode } of written.tensors) {
            expect(gguf.info(name)).toMatchObject({ type, shape });
            expect(Buffer.from(await gguf.blocks(name))).toEqual(Buffer.from(encode()));
            expect(gguf.info(name).start % 32).toBe(0);
          }
        },
      ),
      { numRuns: 60 },
    );
  });

  it("refuses names that llama.cpp could not read and blocks of another size", async () => {
    const tensor = { name: "x", type: "F32", shape: [2], encode: () => new Uint8Array(4) } as const;
    await expect(bytesOf({ metadata: new Map(), tensors: [tensor] })).rejects.toThrow(
      /4 bytes, F32 \[2\] needs 8/,
    );
    const long = { ...tensor, name: "n".repeat(64) };
    await expect(bytesOf({ metadata: new Map(), tensors: [long] })).rejects.toThrow(/64 bytes or more/);
  });
});

describe("the door", () => {
  const typeOf = (name: string): number => placeOf(name) + name.length + 4 + 16; // after two dimensions
  const hostile: [string, () => Uint8Array, string][] = [
    ["no bytes", () => new Uint8Array(0), "gguf-magic"],
    ["another file", () => changed(0, 0x50, 0x4b), "gguf-magic"],
    ["a header cut short", () => reference.slice(0, 200), "gguf-truncated"],
    ["blocks cut short", () => reference.slice(0, reference.length - 60), "gguf-truncated"],
    ["more tensors than bytes", () => changed(8, 255, 255, 255), "gguf-truncated"],
    ["2^63 tensors", () => changed(15, 0x80), "gguf-count"],
    ["more values than bytes", () => changed(18, 255), "gguf-truncated"],
    ["a string longer than the file", () => changed(placeOf("n.uint8") - 6, 255), "gguf-truncated"],
    ["a key that is not UTF-8", () => changed(placeOf("n.uint8"), 0xff), "gguf-text"],
    ["an unknown value type", () => changed(placeOf("n.uint8") + 7, 13), "gguf-metadata"],
    ["a truth value of 2", () => changed(placeOf("n.bool") + 10, 2), "gguf-metadata"],
    ["an array longer than the file", () => changed(placeOf("a.ints") + 6 + 8 + 3, 1), "gguf-truncated"],
    ["an unknown tensor type", () => changed(typeOf("plain.F32"), 99), "gguf-type"],
    ["five dimensions", () => changed(placeOf("plain.F32") + 9, 5), "gguf-shape"],
    ["a row of half a block", () => changed(typeOf("plain.F32"), 8), "gguf-shape"],
    ["a dimension of 2^40", () => changed(placeOf("plain.F32") + 9 + 4 + 5, 1), "gguf-truncated"],
    ["an offset off the grid", () => changed(typeOf("plain.F16") + 4, 33), "gguf-offset"],
    ["tensors on the same bytes", () => changed(typeOf("plain.F16") + 4, 0), "gguf-offset"],
  ];

  it.each(hostile)("refuses %s", async (_, make, code) => {
    expect(await codeOf(make())).toBe(code);
  });

  it("refuses a key or a tensor that stands twice", async () => {
    const twice = (name: string, other: string): Uint8Array =>
      changed(placeOf(other), ...new TextEncoder().encode(name));
    expect(await codeOf(twice("n.uint8", "n.int16"))).toBe("gguf-metadata");
    expect(await codeOf(twice("blocks.Q4_1", "blocks.Q4_0"))).toBe("gguf-name");
  });

  it("refuses a type that it does not read by its name, and says which it reads", async () => {
    await expect(openGguf(bytesSource(changed(typeOf("plain.F32"), 23)), "m.gguf")).rejects.toThrow(
      /^m\.gguf: "plain\.F32" is stored as IQ4_XS, supported are F32 F16 Q4_0/,
    );
  });

  it("refuses alignments that are no power of two, and arrays nested beyond reason", async () => {
    const aligned = (value: number) =>
      bytesOf({ metadata: new Map([["general.alignment", { type: "uint32", value }]]), tensors: [] });
    expect(await codeOf(await aligned(48))).toBe("gguf-alignment");
    expect(await codeOf(await aligned(0))).toBe("gguf-alignment");
    expect(await codeOf(await aligned(64))).toBeUndefined();
    let nested: GgufArray = { type: "array", of: "uint8", values: Uint8Array.of(1) };
    for (let i = 0; i < 5; i++) nested = { type: "array", of: "array", values: [nested] };
    expect(await codeOf(await bytesOf({ metadata: new Map([["a", nested]]), tensors: [] }))).toBe(
      "gguf-metadata",
    );
    const empty: GgufArray = { type: "array", of: "uint8", values: new Uint8Array(0) };
    const many: GgufArray = { type: "array", of: "array", values: new Array<GgufArray>(20_000).fill(empty) };
    expect(await codeOf(await bytesOf({ metadata: new Map([["a", many]]), tensors: [] }))).toBe(
      "gguf-metadata",
    );
  });
});

describe("damage", () => {
  const tokenizer = parseJsonObject(
    new TextEncoder().encode(
      JSON.stringify({
        model: { type: "BPE", vocab: { a: 0, b: 1, ab: 2, Ġ: 3 }, merges: [["a", "b"]] },
        pre_tokenizer: { type: "ByteLevel", add_prefix_space: false, use_regex: true },
        decoder: { type: "ByteLevel" },
      }),
    ),
    "tokenizer.json",
  );

  async function modelFile(): Promise<Uint8Array> {
    const json = { ...familyJsons.llama };
    const { weights, taskModel } = tinyModel(json);
    return bytesOf(
      ggufModel({
        json: parseJsonObject(new TextEncoder().encode(JSON.stringify(json)), "config.json"),
        weights,
        tokenizer: tokenizerMetadata({ json: tokenizer, config: {} }, taskModel.config.vocabSize),
        type: "F16",
        name: "tiny",
      }),
    );
  }

  it("is read or refused by name, all that a model takes from a file: reads or refuses by name what is damaged", async () => {
    const times = Number(process.env.FUZZ_TIMES ?? 1200);
    const files = [reference, await modelFile()];
    const before = process.memoryUsage().rss;
    let refused = 0;
    let slowest = 0;
    let largest = 0;
    for (const [i, sound] of files.entries()) {
      const first = i === 0 ? 1800 : 5200; // the header
      for (const bytes of mutations(sound, { seed: 13 + i, times: times / files.length, first })) {
        const start = performance.now();
        try {
          const gguf = await openGguf(bytesSource(bytes));
          let floats = 0;
          for (const name of gguf.names) floats += (await gguf.tensor(name)).data.length;
          expect(floats).toBeLessThanOrEqual(4 * bytes.length);
          ggufTokenizer(gguf.metadata);
          const checkpoint = await ggufCheckpoint(gguf);
          for (const name of checkpoint.names) await checkpoint.tensor(name);
        } catch (error) {
          if (!(error instanceof TributaryError)) throw error;
          expect(error.code).toMatch(/^(gguf-|unsupported-)/);
          expect(error.message.length).toBeLessThan(1000);
          refused++;
        }
        slowest = Math.max(slowest, performance.now() - start);
        largest = Math.max(largest, process.memoryUsage().rss - before);
      }
    }
    expect(refused).toBeGreaterThan(times / 4);
    expect(slowest).toBeLessThan(5000);
    expect(largest).toBeLessThan(600 * 2 ** 20);
  }, 600_000);
});
