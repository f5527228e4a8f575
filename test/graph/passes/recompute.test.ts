import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { runtime } from "#ort";
import { adaptedScope, adapterBase, startParams } from "../../../src/adapters/adapter.ts";
import { lora } from "../../../src/adapters/lora.ts";
import { gradients } from "../../../src/graph/gradients.ts";
import {
  add,
  exp,
  matMul,
  mul,
  reduceSum,
  reshape,
  simplifiedLayerNormalization,
  softmax,
  tanh,
  transpose,
} from "../../../src/graph/ops.ts";
import { type RecomputeLevel, recomputedGradients } from "../../../src/graph/passes/recompute.ts";
import { simplify } from "../../../src/graph/passes/simplify.ts";
import { type Dim, factorsOf } from "../../../src/graph/shape.ts";
import { input, isOp, topological, type Value } from "../../../src/graph/value.ts";
import { modelInputs, taskLoss } from "../../../src/models/task.ts";
import { adamw } from "../../../src/optim/adam.ts";
import { float32, tensor } from "../../../src/tensor/tensor.ts";
import { initialState, stepOutputs, traceStep } from "../../../src/train/step.ts";
import { bertJson, familyJsons, llamaJson, tinyModel } from "../../models/tiny.ts";
import { type Array64, array64, evaluate } from "../evaluator.ts";

const levels = ["cheap", "layers"] as const;
const WIDTH = 6;

const real = (name: string, ...shape: readonly Dim[]): Value => input(name, "float64", shape);
const weight = (name: string, out = WIDTH, from = WIDTH): Value => real(name, out, from);

/** A random residual stack: each layer adds one of some branches to what came before. */
function stack(branches: readonly number[]): { readonly scalar: Value; readonly wrt: readonly Value[] } {
  const x = real("x", "batch", "sequence", WIDTH);
  const wrt: Value[] = [];
  const linear = (h: Value, name: string, trained: boolean): Value => {
    const w = weight(name);
    if (trained) wrt.push(w);
    return matMul(h, w, { transB: true });
  };
  const states = branches.reduce(
    (h, branch, i) => {
      const normed = simplifiedLayerNormalization(h, real(`norm${i}`, WIDTH), 1e-3);
      const first = linear(normed, `a${i}`, branch % 2 === 0);
      if (branch < 2) return add(h, linear(mul(tanh(first), linear(normed, `b${i}`, false)), `c${i}`, true));
      if (branch < 4) {
        const scores = matMul(first, normed, { transB: true, alpha: 0.4 });
        return add(h, matMul(softmax(scores), first));
      }
      const turned = transpose(reshape(first, ["batch", "sequence", 2, 3]), [0, 1, 3, 2]);
      return add(h, reshape(exp(mul(turned, 0.3)), ["batch", "sequence", WIDTH]));
    },
    matMul(x, weight("in")),
  );
  return { scalar: reduceSum(mul(states, states)), wrt: [...new Set(wrt)] };
}

function feedsOf(outputs: readonly Value[], lengths: Readonly<Record<string, number>>): Map<string, Array64> {
  const feeds = new Map<string, Array64>();
  for (const node of topological(outputs)) {
    for (const { name, shape } of node.inputs) {
      if (name === undefined || feeds.has(name)) continue;
      const size = shape.map((dim) => (typeof dim === "number" ? dim : (lengths[dim] ?? 1)));
      const count = size.reduce((product, n) => product * n, 1);
      const seed = name.length + (name.codePointAt(1) ?? 0);
      feeds.set(
        name,
        array64(
          size,
          Float64Array.from({ length: count }, (_, i) => Math.sin((i + 1) * (seed + 0.7))),
        ),
      );
    }
  }
  return feeds;
}

/** Bytes of the largest set of values that are alive at once, in the order that the graph is written in. */
function peak(outputs: readonly Value[], lengths: Readonly<Record<string, number>>): number {
  const order = topological(outputs);
  const size = ({ shape }: Value): number =>
    shape
      .map(factorsOf)
      .reduce(
        (all, { coefficient, symbols }) =>
          symbols.reduce((product, symbol) => product * (lengths[symbol] ?? 1), all * coefficient),
        4,
      );
  const owner = new Map<Value, Value>();
  const own = (value: Value): Value => owner.get(value) ?? value;
  for (const node of order) {
    const [x] = node.inputs;
    const [y] = node.outputs;
    if (x && y && (isOp(node, "Reshape") || isOp(node, "After"))) owner.set(y, own(x));
  }
  const last = new Map<Value, number>();
  order.forEach((node, i) => {
    for (const value of node.inputs) last.set(own(value), i);
  });
  const ends = new Map<number, Value[]>();
  for (const [value, i] of last) ends.set(i, [...(ends.get(i) ?? []), value]);
  let [now, most] = [0, 0];
  order.forEach((node, i) => {
    for (const value of node.outputs) if (own(value) === value && last.has(value)) now += size(value);
    most = Math.max(most, now);
    for (const value of ends.get(i) ?? []) if (value.node) now -= size(value);
  });
  return most;
}

