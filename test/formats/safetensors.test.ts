import { readFileSync } from "node:fs";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { TributaryError } from "../../src/errors.ts";
import { type ByteSource, bytesSource } from "../../src/formats/byte-source.ts";
import {
  openCheckpoint,
  openSafetensors,
  parseSafetensors,
  readTensors,
  writeSafetensors,
} from "../../src/formats/safetensors.ts";
import { allocate, byteSize, type DType } from "../../src/tensor/dtype.ts";
import type { Params } from "../../src/tensor/params.ts";
import { stream } from "../../src/tensor/random.ts";
import { float32, type Tensor, tensor } from "../../src/tensor/tensor.ts";

// Written by safetensors 0.7 for PyTorch: every element type, a scalar and an empty tensor.
const recorded: { bytes: string } = JSON.parse(
  readFileSync(new URL("all-dtypes.json", import.meta.url), "utf8"),
);
const reference = new Uint8Array(Buffer.from(recorded.bytes, "base64"));

const dtypes: readonly DType[] = [
  "float64",
  "float32",
  "float16",
  "bfloat16",
  "float8e4m3",
  "float8e5m2",
  "int64",
  "int32",
  "int16",
  "int8",
  "uint64",
  "uint32",
  "uint16",
  "uint8",
  "bool",
];

/** A file of a header text and some zero bytes. */
function file(header: string, dataBytes: number, claimed?: bigint): Uint8Array {
  const json = new TextEncoder().encode(header);
  const bytes = new Uint8Array(8 + json.length + dataBytes);
  new DataView(bytes.buffer).setBigUint64(0, claimed ?? BigInt(json.length), true);
  bytes.set(json, 8);
  return bytes;
}

function codeOf(bytes: Uint8Array): string | undefined {
  try {
    parseSafetensors(bytes);
  } catch (error) {
    if (error instanceof TributaryError) return error.code;
    throw error;
  }
  return undefined;
}

const arbitraryParams: fc.Arbitrary<Params> = fc
  .array(
    fc.tuple(
      fc.string({ maxLength: 30 }).filter((name) => name !== "__metadata__"),
      fc.constantFrom(...dtypes),
      fc.array(fc.integer({ min: 0, max: 4 }), { maxLength: 3 }),
      fc.nat(),
    ),
    { maxLength: 8 },
  )
  .map((list) => {
    const params = new Map<string, Tensor>();
    for (const [name, dtype, shape, seed] of list) {
      const data = allocate(
        dtype,
        shape.reduce((a, b) => a * b, 1),
      );
      const random = stream({ seed, purpose: "bytes" });
      const bytes = new Uint8Array(data.buffer);
      for (let i = 0; i < bytes.length; i++) bytes[i] = random.integer(256);
      params.set(name, { dtype, shape, data });
    }
    return params;
  });

const rawBytes = ({ data }: Tensor): number[] =>
  Array.from(new Uint8Array(data.buffer, data.byteOffset, data.byteLength));

function expectSame(got: Params, expected: Params): void {
  expect([...got.keys()].sort()).toEqual([...expected.keys()].sort());
  for (const [name, want] of expected) {
    const have = got.get(name);
    expect([have?.dtype, have?.shape]).toEqual([want.dtype, want.shape]);
    expect(have && rawBytes(have)).toEqual(rawBytes(want));
  }
}

