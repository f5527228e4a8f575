import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { adaptedScope, adapterBase, startParams } from "../../src/adapters/adapter.ts";
import { difference } from "../../src/adapters/difference.ts";
import { lora, loraLinear } from "../../src/adapters/lora.ts";
import { expertNames, loraMoe, mixture, routerName } from "../../src/adapters/lora-moe.ts";
import { input } from "../../src/graph/value.ts";
import { linear } from "../../src/nn/linear.ts";
import { rootScope } from "../../src/nn/scope.ts";
import type { Params } from "../../src/tensor/params.ts";
import { stream } from "../../src/tensor/random.ts";
import { float32, type Tensor } from "../../src/tensor/tensor.ts";
import { array64, evaluate } from "../graph/evaluator.ts";
import { llamaJson, tinyModel } from "../models/tiny.ts";
import { disturbed, gradientsMatchDifferences, outputOf } from "./checks.ts";

const llama = tinyModel(llamaJson);
const base = adapterBase(llama.taskModel);
const options = { rank: 2, alpha: 4, target: ["layers.1.self_attn.q_proj", "layers.0.mlp.down_proj"] };
const M = "m";

function draw(shape: readonly number[], purpose: string): Tensor<"float64"> {
  const data = new Float64Array(shape.reduce((a, b) => a * b, 1));
  stream({ seed: 6, purpose }).fillNormal(data, 0, 1);
  return { dtype: "float64", shape, data };
}

interface Setting {
  readonly out: number;
  readonly width: number;
  readonly rank: number;
  readonly experts: number;
  readonly tokens: number;
  readonly seed: number;
}

/** A layer with experts, by the graph in float64. */
function layer({ out, width, rank, experts, tokens, seed }: Setting, router?: Tensor<"float64">) {
  const weights = new Map<string, Tensor<"float64">>([
    [`${M}.weight`, draw([out, width], `w ${seed}`)],
    [routerName(M), router ?? draw([2 * experts - 1, width], `router ${seed}`)],
  ]);
  for (let m = 0; m < experts; m++) {
    const { loraA, loraB } = expertNames(M, m);
    weights.set(loraA, draw([rank, width], `A ${m} ${seed}`));
    weights.set(loraB, draw([out, rank], `B ${m} ${seed}`));
  }
  const x = draw([tokens, width], `x ${seed}`);
  const scope = rootScope({ weights, adapters: new Map([[M, [mixture(1.5, loraLinear(1.5))]]]) }).at(M);
  const token = input("x", "float64", [tokens, width]);
  const y = linear(scope, token);
  const feeds = new Map(
    [...weights, ["x", x] as const].map(([name, { shape, data }]) => [name, array64(shape, data)]),
  );
  const [result] = evaluate([y], [token, ...scope.inputs.values()], feeds);
  return { weights, x, y: result?.data ?? new Float64Array() };
}

/** The layer token by token, with loops and a sort. */
function byHand(
  { out, width, rank, experts, tokens }: Setting,
  weights: ReadonlyMap<string, Tensor<"float64">>,
  x: Tensor<"float64">,
) {
  const at = (name: string, i: number, j: number): number => {
    const tensor = weights.get(name);
    return tensor?.data[i * (tensor.shape[1] ?? 0) + j] ?? Number.NaN;
  };
  const slots = 2 * experts - 1;
  const chosen: number[][] = [];
  const y = Array.from({ length: tokens }, (_, t) => {
    const token = Array.from({ length: width }, (_, j) => x.data[t * width + j] ?? 0);
    const dot = (name: string, i: number) => token.reduce((sum, v, j) => sum + v * at(name, i, j), 0);
    const logits = Array.from({ length: slots }, (_, i) => dot(routerName(M), i));
    const weightsOfSlots = logits.map((logit) => Math.exp(logit - Math.max(...logits)));
    const order = weightsOfSlots
      .map((_, i) => i)
      .sort((i, j) => (weightsOfSlots[j] ?? 0) - (weightsOfSlots[i] ?? 0));
    const top = order.slice(0, experts);
    chosen.push(top);
    const total = top.reduce((sum, i) => sum + (weightsOfSlots[i] ?? 0), 0);
    return Array.from({ length: out }, (_, o) => {
      let sum = dot(`${M}.weight`, o);
      for (const slot of top) {
        const { loraA, loraB } = expertNames(M, slot < experts ? 0 : slot - experts + 1);
        for (let r = 0; r < rank; r++)
          sum += 1.5 * ((weightsOfSlots[slot] ?? 0) / total) * at(loraB, o, r) * dot(loraA, r);
      }
      return sum;
    });
  });
  return { y: y.flat(), chosen };
}

const setting = fc.record({
  out: fc.integer({ min: 1, max: 6 }),
  width: fc.integer({ min: 1, max: 6 }),
  rank: fc.integer({ min: 1, max: 3 }),
  experts: fc.integer({ min: 1, max: 4 }),
  tokens: fc.integer({ min: 1, max: 8 }),
  seed: fc.integer({ min: 0, max: 1e6 }),
});

