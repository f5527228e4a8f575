import fc from "fast-check";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { adapterBase } from "../../src/adapters/adapter.ts";
import { denseSubset } from "../../src/adapters/dense-subset.ts";
import { clientHalf } from "../../src/federation/local-rule.ts";
import type { StateTree, Strategy } from "../../src/federation/strategy.ts";
import { adamw } from "../../src/optim/adam.ts";
import { fedAvg } from "../../src/strategies/fedavg.ts";
import { fedexLora, fedexLoraReinit } from "../../src/strategies/fedex-lora.ts";
import { fedIt } from "../../src/strategies/fedit.ts";
import { fedAdam } from "../../src/strategies/fedopt.ts";
import { ffaLora } from "../../src/strategies/ffa-lora.ts";
import { flexLora } from "../../src/strategies/flexlora.ts";
import { krum } from "../../src/strategies/krum.ts";
import { scaffold } from "../../src/strategies/scaffold.ts";
import { byteSize } from "../../src/tensor/dtype.ts";
import { mapParams, norm, type Params, sub } from "../../src/tensor/params.ts";
import { stream } from "../../src/tensor/random.ts";
import { float32, sizeOf } from "../../src/tensor/tensor.ts";
import type { Pool } from "../../src/train/pool.node.ts";
import { buffered } from "../../src/wrappers/buffered.ts";
import { clipped } from "../../src/wrappers/clipped.ts";
import { half } from "../../src/wrappers/half.ts";
import { quantized } from "../../src/wrappers/quantized.ts";
import { kept, sparse } from "../../src/wrappers/sparse.ts";
import { fingerprint, memoryStore, runToy } from "../federation/toy.ts";
import { client, context } from "../strategies/dense.ts";
import { openTinyPool, tiny, tinyRun } from "../strategies/tiny-run.ts";

function draw(shape: readonly number[], purpose: string, deviation = 1): ReturnType<typeof float32> {
  const values = new Float32Array(sizeOf(shape));
  stream({ seed: 8, purpose }).fillNormal(values, 0, deviation);
  return float32(shape, values);
}

const start: Params = new Map([
  ["a", draw([7, 5], "a")],
  ["b", draw([130], "b")],
]);

/** Parameters with every number changed. */
const each = (params: Params, next: (x: number, i: number, name: string) => number): Params =>
  mapParams(params, ({ shape, data }, name) =>
    float32(
      shape,
      [...data].map((x, i) => next(Number(x), i, name)),
    ),
  );

const bytesOf = (params: Params): number =>
  [...params.values()].reduce((sum, { dtype, shape }) => sum + byteSize(dtype) * sizeOf(shape), 0);

/** One client of FedAvg over some rounds, whose parameters move by `change` in each. */
function alone<State extends StateTree>(strategy: Strategy<State>, change: Params, rounds: number) {
  let state = strategy.init(start, [client("c")]);
  let memory: Params | undefined;
  let wire: Params = new Map();
  for (let round = 1; round <= rounds; round++) {
    const at = { ...context, round };
    const received = strategy.broadcast(state, client("c"), at);
    const local = clientHalf(strategy, {
      client: client("c"),
      received,
      memory,
      initial: start,
      context: at,
    });
    const params = each(local.start.params, (x, i, name) => x + Number(change.get(name)?.data[i]));
    const { memory: keptBack, ...up } = local.upload({ params, numExamples: 3, steps: 1, learningRate: 1 });
    memory = keptBack;
    wire = up.params;
    ({ state } = strategy.aggregate(state, [{ client: client("c"), numExamples: 3, ...up }], at));
  }
  return { moved: sub(strategy.global(state), start), wire, memory: memory ?? new Map() };
}

const change = (deviation: number): Params =>
  new Map([...start].map(([name, { shape }]) => [name, draw(shape, `change ${name}`, deviation)] as const));

const largest = (params: Params): number =>
  Math.max(...[...params.values()].flatMap(({ data }) => [...data].map((x) => Math.abs(Number(x)))));

