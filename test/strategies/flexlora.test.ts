import { describe, expect, it } from "vitest";
import { flexLora } from "../../src/strategies/flexlora.ts";
import {
  combination,
  denseOf,
  drawPair,
  drawUpdates,
  frobenius,
  idealProduct,
  pairProduct,
  product,
} from "./algebra.ts";

const M = "q_proj";
const shape = { out: 11, width: 6 };
const context = { round: 1, seed: 1, numClients: 4 };

function aggregated(ranks: readonly number[], present: readonly number[] = ranks.map((_, k) => k)) {
  const strategy = flexLora();
  const all = drawUpdates(M, shape, ranks, "flex");
  const clients = all.map(({ client }) => client);
  const initial = drawPair(M, shape, Math.max(...ranks), "initial");
  const updates = all.filter((_, k) => present.includes(k));
  const result = strategy.aggregate(strategy.init(initial, clients), updates, context);
  const held = clients.map((client) => ({
    client,
    params: strategy.broadcast(result.state, client, context).params,
  }));
  return { updates, result, held };
}

describe("FlexLoRA", () => {
  it("hands each client the mean product cut to its rank, divided by its own scaling", () => {
    const { updates, result, held } = aggregated([1, 2, 3, 6]);
    const ideal = idealProduct(updates, M);
    for (const { client, params } of held) {
      const off = frobenius(combination([client.scaling, -1], [pairProduct(params, M), ideal]));
      const label = client.rank === 6 ? M : `${M}/rank-${client.rank}`;
      expect(result.measurements?.[`deviation/${label}`]).toBeCloseTo(off, 9);
    }
    const full = held.at(-1);
    expect(result.measurements?.[`deviation/${M}`]).toBeLessThan(1e-12); // rank 6 = in: nothing is cut
    expect(full?.params.get(`${M}.lora_A.weight`)?.shape).toEqual([6, 6]);
  });

  it("nests: a smaller rank holds the first components of a larger one", () => {
    const { held } = aggregated([2, 3]);
    const [two, three] = held.map(({ params }) => denseOf(params.get(`${M}.lora_A.weight`)));
    expect(two).toEqual(three?.slice(0, 2));
  });

  it("completes A with orthonormal rows and B with zeros where the mean product has too small a rank", () => {
    const { updates, held } = aggregated([1, 2, 5], [0, 1]); // rank of the mean product: 3
    const last = held.at(-1);
    const a = denseOf(last?.params.get(`${M}.lora_A.weight`));
    const b = denseOf(last?.params.get(`${M}.lora_B.weight`));
    const transposed = (a[0] ?? []).map((_, j) => a.map((row) => row[j] ?? 0));
    const identity = a.map((_, i) => a.map((__, j) => (i === j ? 1 : 0)));
    expect(frobenius(combination([1, -1], [product(a, transposed), identity]))).toBeLessThan(1e-12);
    expect(b.every((row) => row[3] === 0 && row[4] === 0)).toBe(true);
    const off = combination([last?.client.scaling ?? 1, -1], [product(b, a), idealProduct(updates, M)]);
    expect(frobenius(off)).toBeLessThan(1e-10);
  });

  it("leaves no row of A at zero where the rank exceeds the width of the module", () => {
    const { held } = aggregated([1, 8], [0]);
    const a = denseOf(held.at(-1)?.params.get(`${M}.lora_A.weight`));
    expect(a.length).toBe(8);
    for (const row of a) expect(frobenius([row])).toBeGreaterThan(0.9);
  });

  it("keeps the product of a single client", () => {
    const { updates, held } = aggregated([3]);
    const off = combination(
      [held[0]?.client.scaling ?? 1, -1],
      [pairProduct(held[0]?.params ?? new Map(), M), idealProduct(updates, M)],
    );
    expect(frobenius(off)).toBeLessThan(1e-10);
  });
});
