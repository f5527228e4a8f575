import fc from "fast-check";
import { describe, expect, it } from "vitest";
import type { Update } from "../../src/federation/strategy.ts";
import { fedIt } from "../../src/strategies/fedit.ts";
import { fairFit, type LoraFairOptions, loraFair, oneMinusCosine } from "../../src/strategies/lora-fair.ts";
import { matrix } from "../../src/tensor/matrix.ts";
import { type Params, weightedMean } from "../../src/tensor/params.ts";
import {
  combination,
  type Dense,
  denseOf,
  drawUpdates,
  frobenius,
  idealProduct,
  pairProduct,
  product,
} from "./algebra.ts";

const M = "v_proj";
const context = { round: 1, seed: 1, numClients: 5 };

const setting = fc.record({
  out: fc.integer({ min: 2, max: 12 }),
  width: fc.integer({ min: 2, max: 12 }),
  rank: fc.integer({ min: 1, max: 5 }),
  clients: fc.integer({ min: 2, max: 5 }),
  seed: fc.integer({ min: 0, max: 1e6 }),
  lambda: fc.double({ min: 1e-3, max: 10, noNaN: true }),
});
type Setting = typeof setting extends fc.Arbitrary<infer T> ? T : never;

function updatesOf({ out, width, rank, clients, seed }: Setting): Update[] {
  const ranks = Array.from({ length: clients }, () => rank);
  // Scaling 1: the objective is about unscaled factors.
  return drawUpdates(M, { out, width }, ranks, `fair ${seed}`, rank);
}

const aggregated = (updates: readonly Update[], options: LoraFairOptions): Params =>
  loraFair(options).aggregate(new Map(), updates, context).state;

const transposed = (x: Dense): Dense => (x[0] ?? []).map((_, j) => x.map((row) => row[j] ?? 0));
const inner = (x: Dense, y: Dense): number =>
  x.flat().reduce((sum, value, i) => sum + value * (y.flat()[i] ?? 0), 0);

/** ‖T − B'Ā‖² + λ‖B' − B̄‖² */
function objective(updates: readonly Update[], params: Params, b: Dense, lambda: number): number {
  const error = combination(
    [1, -1],
    [idealProduct(updates, M), product(b, denseOf(params.get(`${M}.lora_A.weight`)))],
  );
  const mean = denseOf(meanOf(updates).get(`${M}.lora_B.weight`));
  return frobenius(error) ** 2 + lambda * frobenius(combination([1, -1], [b, mean])) ** 2;
}

const meanOf = (updates: readonly Update[]): Params =>
  weightedMean(
    updates.map(({ params }) => params),
    updates.map(({ numExamples }) => numExamples),
  );

