import { gradients } from "../../src/graph/gradients.ts";
import { encodeOnnx } from "../../src/graph/onnx.ts";
import {
  add,
  div,
  gather,
  gatherElements,
  gelu,
  lessOrEqual,
  logSoftmax,
  matMul,
  max,
  mul,
  neg,
  range,
  reduceSum,
  reshape,
  rotaryEmbedding,
  silu,
  simplifiedLayerNormalization,
  softmax,
  sqrt,
  squaredNorm,
  sub,
  transpose,
  where,
} from "../../src/graph/ops.ts";
import { simplify } from "../../src/graph/passes/simplify.ts";
import { input, type Value } from "../../src/graph/value.ts";
import type { Params } from "../../src/tensor/params.ts";
import { float32, type Tensor, tensor } from "../../src/tensor/tensor.ts";
import { uniforms } from "../graph/cases.ts";

const [B, T, D, H, d, F, V, rank] = ["batch", "sequence", 16, 2, 8, 40, 50, 4] as const;

const base = {
  embedding: [V, D],
  inputNorm: [D],
  q: [D, D],
  k: [D, D],
  v: [D, D],
  o: [D, D],
  postNorm: [D],
  up: [F, D],
  down: [D, F],
  cosine: [12, d / 2],
  sine: [12, d / 2],
} as const;

const adapter = {
  "q.lora_A": [rank, D],
  "q.lora_B": [D, rank],
  "v.lora_A": [rank, D],
  "v.lora_B": [D, rank],
} as const;

const adapterNames = Object.keys(adapter);

/** One training step of a decoder block with low-rank adapters: loss, gradient norm, clipping at 1, and Adam. */
export function loraStepOutputs(): ReadonlyMap<string, Value> {
  const weight = (name: keyof typeof base | keyof typeof adapter, shape: readonly number[]): Value =>
    input(name, "float32", shape);
  const w = (name: keyof typeof base): Value => weight(name, base[name]);
  const a = (name: keyof typeof adapter): Value => weight(name, adapter[name]);
  const linear = (x: Value, name: keyof typeof base): Value => matMul(x, w(name), { transB: true });
  const low = (x: Value, down: Value, up: Value): Value =>
    mul(matMul(matMul(x, down, { transB: true }), up, { transB: true }), 2);
  const heads = (x: Value): Value => transpose(reshape(x, [B, T, H, d]), [0, 2, 1, 3]);

  const ids = input("ids", "int64", [B, T]);
  const positions = input("positions", "int64", [B, T]);
  const labels = input("labels", "int64", [B, T]);
  const x = gather(w("embedding"), ids);
  const n = simplifiedLayerNormalization(x, w("inputNorm"), 1e-5);
  const rope = (value: Value): Value => rotaryEmbedding(value, positions, w("cosine"), w("sine"));
  const q = rope(heads(add(linear(n, "q"), low(n, a("q.lora_A"), a("q.lora_B")))));
  const k = rope(heads(linear(n, "k")));
  const v = heads(add(linear(n, "v"), low(n, a("v.lora_A"), a("v.lora_B"))));
  const visible = lessOrEqual(range(T), reshape(range(T), [T, 1]));
  const scores = add(matMul(q, k, { transB: true, alpha: d ** -0.5 }), where(visible, 0, -1e30));
  const mixed = reshape(transpose(matMul(softmax(scores), v), [0, 2, 1, 3]), [B, T, D]);
  const h = add(x, linear(mixed, "o"));
  const up = linear(simplifiedLayerNormalization(h, w("postNorm"), 1e-5), "up");
  const y = add(h, linear(add(silu(up), gelu(up)), "down"));
  const logits = reshape(linear(y, "embedding"), [`${B}*${T}`, V]);
  const chosen = gatherElements(logSoftmax(logits), reshape(labels, [`${B}*${T}`, 1]), 1);
  const loss = div(neg(reduceSum(chosen)), 12);

  const parameters = (Object.keys(adapter) as (keyof typeof adapter)[]).map(a);
  const grads = gradients(loss, parameters);
  const norm = sqrt(grads.map((g) => squaredNorm(g)).reduce((sum, square) => add(sum, square)));
  const shrink = div(1, max(norm, 1));
  const outputs = new Map<string, Value>([
    ["loss", loss],
    ["norm", norm],
  ]);
  parameters.forEach((parameter, i) => {
    const name = adapterNames[i] ?? "";
    const g = mul(grads[i] ?? loss, shrink);
    const m = add(mul(input(`m.${name}`, "float32", parameter.shape), 0.9), mul(g, 0.1));
    const s = add(mul(input(`s.${name}`, "float32", parameter.shape), 0.999), mul(mul(g, g), 0.001));
    outputs.set(`next.${name}`, sub(parameter, mul(div(m, add(sqrt(s), 1e-3)), 0.05)));
    outputs.set(`next.m.${name}`, m);
    outputs.set(`next.s.${name}`, s);
  });
  return outputs;
}

/** The ONNX bytes of the step. */
export function loraStep(): Uint8Array<ArrayBuffer> {
  const outputs = [...loraStepOutputs()];
  const lean = simplify(outputs.map(([, value]) => value));
  return encodeOnnx({ outputs: new Map(outputs.map(([name, value], i) => [name, lean[i] ?? value])) });
}

/** Seeded weights and a batch of 2 sequences of 6 tokens. */
export function loraFeeds(): Params {
  const draw = uniforms(5);
  const feeds = new Map<string, Tensor>();
  const random = (name: string, shape: readonly number[], scale: number, mean = 0): void => {
    const size = shape.reduce((product, length) => product * length, 1);
    feeds.set(
      name,
      float32(
        shape,
        Float32Array.from({ length: size }, () => mean + scale * (2 * draw() - 1)),
      ),
    );
  };
  for (const [name, shape] of Object.entries(base)) random(name, shape, 0.5, shape.length === 1 ? 1 : 0);
  for (const [name, shape] of Object.entries(adapter)) {
    random(name, shape, 0.3);
    for (const moment of ["m", "s"]) random(`${moment}.${name}`, shape, 0);
  }
  const angle = (i: number): number => Math.floor(i / 4) * 100 ** (-(i % 4) / 4);
  feeds.set(
    "cosine",
    float32(
      [12, 4],
      Float32Array.from({ length: 48 }, (_, i) => Math.cos(angle(i))),
    ),
  );
  feeds.set(
    "sine",
    float32(
      [12, 4],
      Float32Array.from({ length: 48 }, (_, i) => Math.sin(angle(i))),
    ),
  );
  const integers = (element: (i: number) => number): Tensor =>
    tensor(
      "int64",
      [2, 6],
      BigInt64Array.from({ length: 12 }, (_, i) => BigInt(element(i))),
    );
  feeds.set(
    "ids",
    integers(() => Math.floor(V * draw())),
  );
  feeds.set(
    "labels",
    integers(() => Math.floor(V * draw())),
  );
  feeds.set(
    "positions",
    integers((i) => i % 6),
  );
  return feeds;
}

/** The feeds of the next step. */
export function nextFeeds(feeds: Params, results: Params): Params {
  const next = new Map(feeds);
  for (const [name, value] of results)
    if (name.startsWith("next.")) next.set(name.slice("next.".length), value);
  return next;
}
