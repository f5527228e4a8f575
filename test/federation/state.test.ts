import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { packState, unpackState } from "../../src/federation/state.ts";
import type { StateTree } from "../../src/federation/strategy.ts";
import type { Tensor } from "../../src/tensor/tensor.ts";

const tensor = fc
  .array(fc.float({ noNaN: true }), { maxLength: 6 })
  .map((values): Tensor => ({ dtype: "float32", shape: [values.length], data: Float32Array.from(values) }));
const params = fc
  .uniqueArray(fc.tuple(fc.string(), tensor), { selector: ([name]) => name, maxLength: 4 })
  .map((entries) => new Map(entries));
const key = fc.string().filter((text) => !text.startsWith("$"));
const { tree } = fc.letrec<{ tree: StateTree }>((tie) => ({
  tree: fc.oneof(
    { maxDepth: 4 },
    params,
    fc.double(),
    fc.string(),
    fc.boolean(),
    fc.constant(null),
    fc.array(tie("tree"), { maxLength: 3 }),
    fc
      .uniqueArray(fc.tuple(key, tie("tree")), { selector: ([name]) => name, maxLength: 3 })
      .map((entries) => Object.fromEntries(entries)),
  ),
}));

describe("packState", () => {
  it("is undone by unpackState after the JSON was written and read", () => {
    fc.assert(
      fc.property(tree, (state) => {
        const { json, params } = packState(state);
        expect(unpackState({ json: JSON.parse(JSON.stringify(json)), params })).toEqual(state);
      }),
    );
  });

  it("gives the same JSON and tensors whatever the order of names and keys", () => {
    const [x, y] = [1, 2].map(
      (value): Tensor => ({ dtype: "float32", shape: [1], data: Float32Array.of(value) }),
    );
    if (!x || !y) throw new Error("two tensors");
    const one = packState({
      adapter: new Map([
        ["a", x],
        ["b", y],
      ]),
      before: new Map([["c", x]]),
    });
    const other = packState({
      before: new Map([["c", x]]),
      adapter: new Map([
        ["b", y],
        ["a", x],
      ]),
    });
    expect(other).toEqual(one);
    expect(JSON.stringify(other.json)).toBe(JSON.stringify(one.json));
  });

  it("keeps NaN, infinities and -0, which JSON has not", () => {
    const numbers = [Number.NaN, Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY, -0];
    const restored = unpackState(JSON.parse(JSON.stringify(packState(numbers))));
    expect(restored).toEqual(numbers);
  });

  it("refuses keys that it needs itself", () => {
    expect(() => packState({ $params: 1 })).toThrow(/"\$params" is reserved/);
  });

  it("names the tensor that a damaged file lacks", () => {
    const { json } = packState({
      w: new Map([["a", { dtype: "float32", shape: [1], data: new Float32Array(1) }]]),
    });
    expect(() => unpackState({ json, params: new Map() })).toThrow(
      expect.objectContaining({ code: "state-damaged", message: expect.stringContaining("0/a") }),
    );
  });
});