describe("reading", () => {
  it("reads every element type as the reference implementation wrote it", async () => {
    const { params, metadata } = parseSafetensors(reference);
    const values = Object.fromEntries(
      [...params].map(([name, { data }]) => [name, Array.from<number | bigint>(data)]),
    );
    expect(values).toEqual({
      f64: [1.5, -2.25, 1e300],
      f32: [1.5, -3.25],
      f16: [0x3e00, 0xc000],
      bf16: [0x3fc0, 0xc000],
      e4m3: [0x3c, 0xc0],
      e5m2: [0x3e, 0xc0],
      i64: [-(2n ** 53n) - 1n, 7n],
      i32: [-5, 7],
      i16: [-5, 7],
      i8: [-5, 7, 9],
      u64: [5n, 2n ** 63n],
      u32: [5, 2 ** 31],
      u16: [5, 65535],
      u8: [5, 255, 1],
      bool: [1, 0, 1],
      scalar: [2.5],
      empty: [],
    });
    expect([params.get("f64")?.shape, params.get("scalar")?.shape, params.get("empty")?.shape]).toEqual([
      [1, 3],
      [],
      [0, 4],
    ]);
    expect(metadata).toEqual(
      new Map([
        ["format", "pt"],
        ["note", "é"],
      ]),
    );
    expectSame(await readTensors(await openSafetensors(bytesSource(reference))), params);
  });

  it("reads only the ranges it needs, also beyond 4 GiB", async () => {
    const far = 5 * 2 ** 30;
    const header = new TextEncoder().encode(
      JSON.stringify({
        big: { dtype: "U8", shape: [far], data_offsets: [0, far] },
        x: { dtype: "F32", shape: [2], data_offsets: [far, far + 8] },
      }),
    );
    const read: [number, number][] = [];
    const source: ByteSource = {
      size: 8 + header.length + far + 8,
      async read(start, end) {
        read.push([start, end]);
        const bytes = new Uint8Array(end - start);
        if (start === 0) new DataView(bytes.buffer).setBigUint64(0, BigInt(header.length), true);
        else if (start === 8) bytes.set(header);
        else bytes.set(new Uint8Array(Float32Array.of(1.5, -2).buffer));
        return bytes;
      },
    };
    const open = await openSafetensors(source);
    expect(await open.tensor("x")).toEqual(float32([2], [1.5, -2]));
    expect(open.info("big").shape).toEqual([far]);
    const start = 8 + header.length + far;
    expect(read).toEqual([
      [0, 8],
      [8, 8 + header.length],
      [start, start + 8],
    ]);
    expect(() => open.info("y")).toThrow(/no tensor "y"/);
  });

  it("keeps names that would reach a prototype as plain names", () => {
    const header = `{"__proto__":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"constructor":{"dtype":"U8","shape":[1],"data_offsets":[1,2]}}`;
    const { params } = parseSafetensors(file(header, 2));
    expect([...params.keys()]).toEqual(["__proto__", "constructor"]);
    expect(({} as Record<string, unknown>).dtype).toBeUndefined();
  });
});

describe("writing", () => {
  it("gives back what was written, for any names, types, shapes and metadata", () => {
    fc.assert(
      fc.property(
        arbitraryParams,
        fc.dictionary(fc.string(), fc.string({ unit: "binary" })),
        (params, notes) => {
          const metadata = new Map(Object.entries(notes));
          const result = parseSafetensors(writeSafetensors(params, metadata));
          expectSame(result.params, params);
          expect(result.metadata).toEqual(metadata);
        },
      ),
      { numRuns: 200 },
    );
  });

  it("gives the same bytes whatever the order, pads the header and aligns every tensor", async () => {
    await fc.assert(
      fc.asyncProperty(arbitraryParams, async (params) => {
        const bytes = writeSafetensors(params, new Map([["a", "b"]]));
        expect(writeSafetensors(new Map([...params].reverse()), new Map([["a", "b"]]))).toEqual(bytes);
        expect(Number(new DataView(bytes.buffer).getBigUint64(0, true)) % 8).toBe(0);
        const open = await openSafetensors(bytesSource(bytes));
        for (const name of open.names) {
          const { start, dtype } = open.info(name);
          expect(start % byteSize(dtype)).toBe(0);
        }
      }),
      { numRuns: 50 },
    );
    const sorted = await openSafetensors(
      bytesSource(writeSafetensors(new Map(["b", "a", "B"].map((n) => [n, float32([1], [0])])))),
    );
    expect(sorted.names).toEqual(["B", "a", "b"]);
  });

  it("writes views of larger buffers, and refuses names that could not be read back", () => {
    const view = new Float32Array(Float32Array.of(9, 1, 2, 9).buffer, 4, 2);
    expect(
      parseSafetensors(writeSafetensors(new Map([["v", tensor("float32", [2], view)]]))).params.get("v")
        ?.data,
    ).toEqual(Float32Array.of(1, 2));
    expect(() => writeSafetensors(new Map([["x".repeat(257), float32([1], [0])]]))).toThrow(
      /cannot write a tensor named/,
    );
    expect(() => writeSafetensors(new Map([["__metadata__", float32([1], [0])]]))).toThrow(/cannot write/);
  });
});

