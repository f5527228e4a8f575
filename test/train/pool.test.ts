import { getEventListeners } from "node:events";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { encodeOnnx } from "../../src/graph/onnx.ts";
import { matMul } from "../../src/graph/ops.ts";
import { input } from "../../src/graph/value.ts";
import { float32 } from "../../src/tensor/tensor.ts";
import { openPool, type Pool } from "../../src/train/pool.node.ts";

/** y = x w, with w [3, 2] as the base weights. */
const product = encodeOnnx({
  outputs: new Map([["y", matMul(input("x", "float32", ["batch", 3]), input("w", "float32", [3, 2]))]]),
});
const w = float32([3, 2], [1, 2, 3, 4, 5, 6]);
const task = (value: number) => ({
  graph: "product",
  feeds: new Map(),
  batches: [new Map([["x", float32([1, 3], [value, 0, 0])]])],
});

let pool: Pool;
beforeAll(async () => {
  pool = await openPool({
    base: { kind: "params", params: new Map([["w", w]]) },
    plan: { workers: 1, threads: 1, why: "a test" },
  });
  pool.register("product", product);
});
afterAll(() => pool.close());

describe("a pool", () => {
  it("runs tasks in turn and leaves no listener on their signal", async () => {
    const { signal } = new AbortController();
    const waiting = Array.from({ length: 8 }, (_, i) => pool.forward(task(i), { signal }));
    expect(getEventListeners(signal, "abort")).toHaveLength(8);
    const outputs = await Promise.all(waiting);
    expect(outputs.map(([batch]) => [...(batch?.get("y")?.data ?? [])])).toEqual(
      outputs.map((_, i) => [i, 2 * i]),
    );
    expect(getEventListeners(signal, "abort")).toHaveLength(0);
  });

  it("gives up the tasks of an aborted signal, those that wait and the one under way, and goes on with others", async () => {
    const controller = new AbortController();
    const { signal } = controller;
    const given = [0, 1, 2].map((value) => pool.forward(task(value), { signal }));
    const other = pool.forward(task(7));
    controller.abort(new Error("enough"));
    const ends = await Promise.allSettled(given);
    expect(ends.slice(1)).toMatchObject(
      [1, 2].map(() => ({ status: "rejected", reason: { message: "enough" } })),
    );
    expect([...((await other)[0]?.get("y")?.data ?? [])]).toEqual([7, 14]);
    expect(getEventListeners(signal, "abort")).toHaveLength(0);
    await expect(pool.forward(task(1), { signal })).rejects.toThrow("enough");
  });

  it("ends the tasks that wait and the one under way when it is closed", async () => {
    const closing = await openPool({
      base: { kind: "params", params: new Map([["w", w]]) },
      plan: { workers: 1, threads: 1, why: "a test" },
    });
    closing.register("product", product);
    const [batch = new Map()] = task(1).batches;
    const long = closing.forward({ ...task(1), batches: Array.from({ length: 100_000 }, () => batch) });
    const ends = Promise.allSettled([long, closing.forward(task(2))]);
    await closing.close();
    expect(await ends).toMatchObject([
      { status: "rejected", reason: { code: "closed" } },
      { status: "rejected", reason: { code: "closed" } },
    ]);
  });
});