describe("a mixture of LoRA experts", () => {
  it("agrees with the sum over the chosen slots of every token, the own expert always among them", () => {
    fc.assert(
      fc.property(setting, (s) => {
        const { weights, x, y } = layer(s);
        const want = byHand(s, weights, x);
        want.y.forEach((value, i) => {
          expect(y[i]).toBeCloseTo(value, 9);
        });
        for (const slots of want.chosen) expect(slots.some((slot) => slot < s.experts)).toBe(true);
      }),
      { numRuns: 60 },
    );
  });

  it("is plain LoRA with the own expert where the router favours its slots, and for a single expert", () => {
    fc.assert(
      fc.property(setting, (s) => {
        // A token of positive sum gives the own slots a great lead.
        const rows = Array.from({ length: (2 * s.experts - 1) * s.width }, (_, at) =>
          Math.floor(at / s.width) < s.experts ? 40 : -40,
        );
        const router = {
          dtype: "float64",
          shape: [2 * s.experts - 1, s.width],
          data: Float64Array.from(rows),
        } as const;
        const { weights, x, y } = layer(s, router);
        const alone = new Map(
          [...weights].filter(([name]) => !name.includes("expert_") && name !== routerName(M)),
        );
        const scope = rootScope({
          weights: alone,
          adapters: new Map([[M, [mixture(1.5, loraLinear(1.5))]]]),
        }).at(M);
        const token = input("x", "float64", [s.tokens, s.width]);
        const feeds = new Map(
          [...alone, ["x", x] as const].map(([name, { shape, data }]) => [name, array64(shape, data)]),
        );
        const [plain] = evaluate([linear(scope, token)], [token, ...scope.inputs.values()], feeds);
        for (let t = 0; t < s.tokens; t++) {
          const sum = x.data.subarray(t * s.width, (t + 1) * s.width).reduce((a, b) => a + b, 0);
          if (sum < 1 && s.experts > 1) continue;
          for (let o = t * s.out; o < (t + 1) * s.out; o++)
            expect(y[o]).toBeCloseTo(plain?.data[o] ?? Number.NaN, 9);
        }
      }),
      { numRuns: 60 },
    );
  });

  const attached = [loraMoe(options).attach(base)];
  const start = startParams(attached, { seed: 3, base: llama.weights });
  /** Two further experts and a router for every pair. */
  const routed = (pairs: Params): Params => {
    const params = new Map(pairs);
    for (const [name, { shape }] of pairs) {
      if (!name.endsWith(".lora_A.weight")) continue;
      const module = name.slice(0, -".lora_A.weight".length);
      const width = shape[1] ?? 0;
      const out = pairs.get(`${module}.lora_B.weight`)?.shape[0] ?? 0;
      params.set(routerName(module), float32([5, width], new Float32Array(5 * width)));
      for (const m of [1, 2]) {
        const { loraA, loraB } = expertNames(module, m);
        params.set(loraA, float32([2, width], new Float32Array(2 * width)));
        params.set(loraB, float32([out, 2], new Float32Array(2 * out)));
      }
    }
    return disturbed(params);
  };

  it("is LoRA until a router is started", async () => {
    const params = disturbed(start);
    const feeds = new Map([...llama.weights, ...params]);
    expect(await outputOf(llama, adaptedScope(base, attached), feeds)).toEqual(
      await outputOf(llama, adaptedScope(base, [lora(options).attach(base)]), feeds),
    );
    expect(attached[0]?.merge(llama.weights, params)).toEqual(
      lora(options).attach(base).merge(llama.weights, params),
    );
  });

  it("has the gradients of finite differences, for the router too", async () => {
    const params = routed(start);
    await gradientsMatchDifferences(llama, adaptedScope(base, attached, params), params);
  });

  it("refuses to merge what depends on the token", () => {
    expect(() => attached[0]?.merge(llama.weights, routed(start))).toThrow(/has a router/);
  });
});

describe("a dense difference", () => {
  it("adds D x where one is started, and nothing else", async () => {
    const adapters = [difference(options).attach(base)];
    expect(startParams(adapters, { seed: 1, base: llama.weights }).size).toBe(0);
    const plain = await outputOf(llama, adaptedScope(base), llama.weights);
    expect(await outputOf(llama, adaptedScope(base, adapters), llama.weights)).toEqual(plain);
    const module = "model.layers.0.mlp.down_proj";
    const weight = llama.weights.get(`${module}.weight`);
    const moves = new Float32Array(weight?.data.length ?? 0);
    stream({ seed: 2, purpose: "D" }).fillNormal(moves, 0, 0.1);
    const params = new Map([[`${module}.difference.weight`, float32(weight?.shape ?? [], moves)]]);
    const applied = await outputOf(
      llama,
      adaptedScope(base, adapters, params),
      new Map([...llama.weights, ...params]),
    );
    const sum = Float32Array.from(moves, (x, i) => x + Number(weight?.data[i]));
    const moved = new Map([
      ...llama.weights,
      [`${module}.weight`, float32(weight?.shape ?? [], sum)] as const,
    ]);
    const merged = await outputOf(llama, adaptedScope(base), moved);
    const scale = Math.max(...plain.map(Math.abs));
    applied.forEach((x, i) => {
      expect(Math.abs(x - (merged[i] ?? Number.NaN)) / scale).toBeLessThan(1e-5);
    });
    expect(applied).not.toEqual(plain);
  });
});