describe("the door", () => {
  const entry = (dtype: string, shape: string, begin: number | string, end: number | string): string =>
    `{"dtype":"${dtype}","shape":${shape},"data_offsets":[${begin},${end}]}`;
  const x = `"x":${entry("F32", "[1]", 0, 4)}`;

  const hostile: [string, Uint8Array, string][] = [
    ["a file too short for a length", new Uint8Array(7), "safetensors-truncated"],
    ["a header larger than 16 MiB", file("{}", 0, 2n ** 24n + 1n), "safetensors-header"],
    ["a header length near 2^64", file("{}", 0, 2n ** 64n - 1n), "safetensors-header"],
    ["a header beyond the end of the file", file("{}", 0, 3n), "safetensors-truncated"],
    ["an empty header", file("", 0), "safetensors-header"],
    ["a header that is not an object", file("[]", 0), "safetensors-header"],
    ["a header with leading blanks", file(` {${x}}`, 4), "safetensors-header"],
    ["broken JSON", file(`{${x}`, 4), "json-invalid"],
    ["text after the object", file(`{${x}}}`, 4), "json-invalid"],
    ["bytes that are not UTF-8", file(`{${x}}`, 4).with(10, 0xff), "json-invalid"],
    ["a name twice", file(`{${x},${x}}`, 4), "json-duplicate-key"],
    [
      "a name twice, once in escapes",
      file(`{${x},"\\u0078":${entry("F32", "[1]", 4, 8)}}`, 8),
      "json-duplicate-key",
    ],
    [
      "a field twice",
      file(`{"x":{"dtype":"F32","dtype":"U8","shape":[1],"data_offsets":[0,4]}}`, 4),
      "json-duplicate-key",
    ],
    ["metadata twice", file(`{"__metadata__":{},"__metadata__":{},${x}}`, 4), "json-duplicate-key"],
    ["metadata with a number", file(`{"__metadata__":{"a":1},${x}}`, 4), "safetensors-metadata"],
    ["metadata as a list", file(`{"__metadata__":[],${x}}`, 4), "safetensors-metadata"],
    ["an unknown dtype", file(`{"x":${entry("F4", "[1]", 0, 4)}}`, 4), "safetensors-dtype"],
    ["a dtype of the prototype", file(`{"x":${entry("constructor", "[1]", 0, 4)}}`, 4), "safetensors-dtype"],
    ["no dtype", file(`{"x":{"shape":[1],"data_offsets":[0,4]}}`, 4), "safetensors-dtype"],
    ["an entry that is null", file(`{"x":null}`, 0), "safetensors-header"],
    ["a negative dimension", file(`{"x":${entry("F32", "[-1]", 0, 4)}}`, 4), "safetensors-shape"],
    ["a fractional dimension", file(`{"x":${entry("F32", "[0.5]", 0, 4)}}`, 4), "safetensors-shape"],
    [
      "a dimension beyond 2^53",
      file(`{"x":${entry("F32", "[9007199254740993]", 0, 4)}}`, 4),
      "safetensors-shape",
    ],
    ["a shape that is text", file(`{"x":${entry("F32", '"1"', 0, 4)}}`, 4), "safetensors-shape"],
    [
      "a shape whose bytes overflow",
      file(`{"x":${entry("F32", "[4294967296,4294967296]", 0, 0)}}`, 0),
      "safetensors-offsets",
    ],
    [
      "an overflow hidden behind a zero",
      file(`{"x":${entry("F32", "[0,4294967296,4294967296]", 0, 0)}}`, 0),
      "safetensors-offsets",
    ],
    ["offsets in reverse", file(`{"x":${entry("F32", "[1]", 4, 0)}}`, 4), "safetensors-offsets"],
    [
      "three offsets",
      file(`{"x":{"dtype":"U8","shape":[1],"data_offsets":[0,1,1]}}`, 1),
      "safetensors-offsets",
    ],
    [
      "offsets that do not fit the shape",
      file(`{"x":${entry("F32", "[1]", 0, 8)}}`, 8),
      "safetensors-offsets",
    ],
    ["a gap at the start", file(`{"x":${entry("F32", "[1]", 4, 8)}}`, 8), "safetensors-offsets"],
    ["a gap between tensors", file(`{${x},"y":${entry("U8", "[1]", 5, 6)}}`, 6), "safetensors-offsets"],
    ["an overlap", file(`{${x},"y":${entry("U8", "[2]", 3, 5)}}`, 5), "safetensors-offsets"],
    [
      "two tensors on the same bytes",
      file(`{${x},"y":${entry("F32", "[1]", 0, 4)}}`, 4),
      "safetensors-offsets",
    ],
    ["trailing bytes", file(`{${x}}`, 5), "safetensors-offsets"],
    ["data cut short", file(`{${x}}`, 3), "safetensors-truncated"],
    [
      "a name of 257 characters",
      file(`{"${"n".repeat(257)}":${entry("U8", "[1]", 0, 1)}}`, 1),
      "safetensors-name",
    ],
  ];

  it.each(hostile)("refuses %s", (_, bytes, code) => {
    expect(codeOf(bytes)).toBe(code);
  });

  it("accepts the edges: an empty file, blanks after the header, entries in any order, names of 256 characters", () => {
    expect(parseSafetensors(file("{}", 0)).params.size).toBe(0);
    expect(parseSafetensors(file(`{${x}}     `, 4)).params.size).toBe(1);
    const swapped = file(`{"b":${entry("U8", "[1]", 4, 5)},${x},"e":${entry("F32", "[0,3]", 4, 4)}}`, 5);
    expect([...parseSafetensors(swapped).params.keys()]).toEqual(["x", "e", "b"]);
    expect(codeOf(file(`{"${"n".repeat(256)}":${entry("U8", "[1]", 0, 1)}}`, 1))).toBeUndefined();
  });

  it("survives deep nesting and names the file and the tensor in its message", () => {
    expect(codeOf(file(`{"x":${"[".repeat(200_000)}${"]".repeat(200_000)}}`, 0))).toBe("safetensors-header");
    expect(() => parseSafetensors(file(`{"x":${entry("F4", "[1]", 0, 4)}}`, 4), "model.safetensors")).toThrow(
      /^model.safetensors: "x" has dtype "F4", expected one of F64 F32 F16/,
    );
  });

  it("gives tensors of sound size: reads or refuses by name what is damaged", () => {
    const headerEnd = 8 + Number(new DataView(reference.buffer, reference.byteOffset).getBigUint64(0, true));
    const random = stream({ seed: 11, purpose: "mutations" });
    const snippets = [
      `"__proto__"`,
      "1e308",
      "-1",
      "null",
      "{}",
      "[]",
      `"F64"`,
      "99999999999999999999",
      ",",
    ].map((text) => new TextEncoder().encode(text));
    const times = Number(process.env.FUZZ_TIMES ?? 4000);
    let refused = 0;
    for (let i = 0; i < times; i++) {
      let bytes = Uint8Array.from(reference);
      for (let edits = 1 + random.integer(3); edits > 0; edits--) {
        const at = random.integer(Math.min(headerEnd, bytes.length - 1));
        const kind = random.integer(4);
        if (kind === 0) bytes[at] = random.integer(256);
        else if (kind === 1) bytes[at] = (bytes[at] ?? 0) ^ (1 << random.integer(8));
        else if (kind === 2)
          bytes = bytes.slice(0, bytes.length - random.integer(Math.min(400, bytes.length - 1)));
        else
          bytes.set(
            (snippets[random.integer(snippets.length)] ?? new Uint8Array()).subarray(0, bytes.length - at),
            at,
          );
      }
      try {
        const { params } = parseSafetensors(bytes);
        let total = 0;
        for (const { data } of params.values()) total += data.byteLength;
        expect(total).toBeLessThanOrEqual(bytes.length);
      } catch (error) {
        if (!(error instanceof TributaryError)) throw error;
        expect(error.code).toMatch(/^(safetensors|json)-/);
        expect(error.message.length).toBeLessThan(500);
        refused++;
      }
    }
    expect(refused).toBeGreaterThan(times / 2);
  });
});

