import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { coreName } from "../../src/adapters/tri-lora.ts";
import { clientHalf } from "../../src/federation/local-rule.ts";
import type { ClientRef, Update } from "../../src/federation/strategy.ts";
import {
  ceLora,
  centredColumns,
  type DataSketch,
  linearCka,
  shareOut,
  similarityOfCores,
  similarityOfData,
  sketchDistance,
} from "../../src/strategies/ce-lora.ts";
import { fedAvg } from "../../src/strategies/fedavg.ts";
import { qr } from "../../src/tensor/linalg.ts";
import { type Matrix, matmul, matrix } from "../../src/tensor/matrix.ts";
import type { Params } from "../../src/tensor/params.ts";
import { stream } from "../../src/tensor/random.ts";
import type { Tensor } from "../../src/tensor/tensor.ts";
import { drawPair } from "./algebra.ts";

const M = "q_proj";
const context = { round: 1, seed: 1, numClients: 4 };

function normal(rows: number, cols: number, purpose: string): Matrix {
  const values = new Float64Array(rows * cols);
  stream({ seed: 8, purpose }).fillNormal(values, 0, 1);
  return matrix(rows, cols, values);
}
const tensorOf = ({ rows, cols, data }: Matrix): Tensor => ({ dtype: "float64", shape: [rows, cols], data });

const setting = fc.record({
  rank: fc.integer({ min: 1, max: 5 }),
  clients: fc.integer({ min: 1, max: 5 }),
  seed: fc.integer({ min: 0, max: 1e6 }),
});

/** Parameters of one module of in 4, out 7, and a head. */
function parameters(rank: number, purpose: string): Params {
  const pair = drawPair(M, { out: 7, width: 4 }, rank, purpose);
  return new Map([...pair, [coreName(M), tensorOf(normal(rank, rank, purpose))]]);
}

function federation({ rank, clients, seed }: { rank: number; clients: number; seed: number }) {
  const members = Array.from({ length: clients }, (_, k): ClientRef => ({ id: `c${k}`, rank, scaling: 1 }));
  const trained = members.map(({ id }) => parameters(rank, `${seed}/${id}`));
  return { members, trained, initial: parameters(rank, `${seed}/initial`) };
}

/** Uploads of one round, and what each client holds after it. */
function round(
  strategy: ReturnType<typeof ceLora>,
  { members, trained, initial }: ReturnType<typeof federation>,
) {
  const state = strategy.init(initial, members);
  const memories: Params[] = [];
  const updates = members.map((client, k): Update => {
    const received = strategy.broadcast(state, client, context);
    const half = clientHalf(strategy, { client, received, memory: undefined, initial, context });
    const params = trained[k] ?? initial;
    const { memory, ...up } = half.upload({ params, numExamples: k + 1, steps: 1, learningRate: 1 });
    memories.push(memory);
    return { client, numExamples: k + 1, ...up };
  });
  const next = strategy.aggregate(state, updates, context).state;
  const held = members.map((client, k) => {
    const received = strategy.broadcast(next, client, context);
    return clientHalf(strategy, { client, received, memory: memories[k], initial, context }).start.params;
  });
  return { updates, held };
}

