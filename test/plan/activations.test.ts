import { describe, expect, it } from "vitest";
import { after } from "../../src/graph/ops/after.ts";
import { add, cast, exp, matMul, mul, reduceSum, reshape, softmax } from "../../src/graph/ops.ts";
import { input } from "../../src/graph/value.ts";
import { peakActivations } from "../../src/plan/activations.ts";

const lengths = new Map([["batch", 10]]);
const x = input("x", "float32", ["batch", 4]);
/** Bytes of a value like x. */
const X = 10 * 4 * 4;

describe("the most bytes that values take at one time", () => {
  it("are results and what is still to be read, without the inputs", () => {
    const y = softmax(x);
    expect(peakActivations([y], lengths)).toBe(X);
    expect(peakActivations([softmax(y)], lengths)).toBe(2 * X);
    expect(peakActivations([softmax(softmax(y))], lengths)).toBe(2 * X);
    expect(peakActivations([add(y, softmax(softmax(y)))], lengths)).toBe(3 * X);
  });

  it("do not count what is written over its operand, or views of it", () => {
    expect(peakActivations([exp(exp(softmax(x)))], lengths)).toBe(X);
    expect(peakActivations([reshape(softmax(x), ["batch", 2, 2])], lengths)).toBe(X);
    expect(peakActivations([after(softmax(x), x)], lengths)).toBe(X);
    // What is read again later cannot be written over.
    const y = softmax(x);
    expect(peakActivations([mul(exp(y), y)], lengths)).toBe(2 * X);
  });

  it("have the size of their dtypes, and that of a copy where bfloat16 is widened", () => {
    const held = input("held", "bfloat16", [8, 4]);
    expect(peakActivations([cast(input("half", "float16", [8, 4]), "float32")], lengths)).toBe(128);
    expect(peakActivations([cast(held, "float32")], lengths)).toBe(128 + 64);
    const y = matMul(x, cast(held, "float32"), { transB: true }); // [batch, 8]
    expect(peakActivations([reduceSum(y)], lengths)).toBe(10 * 8 * 4 + 128);
  });

  it("need a length for each symbol", () => {
    expect(() => peakActivations([exp(x)], new Map())).toThrow('no length is given for "batch"');
  });
});