describe("LoRA-FAIR", () => {
  it("takes the B at which its objective has no slope, and never ends above FedIT's", () => {
    fc.assert(
      fc.property(setting, (s) => {
        const updates = updatesOf(s);
        const after = aggregated(updates, { lambda: s.lambda });
        const [b, a] = [denseOf(after.get(`${M}.lora_B.weight`)), denseOf(after.get(`${M}.lora_A.weight`))];
        const average = denseOf(meanOf(updates).get(`${M}.lora_B.weight`));
        // −2 (T − B'Ā)Āᵀ + 2 λ (B' − B̄)
        const miss = product(combination([1, -1], [idealProduct(updates, M), product(b, a)]), transposed(a));
        const slope = combination([-2, 2 * s.lambda, -2 * s.lambda], [miss, b, average]);
        expect(frobenius(slope)).toBeLessThan(1e-9);
        expect(objective(updates, after, b, s.lambda)).toBeLessThanOrEqual(
          objective(updates, after, average, s.lambda) + 1e-10,
        );
      }),
    );
  });

  it("is FedIT for a large lambda", () => {
    fc.assert(
      fc.property(setting, (s) => {
        const updates = updatesOf(s);
        const after = pairProduct(aggregated(updates, { lambda: 1e12 }), M);
        const plain = pairProduct(fedIt().aggregate(new Map(), updates, context).state, M);
        expect(frobenius(combination([1, -1], [after, plain]))).toBeLessThan(1e-6);
      }),
    );
  });

  it("leaves nothing within reach at lambda 0: the error is orthogonal to the rows of Ā", () => {
    fc.assert(
      fc.property(setting, (s) => {
        const updates = updatesOf(s);
        const after = aggregated(updates, { lambda: 0 });
        const a = denseOf(after.get(`${M}.lora_A.weight`));
        const error = combination([1, -1], [idealProduct(updates, M), pairProduct(after, M)]);
        expect(frobenius(product(error, transposed(a)))).toBeLessThan(1e-8);
      }),
    );
  });

  it("corrects nothing where all clients hold one A, and is exact", () => {
    const updates = drawUpdates(M, { out: 7, width: 5 }, [2, 2, 2], "common", 2);
    const a = updates[0]?.params.get(`${M}.lora_A.weight`);
    const common = updates.map((update) => ({
      ...update,
      params: new Map([...update.params, ...(a ? ([[`${M}.lora_A.weight`, a]] as const) : [])]),
    }));
    const after = aggregated(common, {});
    const off = combination([1, -1], [pairProduct(after, M), idealProduct(common, M)]);
    expect(frobenius(off)).toBeLessThan(1e-12);
  });

  it("survives an Ā without full rank, and one of zeros", () => {
    for (const factor of [0, 1]) {
      const updates = drawUpdates(M, { out: 6, width: 4 }, [3, 3], "deficient", 3).map((update) => {
        const a = update.params.get(`${M}.lora_A.weight`);
        const data = Float64Array.from([...(a?.data ?? [])].map((x, i) => (i < 4 ? factor * Number(x) : 0)));
        return {
          ...update,
          params: new Map([
            ...update.params,
            [`${M}.lora_A.weight`, { dtype: "float64", shape: [3, 4], data }] as const,
          ]),
        };
      });
      for (const options of [{ lambda: 0 }, { cosine: { steps: 5 } }]) {
        const b = aggregated(updates, options).get(`${M}.lora_B.weight`);
        expect(b?.data.every((x) => Number.isFinite(Number(x)))).toBe(true);
      }
    }
  });

  it("descends along the gradient of one minus the cosine", () => {
    const updates = drawUpdates(M, { out: 6, width: 9 }, [2, 2, 2], "cosine", 2);
    const weights = updates.map(({ numExamples }) => numExamples);
    const fit = fairFit(updates, weights, M, meanOf(updates));
    const at = matrix(6, 2);
    at.data.forEach((_, i) => {
      at.data[i] = 0.1 * Math.sin(i);
    });
    const { value, gradient } = oneMinusCosine(fit, at);
    const a = denseOf(meanOf(updates).get(`${M}.lora_A.weight`));
    const b = combination(
      [1, 1],
      [
        denseOf(meanOf(updates).get(`${M}.lora_B.weight`)),
        Array.from({ length: 6 }, (_, i) => [at.data[2 * i] ?? 0, at.data[2 * i + 1] ?? 0]),
      ],
    );
    const [t, x] = [idealProduct(updates, M), product(b, a)];
    expect(value).toBeCloseTo(1 - inner(t, x) / (frobenius(t) * frobenius(x)), 12);
    at.data.forEach((center, i) => {
      const h = 1e-6;
      const shifted = (by: number) =>
        oneMinusCosine(fit, { ...at, data: at.data.map((v, j) => (j === i ? center + by : v)) }).value;
      expect(gradient.data[i]).toBeCloseTo((shifted(h) - shifted(-h)) / (2 * h), 7);
    });
  });

  it("brings the cosine closer to 1 than the average does, if asked for the paper's objective", () => {
    const updates = drawUpdates(M, { out: 6, width: 9 }, [2, 2, 2], "cosine", 2);
    const cosine = (params: Params): number => {
      const [t, x] = [idealProduct(updates, M), pairProduct(params, M)];
      return inner(t, x) / (frobenius(t) * frobenius(x));
    };
    const after = aggregated(updates, { lambda: 0.001, cosine: { steps: 300, learningRate: 0.1 } });
    expect(cosine(after)).toBeGreaterThan(cosine(meanOf(updates)) + 0.01);
  });

  it("refuses a negative lambda", () => {
    expect(() => loraFair({ lambda: -1 })).toThrow(/lambda is -1, expected/);
  });
});