describe("quantized updates", () => {
  it.each([8, 4] as const)("at %i bits are off by half a step of the block at most", (bits) => {
    const delta = change(0.1);
    const { moved } = alone(quantized(fedAvg(), { bits }), delta, 1);
    const step = largest(delta) / (2 ** (bits - 1) - 1);
    expect(largest(sub(moved, delta))).toBeLessThan(0.5 * step * 1.001);
    expect(largest(sub(moved, delta))).toBeGreaterThan(0.1 * step);
  });

  it("take bits / 8 bytes a number and 4 bytes a block", () => {
    for (const [bits, block] of [
      [8, 64],
      [4, 64],
      [4, 16],
    ] as const) {
      const { wire } = alone(quantized(fedAvg(), { bits, block }), change(1), 1);
      const expected = [35, 130].map((n) => Math.ceil((n * bits) / 8) + 4 * Math.ceil(n / block));
      expect(bytesOf(wire)).toBe(expected.reduce((a, b) => a + b));
    }
  });

  it("lose nothing for good with error feedback, and without it what is always too small", () => {
    // One large number a block hides changes below half a step.
    const delta = each(change(1e-3), (x, i) => (i % 64 === 0 ? 1 : x));
    const rounds = 60;
    const sum = each(delta, (x) => rounds * x);
    const fed = alone(quantized(fedAvg(), { bits: 4 }), delta, rounds);
    const bare = alone(quantized(fedAvg(), { bits: 4, errorFeedback: false }), delta, rounds);
    expect(largest(sub(fed.moved, sum))).toBeLessThan(1.2 / 7); // a step, whatever the number of rounds
    const small = (params: Params): number[] =>
      [...params.values()].flatMap(({ data }) => [...data].map(Number).filter((_, i) => i % 64 !== 0));
    expect(small(bare.moved).every((x) => Math.abs(x) < 1e-4)).toBe(true);
    expect(Math.max(...small(sum).map(Math.abs))).toBeGreaterThan(0.1);
    expect([...fed.memory.keys()]).toEqual(["quantized-error/a", "quantized-error/b"]);
    expect([...bare.memory.keys()]).toEqual([]);
  });

  it("of tensors that a client did not receive are the tensors themselves", () => {
    const strategy = quantized(fedexLoraReinit(), { errorFeedback: false });
    const ref = { id: "c", rank: 2, scaling: 1 };
    const initial = new Map([
      ["m.lora_A.weight", draw([2, 5], "A")],
      ["m.lora_B.weight", draw([3, 2], "B", 0)],
    ]);
    const state = strategy.init(initial, [ref]);
    const received = strategy.broadcast(state, ref, context);
    const local = clientHalf(strategy, { client: ref, received, memory: undefined, initial, context });
    const params = new Map([
      ["m.lora_A.weight", draw([2, 5], "A1")],
      ["m.lora_B.weight", draw([3, 2], "B1")],
    ]);
    const { memory: _, ...up } = local.upload({ params, numExamples: 1, steps: 1, learningRate: 1 });
    expect(up.params.get("quantized/m.lora_A.weight/codes")?.dtype).toBe("int8");
    const { base = [] } = strategy.aggregate(state, [{ client: ref, numExamples: 1, ...up }], context);
    expect(base.length).toBeGreaterThan(0);
  });
});