describe("CE-LoRA", () => {
  it("sends r² scalars a module up and down, and leaves A, B and head as the client trained them", () => {
    fc.assert(
      fc.property(setting, (s) => {
        const one = federation(s);
        const { updates, held } = round(ceLora(), one);
        updates.forEach(({ params }, k) => {
          expect([...params].map(([name, { shape }]) => [name, shape])).toEqual([
            [coreName(M), [s.rank, s.rank]],
          ]);
          for (const [name, tensor] of one.trained[k] ?? [])
            if (name !== coreName(M)) expect(held[k]?.get(name)).toBe(tensor);
        });
      }),
    );
  });

  it("is FedAvg of the cores where all clients count alike", () => {
    fc.assert(
      fc.property(setting, (s) => {
        const mix = ({ clients }: { readonly clients: readonly string[] }) =>
          matrix(
            clients.length,
            clients.length,
            new Float64Array(clients.length ** 2).fill(1 / clients.length),
          );
        const { updates, held } = round(ceLora({ mix }), federation(s));
        const mean = fedAvg({ weighting: "uniform" }).aggregate(new Map(), updates, context).state;
        const want = [...(mean.get(coreName(M))?.data ?? [])].map(Number);
        for (const params of held)
          [...(params.get(coreName(M))?.data ?? [])].forEach((x, i) => {
            expect(Number(x)).toBeCloseTo(want[i] ?? Number.NaN, 9);
          });
      }),
    );
  });

  it("mixes by rows that are a distribution and follow the clients when they are renamed", () => {
    fc.assert(
      fc.property(setting, (s) => {
        const cores = federation(s).trained;
        const clients = cores.map((_, k) => `c${k}`);
        const rowsOf = (list: readonly Params[]) => {
          const model = similarityOfCores(list);
          return shareOut({ clients, ...(model && { model }) }, 0.5);
        };
        const rows = rowsOf(cores);
        const reversed = rowsOf([...cores].reverse());
        const size = cores.length;
        for (let i = 0; i < size; i++) {
          const row = [...rows.data.subarray(i * size, (i + 1) * size)];
          expect(row.reduce((a, b) => a + b, 0)).toBeCloseTo(1, 12);
          expect(Math.min(...row)).toBeGreaterThanOrEqual(0);
          row.forEach((x, j) => {
            expect(reversed.data[(size - 1 - i) * size + (size - 1 - j)]).toBeCloseTo(x, 12);
          });
        }
      }),
    );
  });

  it("refuses an adapter without a core by name", () => {
    expect(() => ceLora().init(drawPair(M, { out: 3, width: 2 }, 2, "x"), [])).toThrow(/no core lora_C/);
  });

  it("keeps the core of an absent client in the mixture, and starts a new client from the initial core", () => {
    const one = federation({ rank: 2, clients: 2, seed: 3 });
    const strategy = ceLora();
    const [a, b] = one.members;
    if (!a || !b) return;
    const core = (params: Params): Params => new Map([...params].filter(([name]) => name === coreName(M)));
    const update = (client: ClientRef, k: number): Update => ({
      client,
      numExamples: 1,
      params: core(one.trained[k] ?? new Map()),
    });
    const first = strategy.aggregate(strategy.init(one.initial, one.members), [update(a, 0)], context).state;
    expect(strategy.broadcast(first, b, context).params).toEqual(core(one.initial));
    const second = strategy.aggregate(first, [update(b, 1)], { ...context, round: 2 }).state;
    const both = strategy.aggregate(
      strategy.init(one.initial, one.members),
      [update(a, 0), update(b, 1)],
      context,
    );
    expect(second.mixed).toEqual(both.state.mixed);
  });
});

describe("CKA of cores", () => {
  it("is 1 under rotation and scaling of the columns, between 0 and 1 else, and 0 for constant columns", () => {
    fc.assert(
      fc.property(fc.integer({ min: 2, max: 6 }), fc.integer({ min: 0, max: 1e6 }), (rank, seed) => {
        const x = centredColumns(normal(rank, rank, `x ${seed}`));
        const y = centredColumns(normal(rank, rank, `y ${seed}`));
        const { q } = qr(normal(rank, rank, `q ${seed}`));
        const turned = matmul(x, q);
        expect(linearCka(x, x)).toBeCloseTo(1, 9);
        expect(linearCka(x, { ...turned, data: turned.data.map((v) => 3 * v) })).toBeCloseTo(1, 9);
        expect(linearCka(x, y)).toBeGreaterThanOrEqual(0);
        expect(linearCka(x, y)).toBeLessThanOrEqual(1 + 1e-12);
        expect(linearCka(x, centredColumns(matrix(rank, rank, new Float64Array(rank * rank).fill(2))))).toBe(
          0,
        );
      }),
    );
  });
});

describe("similarity of data", () => {
  const point = (mean: number): DataSketch[string]["components"] => [
    { weight: 1, mean: [mean], variance: [1] },
  ];

  it("is 1 for equal data, falls with the distance of the shared classes, and is 0 without any", () => {
    const a: DataSketch = {
      x: { prior: 0.5, components: point(0) },
      y: { prior: 0.5, components: point(1) },
    };
    const b: DataSketch = { x: { prior: 1, components: point(2) } };
    const c: DataSketch = { z: { prior: 1, components: point(0) } };
    expect(sketchDistance(a, a)).toBe(0);
    expect(sketchDistance(a, b)).toBe(4);
    expect(sketchDistance(a, c)).toBeUndefined();
    const { data = [] } = similarityOfData([a, a, b, c]) ?? {};
    // Distances of pairs: 0, 4, 4; their mean is 8/3.
    const far = Math.exp(-1.5);
    const want = [1, 1, far, 0, 1, 1, far, 0, far, far, 1, 0, 0, 0, 0, 1];
    [...data].forEach((x, i) => {
      expect(x).toBeCloseTo(want[i] ?? Number.NaN, 12);
    });
  });
});