describe("the gradients of random residual stacks", () => {
  const lengths = { batch: 2, sequence: 3 };

  test.each(levels)("are bit for bit those without recomputation: %s", (level) => {
    fc.assert(
      fc.property(fc.array(fc.nat({ max: 5 }), { minLength: 1, maxLength: 5 }), (branches) => {
        const { scalar, wrt } = stack(branches);
        const plain = gradients(scalar, wrt);
        const again = simplify(recomputedGradients(scalar, wrt, level));
        const feeds = feedsOf([scalar], lengths);
        const x = real("x", "batch", "sequence", WIDTH);
        expect(evaluate(again, [x], feeds)).toEqual(evaluate(simplify(plain), [x], feeds));
      }),
      { numRuns: 25 },
    );
  });

  test("keep less, the more layers there are", () => {
    const shares = [4, 16].map((layers) => {
      const { scalar, wrt } = stack(Array.from({ length: layers }, (_, i) => (i % 2 === 0 ? 0 : 2)));
      const long = { batch: 4, sequence: 256 };
      return (
        peak(simplify(recomputedGradients(scalar, wrt, "layers")), long) /
        peak(simplify(gradients(scalar, wrt)), long)
      );
    });
    expect(shares[0]).toBeLessThan(0.9);
    expect(shares[1]).toBeLessThan(0.5);
  });
});

const families = [
  ["llama", llamaJson],
  ["gemma2", familyJsons.gemma2 ?? {}],
  ["bert", bertJson],
] as const;

describe.each(families)("a LoRA step of a tiny %s", (_, json) => {
  const deep = { ...json, num_hidden_layers: 3, n_layer: 3, n_layers: 3 };
  const { taskModel, weights } = tinyModel(deep);
  const attached = lora({ rank: 2, alpha: 4, target: "all-linear" }).attach(adapterBase(taskModel));
  const start = startParams([attached], { seed: 3, base: weights });
  const optimizer = adamw({ learningRate: 1e-2 });
  const traced = (recompute?: RecomputeLevel) => {
    const scope = adaptedScope(adapterBase(taskModel), [attached]);
    const loss = taskLoss(taskModel, scope, modelInputs(taskModel.model));
    const trainable = new Map([...start.keys()].map((name) => [name, scope.get(name)] as const));
    return { loss, trainable, optimizer, recompute };
  };
  const ids = (count: number, limit: number): BigInt64Array =>
    BigInt64Array.from({ length: count }, (_, i) => BigInt((7 * i + 3) % limit));
  const [B, T] = [2, 7];
  const labels = taskModel.task === "causal-lm" ? 4 : B;
  const feeds = new Map([
    ...weights,
    ...[...start].map(
      ([name, { shape, data }]) =>
        [
          name,
          float32(
            shape,
            Array.from({ length: data.length }, (_, i) => Number(data[i]) + 0.1 * Math.sin(i)),
          ),
        ] as const,
    ),
    ...initialState(optimizer, start),
    ...Object.entries(optimizer.scalars(1)).map(
      ([name, value]) => [`scalar/${name}`, tensor("float32", [], Float32Array.of(value))] as const,
    ),
    ["input_ids", tensor("int64", [B, T], ids(B * T, 29))] as const,
    ["attention_mask", tensor("int64", [B, T], new BigInt64Array(B * T).fill(1n))] as const,
    ["label_positions", tensor("int64", [labels], ids(labels, B * T))] as const,
    ["labels", tensor("int64", [labels], ids(labels, 3))] as const,
  ]);
  const run = async (recompute?: RecomputeLevel) => {
    const session = await runtime.openSession(traceStep(traced(recompute)).step);
    try {
      return await session.run(feeds);
    } finally {
      await session.dispose();
    }
  };

  test.each(levels)("gives the same numbers and keeps less: %s", async (level) => {
    const [plain, again] = [await run(), await run(level)];
    for (const [name, { data }] of plain) {
      // ONNX Runtime fuses what one reader alone reads, so that sums may be rounded otherwise.
      const got = again.get(name)?.data ?? [];
      const most = Array.from({ length: data.length }, (_, i) => Math.abs(Number(data[i]) - Number(got[i])));
      expect(Math.max(...most), name).toBeLessThanOrEqual(1e-6);
    }
    const long = { batch: 4, sequence: 200, labels: 4 };
    expect(peak([...stepOutputs(traced(level)).values()], long)).toBeLessThan(
      peak([...stepOutputs(traced()).values()], long),
    );
  });
});