describe("sparse updates", () => {
  it("hold the largest changes and nothing else", () => {
    fc.assert(
      fc.property(
        fc.array(fc.integer({ min: -9, max: 9 }), { minLength: 1, maxLength: 60 }),
        fc.double({ min: 0.01, max: 1, noNaN: true }),
        (numbers, share) => {
          const from: Params = new Map([
            [
              "w",
              float32(
                [numbers.length],
                numbers.map(() => 0),
              ),
            ],
          ]);
          const strategy = sparse(fedAvg(), { share });
          const local = clientHalf(strategy, {
            client: client("c"),
            received: { params: from },
            memory: undefined,
            initial: from,
            context,
          });
          const params = new Map([["w", float32([numbers.length], numbers)]]);
          const up = local.upload({ params, numExamples: 1, steps: 1, learningRate: 1 });
          const { state } = strategy.aggregate(
            from,
            [{ client: client("c"), numExamples: 1, ...up }],
            context,
          );
          const got = [...(state.get("w")?.data ?? [])].map(Number);
          const size = kept(numbers.length, share);
          const order = numbers
            .map((_, i) => i)
            .sort((a, b) => Math.abs(numbers[b] ?? 0) - Math.abs(numbers[a] ?? 0) || a - b);
          const expected = numbers.map((x, i) => (order.slice(0, size).includes(i) ? x : 0));
          expect(got.map((x) => x + 0)).toEqual(expected.map((x) => x + 0));
        },
      ),
      { numRuns: 200 },
    );
  });

  it("take 4 bytes a number that is sent, and its place in 2 or a bit of each", () => {
    const few = alone(sparse(fedAvg(), { share: 0.02 }), change(1), 1);
    expect(bytesOf(few.wire)).toBe((4 + 2) * kept(35, 0.02) + (4 + 2) * kept(130, 0.02));
    const many = alone(sparse(fedAvg(), { share: 0.5 }), change(1), 1);
    expect(bytesOf(many.wire)).toBe(4 * kept(35, 0.5) + 5 + 4 * kept(130, 0.5) + 17);
  });

  it("send every change in the end with error feedback, and without it the same few for ever", () => {
    const delta = change(1);
    const rounds = 200;
    const moved = (errorFeedback: boolean): Params =>
      alone(sparse(fedAvg(), { share: 0.1, errorFeedback }), delta, rounds).moved;
    const standing = [...moved(false).values()]
      .flatMap(({ data }) => [...data].map(Number))
      .filter((x) => x === 0);
    expect(standing.length).toBe(165 - kept(35, 0.1) - kept(130, 0.1));
    // What has not arrived is bounded by what a few dozen rounds bring.
    const sum = each(delta, (x) => rounds * x);
    expect(largest(sub(moved(true), sum))).toBeLessThan(40 * largest(delta));
  });
});

describe("half precision on the wire", () => {
  it("halves what goes down and what comes up", () => {
    const strategy = half(fedAvg());
    expect(bytesOf(strategy.broadcast(start, client("c"), context).params)).toBe(bytesOf(start) / 2);
    expect(bytesOf(alone(strategy, change(1), 1).wire)).toBe(bytesOf(start) / 2);
  });

  it.each(["float16", "bfloat16"] as const)(
    "leaves the server's parameters as they are if no client moved: %s",
    (format) => {
      const { moved } = alone(half(fedAvg(), { format }), change(0), 3);
      expect(norm(moved)).toBe(0);
    },
  );

  it("keeps changes that are small beside the parameters", () => {
    const large = each(start, (x) => 100 + x);
    const strategy = half(fedAvg());
    const received = strategy.broadcast(large, client("c"), context);
    const local = clientHalf(strategy, {
      client: client("c"),
      received,
      memory: undefined,
      initial: large,
      context,
    });
    const tinyChange = change(1);
    const params = each(local.start.params, (x, i, name) => x + 0.01 * Number(tinyChange.get(name)?.data[i]));
    const up = local.upload({ params, numExamples: 1, steps: 1, learningRate: 1 });
    const { state } = strategy.aggregate(large, [{ client: client("c"), numExamples: 1, ...up }], context);
    const got = sub(state, large);
    const want = each(tinyChange, (x) => 0.01 * x);
    expect(largest(sub(got, want))).toBeLessThan(3e-5); // float32 near 100; a step of float16 there is 0.06
  });
});

