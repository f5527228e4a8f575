import { execFileSync } from "node:child_process";
import { describe, expect, test } from "vitest";
import { runtime } from "#ort";
import { encodeOnnx } from "../../src/graph/onnx.ts";
import { add, cast, exp, matMul, mul, reduceSum, softmax } from "../../src/graph/ops.ts";
import { input } from "../../src/graph/value.ts";
import { type Params, select } from "../../src/tensor/params.ts";
import { float32, type Tensor, tensor } from "../../src/tensor/tensor.ts";

const w = input("w", "float32", [3, 3]);
const x = input("x", "float32", ["batch", 3]);
const bytes = encodeOnnx({
  outputs: new Map([
    ["next", add(w, mul(w, 0.5))],
    ["y", matMul(x, w)],
  ]),
});
const feeds: Params = new Map([
  ["w", float32([3, 3], [1, 0, 0, 0, 1, 0, 0, 0, 1])],
  ["x", float32([2, 3], [1, 2, 3, 4, 5, 6])],
]);

describe("a session", () => {
  test("names its inputs and outputs, its device and its threads", async () => {
    const session = await runtime.openSession(bytes);
    expect([...session.inputNames].sort()).toEqual(["w", "x"]);
    expect([...session.outputNames].sort()).toEqual(["next", "y"]);
    expect([session.device, session.threads]).toEqual(["cpu", 1]);
    await session.dispose();
  });

  test("names the feeds that are missing, and ignores surplus ones", async () => {
    const session = await runtime.openSession(bytes);
    await expect(session.run(select(feeds, (name) => name === "x"))).rejects.toMatchObject({
      code: "missing-feed",
      message: expect.stringContaining("1 graph inputs: w"),
    });
    const results = await session.run(new Map([...feeds, ["surplus", float32([1], [0])]]));
    expect([...(results.get("y")?.data ?? [])]).toEqual([1, 2, 3, 4, 5, 6]);
    await session.dispose();
  });

  test("takes its outputs as feeds, and mutates no feed", async () => {
    const session = await runtime.openSession(bytes);
    let current = feeds;
    for (let step = 0; step < 3; step++) {
      const results = await session.run(current);
      current = new Map([...current, ["w", results.get("next") ?? float32([0], [])]]);
    }
    expect([...(current.get("w")?.data ?? [])]).toEqual([3.375, 0, 0, 0, 3.375, 0, 0, 0, 3.375]);
    expect([...(feeds.get("w")?.data ?? [])]).toEqual([1, 0, 0, 0, 1, 0, 0, 0, 1]);
    await session.dispose();
  });

  test("earlier results stay as they were when it runs again", async () => {
    const session = await runtime.openSession(bytes);
    const first = (await session.run(feeds)).get("y");
    const copy = first?.data.slice();
    await session.run(new Map([...feeds, ["x", float32([2, 3], [9, 9, 9, 9, 9, 9])]]));
    await session.run(new Map([...feeds, ["x", float32([1, 3], [7, 7, 7])]]));
    expect(first?.data).toEqual(copy);
    await session.dispose();
  });

  test("carries every host dtype that ONNX Runtime has", async () => {
    const samples: readonly Tensor[] = [
      tensor("float64", [2], Float64Array.of(0.1, -2)),
      tensor("float16", [2], Uint16Array.of(0x3c00, 0xc000)),
      tensor("int64", [2], BigInt64Array.of(-1n, 2n ** 60n)),
      tensor("int32", [2], Int32Array.of(-1, 7)),
      tensor("uint8", [2], Uint8Array.of(1, 255)),
      tensor("bool", [2], Uint8Array.of(1, 0)),
    ];
    const values = samples.map(({ dtype }, i) => input(`x${i}`, dtype, [2]));
    const session = await runtime.openSession(
      encodeOnnx({ outputs: new Map(values.map((value, i) => [`y${i}`, value])) }),
    );
    const results = await session.run(new Map(samples.map((sample, i) => [`x${i}`, sample])));
    samples.forEach((sample, i) => {
      expect(results.get(`y${i}`)).toEqual(sample);
    });
    await session.dispose();
  });

  test("refuses a dtype that the runtime has not", async () => {
    const y = cast(input("x", "float32", [1]), "float64");
    const session = await runtime.openSession(encodeOnnx({ outputs: new Map([["y", y]]) }));
    await expect(
      session.run(new Map([["x", tensor("float8e4m3", [1], Uint8Array.of(1))]])),
    ).rejects.toMatchObject({ code: "dtype" });
    await session.dispose();
  });

  test("is not opened on a device that the platform has not", async () => {
    await expect(runtime.openSession(bytes, { device: "wasm" })).rejects.toMatchObject({
      code: "device-absent",
    });
  });
});

const wide = 192;
const a = input("a", "float32", ["n", wide]);
const b = input("b", "float32", [wide, wide]);
const program = encodeOnnx({
  outputs: new Map([
    ["y", reduceSum(exp(softmax(matMul(matMul(a, b, { transB: true }), b))), { axes: [1] })],
  ]),
});
const wave = (rows: number): Tensor =>
  float32(
    [rows, wide],
    Float32Array.from({ length: rows * wide }, (_, i) => Math.sin(i * 0.37) / 4),
  );

describe("repeatability", () => {
  const large: Params = new Map([
    ["a", wave(64)],
    ["b", wave(wide)],
  ]);

  test("one thread gives identical bytes over runs and sessions", async () => {
    const runs: Params[] = [];
    for (let i = 0; i < 2; i++) {
      const session = await runtime.openSession(program, { threads: 1 });
      runs.push(await session.run(large), await session.run(large));
      await session.dispose();
    }
    for (const results of runs) expect(results.get("y")?.data).toEqual(runs[0]?.get("y")?.data);
  });

  test("one thread gives identical bytes over processes", () => {
    const script = `
      import { readFileSync } from "node:fs";
      import { InferenceSession, Tensor } from "onnxruntime-node";
      const { graph, a, b } = JSON.parse(readFileSync(0, "utf8"));
      const session = await InferenceSession.create(Buffer.from(graph, "base64"), { intraOpNumThreads: 1 });
      const feed = (numbers) => new Tensor("float32", Float32Array.from(numbers), [numbers.length / ${wide}, ${wide}]);
      const { y } = await session.run({ a: feed(a), b: feed(b) });
      process.stdout.write(Buffer.from(y.data.buffer, y.data.byteOffset, y.data.byteLength).toString("hex"));
    `;
    const request = JSON.stringify({
      graph: Buffer.from(program).toString("base64"),
      a: Array.from(wave(4).data, Number),
      b: Array.from(wave(wide).data, Number),
    });
    const once = (): string =>
      execFileSync(process.execPath, ["--input-type=module", "-e", script], {
        encoding: "utf8",
        input: request,
      });
    const hex = once();
    expect(hex).toHaveLength(4 * 8);
    expect(once()).toBe(hex);
  });

  test("two threads agree with one to rounding", async () => {
    const results: (Tensor | undefined)[] = [];
    for (const threads of [1, 2]) {
      const session = await runtime.openSession(program, { threads });
      results.push((await session.run(large)).get("y"));
      await session.dispose();
    }
    results[0]?.data.forEach((value, i) => {
      expect(Number(results[1]?.data[i]) / Number(value)).toBeCloseTo(1, 6);
    });
  });
});