describe("checkpoints", () => {
  const one = writeSafetensors(new Map([["a", float32([1], [1])]]), new Map([["format", "pt"]]));
  const two = writeSafetensors(
    new Map([
      ["b", float32([1], [2])],
      ["c", float32([1], [3])],
    ]),
  );
  const index = (map: Record<string, string>): Uint8Array =>
    new TextEncoder().encode(JSON.stringify({ metadata: {}, weight_map: map }));
  const folder = (files: Record<string, Uint8Array>): Map<string, ByteSource> =>
    new Map(Object.entries(files).map(([name, bytes]) => [name, bytesSource(bytes)]));
  const all = { a: "1.safetensors", b: "2.safetensors", c: "2.safetensors" };

  it("opens a single file or the shards of an index", async () => {
    const single = await openCheckpoint(folder({ "model.safetensors": one }));
    expect(single.names).toEqual(["a"]);
    const sharded = await openCheckpoint(
      folder({ "model.safetensors.index.json": index(all), "1.safetensors": one, "2.safetensors": two }),
    );
    expect(sharded.names).toEqual(["a", "b", "c"]);
    expect((await sharded.tensor("c")).data).toEqual(Float32Array.of(3));
    expect(sharded.info("b").dtype).toBe("float32");
    expect(sharded.metadata.get("format")).toBe("pt");
    expect(() => sharded.info("d")).toThrow(/no tensor "d"/);
  });

  it.each([
    ["no checkpoint", { "config.json": one }, /no model.safetensors and no .*; the folder holds config.json/],
    [
      "an absent shard",
      { "model.safetensors.index.json": index(all), "1.safetensors": one },
      /lists "2.safetensors"/,
    ],
    [
      "a tensor that its shard lacks",
      {
        "model.safetensors.index.json": index({ ...all, d: "1.safetensors" }),
        "1.safetensors": one,
        "2.safetensors": two,
      },
      /1.safetensors lacks d/,
    ],
    [
      "an unlisted tensor",
      {
        "model.safetensors.index.json": index({ a: "1.safetensors", b: "2.safetensors" }),
        "1.safetensors": one,
        "2.safetensors": two,
      },
      /2.safetensors holds unlisted c/,
    ],
    [
      "a path out of the folder",
      { "model.safetensors.index.json": index({ a: "../1.safetensors" }), "1.safetensors": one },
      /lists "..\/1.safetensors"/,
    ],
    [
      "an index without a map",
      { "model.safetensors.index.json": new TextEncoder().encode("{}") },
      /weight_map is not an object/,
    ],
  ])("refuses %s", async (_, files, message) => {
    await expect(openCheckpoint(folder(files as Record<string, Uint8Array>))).rejects.toThrow(message);
  });

  it("refuses weights in pickles with the command that converts them", async () => {
    const folder = new Map([["pytorch_model-00001-of-00002.bin", bytesSource(new Uint8Array(4))]]);
    await expect(openCheckpoint(folder)).rejects.toMatchObject({ code: "pickled-weights" });
    await expect(openCheckpoint(folder)).rejects.toThrow(
      /is a program for Python and is not read; .*\n {2}python -c ".*glob\('pytorch_model\*\.bin'\).*'model\.safetensors'/,
    );
  });
});
