import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { clientHalf } from "../../src/federation/local-rule.ts";
import type { Update } from "../../src/federation/strategy.ts";
import { fedAvg } from "../../src/strategies/fedavg.ts";
import { type FedHmOptions, fedHm } from "../../src/strategies/fedhm.ts";
import type { Params } from "../../src/tensor/params.ts";
import { stream } from "../../src/tensor/random.ts";
import type { Tensor } from "../../src/tensor/tensor.ts";
import { combination, type Dense, denseOf, float64, frobenius, pairProduct } from "./algebra.ts";
import { scalars } from "./rehearsal.ts";

const M = "up_proj";
const context = { round: 1, seed: 1, numClients: 3 };
const clients = ["a", "b", "c"].map((id) => ({ id, rank: 0, scaling: 1 }));

const draw = (shape: readonly number[], purpose: string): Tensor => {
  const data = new Float64Array(shape.reduce((x, y) => x * y, 1));
  stream({ seed: 6, purpose }).fillNormal(data, 0, 1);
  return float64(shape, data);
};

const initialOf = (out: number, width: number): Params =>
  new Map([
    ["embed.weight", draw([5, 3], "embed")],
    [`${M}.weight`, draw([out, width], `weight ${out} ${width}`)],
    ["norm.weight", draw([4], "norm")],
  ]);

function federation(out: number, width: number, options: FedHmOptions) {
  const strategy = fedHm({ whole: ["embed.weight"], ...options });
  const initial = initialOf(out, width);
  const state = strategy.init(initial, clients);
  const half = (client: (typeof clients)[number]) =>
    clientHalf(strategy, {
      client,
      received: strategy.broadcast(state, client, context),
      memory: undefined,
      initial,
      context,
    });
  return { strategy, initial, state, half };
}

const distance = (x: Dense, y: Dense): number => frobenius(combination([1, -1], [x, y]));
const sizes = fc.record({ out: fc.integer({ min: 1, max: 9 }), width: fc.integer({ min: 1, max: 9 }) });

describe("FedHM", () => {
  it("sends q (out + in) scalars for q = out / ratio, beside what stays whole", () => {
    const { strategy, state } = federation(8, 6, { ratios: { a: 1, b: 2, c: 3.2 } });
    const sent = clients.map((client) => scalars(strategy.broadcast(state, client, context).params));
    // Widths min(8, 6), 4, and 2.5 rounded to the even neighbour.
    expect(sent).toEqual([6, 4, 2].map((q) => q * (8 + 6) + 15 + 4));
    const { params } = strategy.broadcast(state, clients[2] ?? { id: "c", rank: 0, scaling: 1 }, context);
    expect(params.get("embed.weight")).toEqual(initialOf(8, 6).get("embed.weight"));
  });

  it("averages the products, and cuts the mean with the error of its spectral tail", () => {
    fc.assert(
      fc.property(
        sizes,
        fc.array(fc.integer({ min: 0, max: 1e6 }), { minLength: 3, maxLength: 3 }),
        (size, seeds) => {
          const { strategy, state, half } = federation(size.out, size.width, { ratios: [1, 2, 3] });
          const updates = clients.map((client, k): Update => {
            const params = new Map(
              [...half(client).start.params].map(([name, { shape }]) => [
                name,
                draw(shape, `${seeds[k]}/${name}`),
              ]),
            );
            return { client, numExamples: 10 * (k + 1), params };
          });
          const { state: next, measurements = {} } = strategy.aggregate(state, updates, context);
          const mean = combination(
            [1 / 3, 1 / 3, 1 / 3],
            updates.map(({ params }) => pairProduct(params, M)),
          );
          expect(distance(denseOf(strategy.global(next).get(`${M}.weight`)), mean)).toBeLessThan(1e-9);
          clients.forEach((client, k) => {
            const held = pairProduct(strategy.broadcast(next, client, context).params, M);
            expect(measurements[`deviation/${M}/ratio-${k + 1}`]).toBeCloseTo(distance(held, mean), 8);
          });
        },
      ),
      { numRuns: 30 },
    );
  });

  it("is FedAvg of whole weights, counted alike, at ratio 1", () => {
    fc.assert(
      fc.property(sizes, ({ out, width }) => {
        const { strategy, initial, state, half } = federation(out, width, {});
        const updates = clients.map((client, k): Update => {
          const params = new Map(
            [...half(client).start.params].map(([name, { shape }]) => [name, draw(shape, `${k}/${name}`)]),
          );
          return { client, numExamples: k + 1, params };
        });
        const dense = updates.map(({ params, ...rest }): Update => {
          const product = pairProduct(params, M);
          const weight = float64([out, width], Float64Array.from(product.flat()));
          const own = [...params].filter(([name]) => !name.includes("lora_"));
          return { ...rest, params: new Map([...own, [`${M}.weight`, weight] as const]) };
        });
        const next = strategy.global(strategy.aggregate(state, updates, context).state);
        const mean = fedAvg({ weighting: "uniform" }).aggregate(initial, dense, context).state;
        for (const name of initial.keys())
          expect(distance(rows(next.get(name)), rows(mean.get(name)))).toBeLessThan(1e-9);
      }),
      { numRuns: 30 },
    );
  });

  it("takes the frozen weight away on the client, so that the factors alone are the weight", () => {
    const { initial, half } = federation(7, 5, { ratios: [1] });
    const [first] = clients;
    if (!first) throw new Error("no client");
    const { personalBase, start } = half(first);
    const [change] = personalBase;
    if (change?.kind !== "dense") throw new Error("no dense change");
    expect([...change.difference.keys()]).toEqual([`${M}.weight`]);
    const left = denseOf(initial.get(`${M}.weight`));
    expect(
      distance(
        combination([1, 1], [left, denseOf(change.difference.get(`${M}.weight`))]),
        combination([0], [left]),
      ),
    ).toBe(0);
    expect(distance(pairProduct(start.params, M), left)).toBeLessThan(1e-10);
  });

  it("refuses a ratio below 1, and a client without one", () => {
    expect(() => federation(4, 4, { ratios: [0.5] })).toThrow(/ratio of a is 0.5, expected/);
    expect(() => federation(4, 4, { ratios: { a: 1 } })).toThrow(/ratio of b is NaN, expected/);
  });
});

const rows = (tensor: Tensor | undefined): Dense =>
  tensor?.shape.length === 2 ? denseOf(tensor) : [[...(tensor?.data ?? [])].map(Number)];