describe("packing wrappers", () => {
  const wrappers: readonly (readonly [
    string,
    <S extends StateTree>(inner: Strategy<S>, errorFeedback: boolean) => Strategy<S>,
  ])[] = [
    ["sparse with everything sent", (inner, errorFeedback) => sparse(inner, { share: 1, errorFeedback })],
    ["quantized", (inner, errorFeedback) => quantized(inner, { errorFeedback })],
    ["half", (inner) => half(inner)],
    ["half of quantized", (inner, errorFeedback) => half(quantized(inner, { errorFeedback }))],
  ];
  const inner: readonly (readonly [Strategy, boolean])[] = [
    [fedIt() as Strategy, true],
    [ffaLora() as Strategy, true],
    [fedAdam({ serverLearningRate: 0.1 }) as Strategy, true],
    [scaffold() as Strategy, true],
    [krum() as Strategy, true],
    [clipped(fedIt(), { norm: 0.5 }) as Strategy, true],
    [buffered(fedIt(), { maxStaleness: 2 }) as Strategy, true],
    [flexLora() as Strategy, false],
    [fedexLora() as Strategy, false],
  ];

  it.each(wrappers)("%s goes with every strategy, near to what it does alone", async (_, wrap) => {
    for (const [strategy, errorFeedback] of inner) {
      const run = async (of: Strategy): Promise<Params> => {
        let last: Params = new Map();
        await runToy(of, {
          evaluate: (state) => {
            last = state.global();
            return Promise.resolve({});
          },
        });
        return last;
      };
      const [alone, together] = [await run(strategy), await run(wrap(strategy, errorFeedback))];
      expect([...together.keys()], strategy.name).toEqual([...alone.keys()]);
      if (strategy.name === "FlexLoRA" || strategy.name === "Krum") continue; // a turn of the factors, a choice
      expect(norm(sub(together, alone)) / norm(alone), strategy.name).toBeLessThan(0.02);
    }
  });

  it("go on after a stop with the errors that the clients had", async () => {
    for (const strategy of [quantized(fedIt(), { bits: 4 }), sparse(fedIt(), { share: 0.3 })]) {
      const whole = await runToy(strategy, { rounds: 4 });
      const store = memoryStore();
      await runToy(strategy, { rounds: 2, store });
      expect(fingerprint(await runToy(strategy, { rounds: 4, store }))).toEqual(fingerprint(whole.slice(2)));
    }
  });

  it("refuse error feedback where factors turn, restart or move to the base, and say what to do", () => {
    for (const strategy of [flexLora(), fedexLora()]) {
      expect(() => quantized(strategy as Strategy)).toThrow(/set errorFeedback to false/);
      expect(() => sparse(strategy as Strategy)).toThrow(/set errorFeedback to false/);
    }
    expect(() => quantized(fedAvg(), { block: 0 })).toThrow(/block is 0/);
    expect(() => sparse(fedAvg(), { share: 0 })).toThrow(/share is 0/);
  });
});

describe("packed training", () => {
  let pool: Pool;
  beforeAll(async () => {
    pool = await openTinyPool();
  });
  afterAll(() => pool.close());
  const attach = () => [
    denseSubset({ target: ["up_proj", "gate_proj", "down_proj"] }).attach(adapterBase(tiny.taskModel)),
  ];

  it.each([
    ["4 bits", quantized(fedAvg(), { bits: 4 }), 0.15],
    ["a tenth", sparse(fedAvg(), { share: 0.1 }), 0.13],
    ["16 bits", half(fedAvg()), 0.5],
  ] as const)("learns with %s at a part of the bytes", async (_, strategy, share) => {
    const options = {
      pool,
      attach,
      optimizer: () => adamw({ learningRate: 0.02 }),
      rounds: 5,
      ranks: [0, 0, 0],
    };
    const plain = await tinyRun({ ...options, strategy: fedAvg() });
    const packed = await tinyRun({ ...options, strategy });
    const gain = ({ rounds }: typeof plain): number => (rounds[0]?.loss ?? 0) - (rounds.at(-1)?.loss ?? 0);
    expect(gain(plain)).toBeGreaterThan(0.2);
    expect(gain(packed)).toBeGreaterThan(0.5 * gain(plain));
    // Names and shapes take a part of the bytes too.
    expect((packed.rounds[0]?.bytesUp ?? 0) / (plain.rounds[0]?.bytesUp ?? 1)).toBeLessThan(share + 0.2);
  });
});
