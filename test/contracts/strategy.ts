import { expect, it } from "vitest";
import { applyChanges } from "../../src/federation/base-chain.ts";
import { aggregateByModule } from "../../src/federation/by-module.ts";
import { clientHalf } from "../../src/federation/local-rule.ts";
import { packState, unpackState } from "../../src/federation/state.ts";
import type { Aggregate, ClientRef, StateTree, Strategy, Update } from "../../src/federation/strategy.ts";
import { type Params, select } from "../../src/tensor/params.ts";
import { stream } from "../../src/tensor/random.ts";
import type { Tensor } from "../../src/tensor/tensor.ts";
import { clipped } from "../../src/wrappers/clipped.ts";

/** What a strategy's row of docs/strategies.md says, and where its paper departs from a law. */
export interface StrategyExpectations {
  /** Pattern of the names that the server sends in round 2. */
  readonly down: RegExp;
  /** Pattern of the names that leave the client. */
  readonly up: RegExp;
  /** Patterns of the names in `extra`, both ways. Default: none. */
  readonly extra?: { readonly down?: RegExp; readonly up?: RegExp };
  /** Names that travel beside those of the parameters before round 1. */
  readonly further?: readonly string[];
  /** The parameters before round 1, made from pairs A, B and a head. */
  readonly initial?: (pairs: Params) => Params;
  /** Laws that do not hold, with the reason. */
  readonly except?: { readonly [law in "single client" | "deviation" | "stays"]?: string };
}

const SEED = 11;
/** Float32 sums over a few dozen terms of magnitude 1. */
const ROUNDING = 2e-5;
const modules = { q_proj: [7, 5], up_proj: [4, 9] } as const; // [out, in]
const moduleNames = Object.keys(modules) as (keyof typeof modules)[];

interface Fleet {
  readonly clients: readonly ClientRef[];
  readonly numExamples: ReadonlyMap<string, number>;
  readonly initial: Params;
}

function fleet(unequalRanks: boolean): Fleet {
  const ranks = unequalRanks ? [1, 3, 2] : [3, 3, 3];
  const clients = ["c0", "c1", "c2"].map((id, i) => ({
    id,
    rank: ranks[i] ?? 3,
    scaling: unequalRanks ? 6 / (ranks[i] ?? 3) : 2,
  }));
  const initial = new Map<string, Tensor>();
  for (const module of moduleNames) {
    const [out, width] = modules[module];
    initial.set(`${module}.lora_A.weight`, draw([3, width], "A", 0.5));
    initial.set(`${module}.lora_B.weight`, draw([out, 3], "B", 0));
  }
  initial.set("head.weight", draw([2, 3], "head", 1));
  initial.set("head.bias", draw([2], "bias", 1));
  return {
    clients,
    numExamples: new Map([
      ["c0", 30],
      ["c1", 50],
      ["c2", 120],
    ]),
    initial,
  };
}

function draw(shape: readonly number[], purpose: string, scale: number): Tensor {
  const random = stream({ seed: SEED, purpose });
  const data = Float32Array.from({ length: shape.reduce((a, b) => a * b, 1) }, () => scale * random.normal());
  return { dtype: "float32", shape, data };
}

/** A federation without training: what a client "learns" is a keyed random step of the given size. */
class Rehearsal<State extends StateTree> {
  readonly strategy: Strategy<State>;
  readonly fleet: Fleet;
  state: State;
  offset: Params = new Map();
  readonly memories = new Map<string, Params>();

  constructor(strategy: Strategy<State>, of: Fleet) {
    this.strategy = strategy;
    this.fleet = of;
    this.state = strategy.init(of.initial, of.clients);
  }

  half(client: ClientRef, round: number) {
    const context = this.context(round);
    const received = this.strategy.broadcast(this.state, client, context);
    return clientHalf(this.strategy, {
      client,
      received,
      memory: this.memories.get(client.id),
      initial: this.fleet.initial,
      context,
    });
  }

  context(round: number) {
    return { round, seed: SEED, numClients: this.fleet.clients.length };
  }

  /** Updates of a round, and the effective weight of every module on every client after training. */
  train(round: number, step: number, clients: readonly ClientRef[] = this.fleet.clients) {
    const updates: Update[] = [];
    const effective = new Map<string, Map<string, Float64Array>>();
    for (const client of clients) {
      const half = this.half(client, round);
      const params = moved(half.start.params, step, `${round}/${client.id}`, half.rule.trainable);
      const numExamples = this.fleet.numExamples.get(client.id) ?? 1;
      const { memory, ...up } = half.upload({ params, numExamples, steps: 4, learningRate: 0.1 });
      this.memories.set(client.id, memory);
      updates.push({ client, numExamples, ...up });
      effective.set(
        client.id,
        this.effective(params, client.scaling, applyChanges(this.offset, half.personalBase)),
      );
    }
    return { updates, effective };
  }

  aggregate(updates: readonly Update[], round: number): Aggregate<State> {
    return this.strategy.aggregate(this.state, updates, this.context(round));
  }

  adopt({ state, base = [] }: Aggregate<State>): void {
    this.state = state;
    this.offset = applyChanges(this.offset, base);
  }

  /** The update of each base weight, at the rank and scaling of the largest client. */
  globalWeights(state: State = this.state, offset: Params = this.offset): Map<string, Float64Array> {
    const largest = this.fleet.clients.reduce((a, b) => (b.rank > a.rank ? b : a));
    return this.effective(this.strategy.global(state, largest), largest.scaling, offset);
  }

  effective(params: Params, scaling: number, offset: Params): Map<string, Float64Array> {
    return new Map(
      moduleNames.map((module) => {
        const [out, width] = modules[module];
        const sum = Float64Array.from(
          offset.get(`${module}.weight`)?.data ?? new Float64Array(out * width),
          Number,
        );
        const a = params.get(`${module}.lora_A.weight`);
        const b = params.get(`${module}.lora_B.weight`);
        const core = params.get(`${module}.lora_C.weight`);
        const difference = params.get(`${module}.difference.weight`);
        const rank = a?.shape[0] ?? 0;
        // A tensor under the name of a base weight stands in its place; the base is what it was before round 1.
        const own = params.get(`${module}.weight`);
        const before = this.fleet.initial.get(`${module}.weight`);
        for (let i = 0; i < out; i++)
          for (let j = 0; j < width; j++) {
            if (own)
              sum[i * width + j]! += Number(own.data[i * width + j]) - Number(before?.data[i * width + j]);
            sum[i * width + j]! += Number(difference?.data[i * width + j] ?? 0);
            for (let r = 0; r < rank; r++)
              for (let q = 0; q < rank; q++) {
                const between = core ? Number(core.data[r * rank + q]) : Number(r === q);
                const left = scaling * Number(b?.data[i * rank + r]) * between;
                sum[i * width + j]! += left * Number(a?.data[q * width + j]);
              }
          }
        return [module, sum];
      }),
    );
  }
}

function moved(
  params: Params,
  step: number,
  key: string,
  trainable: (name: string, phase: number) => boolean = () => true,
): Params {
  return new Map(
    [...params].map(([name, { shape, data }]): [string, Tensor] => {
      const random = stream({ seed: SEED, purpose: `${key}/${name}` });
      const change = trainable(name, 0) ? step : 0;
      return [
        name,
        {
          dtype: "float32",
          shape,
          data: Float32Array.from(numbers(data), (x) => x + change * random.normal()),
        },
      ];
    }),
  );
}

function numbers(data: Iterable<number | bigint>): number[] {
  return [...data].map(Number);
}

function plain(value: unknown): unknown {
  return structuredClone(value);
}

function expectClose(
  got: ReadonlyMap<string, ArrayLike<number>>,
  want: ReadonlyMap<string, ArrayLike<number>>,
): void {
  expect([...got.keys()]).toEqual([...want.keys()]);
  for (const [name, values] of want) {
    const other = got.get(name);
    for (let i = 0; i < values.length; i++) {
      expect(Math.abs((other?.[i] ?? Number.NaN) - (values[i] ?? 0)), `${name}[${i}]`).toBeLessThan(ROUNDING);
    }
  }
}

/** The laws that every strategy keeps. Call it inside a `describe` of the strategy. */
export function describeStrategy<State extends StateTree>(
  make: () => Strategy<State>,
  expectations: StrategyExpectations,
): void {
  const { except = {}, further = [], initial = (pairs) => pairs } = expectations;
  const { declares } = make();
  const whole = fleet(declares.unequalRanks === true);
  const members: Fleet = { ...whole, initial: initial(whole.initial) };
  const rehearse = (of: Fleet = members): Rehearsal<State> => new Rehearsal(make(), of);

  it("leaves its inputs as they were", () => {
    const run = rehearse();
    for (const round of [1, 2]) {
      const before = plain([run.state, run.fleet.initial]);
      const { updates } = run.train(round, 0.3);
      const sent = plain(updates);
      const result = run.aggregate(updates, round);
      expect(plain(updates)).toEqual(sent);
      expect(plain([run.state, run.fleet.initial])).toEqual(before);
      run.adopt(result);
    }
  });

  it("gives the same result twice", () => {
    const twice = [0, 1].map(() => {
      const run = rehearse();
      for (const round of [1, 2]) run.adopt(run.aggregate(run.train(round, 0.3).updates, round));
      return [run.state, run.offset];
    });
    expect(twice[0]).toEqual(twice[1]);
  });

  it("does not depend on the order of the updates, to rounding", () => {
    const run = rehearse();
    run.adopt(run.aggregate(run.train(1, 0.3).updates, 1));
    const { updates } = run.train(2, 0.3);
    const forward = run.aggregate(updates, 2);
    const backward = run.aggregate([...updates].reverse(), 2);
    const weights = [forward, backward].map(({ state, base = [] }) =>
      run.globalWeights(state, applyChanges(run.offset, base)),
    );
    expectClose(weights[1] ?? new Map(), weights[0] ?? new Map());
  });

  it.skipIf(except["single client"])(
    `takes over the model of a single client${except["single client"] ? ` (not here: ${except["single client"]})` : ""}`,
    () => {
      const only = members.clients.filter(({ rank }) => rank === 3).slice(0, 1);
      const run = rehearse({ ...members, clients: only });
      for (const round of [1, 2]) {
        const { updates, effective } = run.train(round, 0.3);
        run.adopt(run.aggregate(updates, round));
        expectClose(run.globalWeights(), effective.get(only[0]?.id ?? "") ?? new Map());
      }
    },
  );

  it.skipIf(except.stays)(
    `stays where it is if no client moved${except.stays ? ` (not here: ${except.stays})` : ""}`,
    () => {
      const run = rehearse();
      const before = run.globalWeights();
      run.adopt(run.aggregate(run.train(1, 0).updates, 1));
      expectClose(run.globalWeights(), before);
    },
  );

  it("goes on from a state that went through JSON and tensors", () => {
    const run = rehearse();
    run.adopt(run.aggregate(run.train(1, 0.3).updates, 1));
    const { json, params } = packState(run.state);
    const restored = unpackState({ json: JSON.parse(JSON.stringify(json)), params });
    expect(restored).toEqual(run.state);
  });

  it("keeps names, shapes and dtypes", () => {
    const run = rehearse();
    run.adopt(run.aggregate(run.train(1, 0.3).updates, 1));
    const layout = (params: Params) =>
      [...params].map(([name, { dtype, shape }]) => [name, dtype, [...shape]]);
    expect(layout(run.strategy.global(run.state))).toEqual(layout(run.fleet.initial));
  });

  it("refuses a round without updates by name", () => {
    const run = rehearse();
    expect(() => run.aggregate([], 1)).toThrow(expect.objectContaining({ code: "empty-round" }));
  });

  it("sends what its row of the documentation says", () => {
    const run = rehearse();
    run.adopt(run.aggregate(run.train(1, 0.3).updates, 1));
    const names = [...run.fleet.initial.keys(), ...further];
    const extras = (way: "down" | "up") =>
      names.filter((name) => expectations.extra?.[way]?.test(name) ?? false).sort();
    for (const client of run.fleet.clients) {
      const down = run.strategy.broadcast(run.state, client, run.context(2));
      expect([...down.params.keys()].sort()).toEqual(
        names.filter((name) => expectations.down.test(name)).sort(),
      );
      expect([...(down.extra ?? new Map()).keys()].sort()).toEqual(extras("down"));
    }
    for (const { params, extra = new Map() } of run.train(2, 0.3).updates) {
      expect([...params.keys()].sort()).toEqual(names.filter((name) => expectations.up.test(name)).sort());
      expect([...extra.keys()].sort()).toEqual(extras("up"));
    }
  });

  it("is not changed by clipping at infinity", () => {
    const run = rehearse();
    const { updates } = run.train(1, 0.3);
    const bare = run.aggregate(updates, 1);
    const wrapped = clipped(make(), { norm: Number.POSITIVE_INFINITY }).aggregate(
      run.state,
      updates,
      run.context(1),
    );
    expect(wrapped).toEqual(bare);
  });

  it.runIf(declares.weightedSum)(
    "reaches the same state from the mean of its updates, as it declares",
    () => {
      const run = rehearse();
      const { updates } = run.train(1, 0.3);
      const total = updates.reduce((sum, { numExamples }) => sum + numExamples, 0);
      const meanOf = (part: (update: Update) => Params) =>
        new Map(
          [...(updates[0] ? part(updates[0]) : new Map<string, Tensor>())].map(
            ([name, { shape, data }]): [string, Tensor] => {
              const values = Float32Array.from(numbers(data), (_, i) =>
                updates.reduce(
                  (sum, u) =>
                    sum +
                    (declares.uniformWeights ? 1 / updates.length : u.numExamples / total) *
                      Number(part(u).get(name)?.data[i]),
                  0,
                ),
              );
              return [name, { dtype: "float32", shape, data: values }];
            },
          ),
        );
      const params = meanOf((update) => update.params);
      const extra = meanOf((update) => update.extra ?? new Map());
      const client = run.fleet.clients[0] ?? { id: "c0", rank: 3, scaling: 2 };
      const streamed = run.aggregate(
        [{ client, numExamples: total, params, ...(extra.size > 0 && { extra }), folded: updates.length }],
        1,
      );
      expectClose(run.globalWeights(streamed.state), run.globalWeights(run.aggregate(updates, 1).state));
      expect(streamed.measurements ?? {}, "a streamed mean cannot know its deviation").toEqual({});
    },
  );

  it.runIf(declares.moduleWise)(
    "gives the same bits one module after the other, as it declares",
    async () => {
      const run = rehearse();
      for (const round of [1, 2]) {
        const { updates } = run.train(round, 0.3);
        const whole = run.aggregate(updates, round);
        const sizes: number[] = [];
        const parts = await aggregateByModule(run.strategy, {
          state: run.state,
          context: run.context(round),
          read: (names) => {
            sizes.push(names.size);
            const part = (params: Params = new Map()) => select(params, (name) => names.has(name));
            return updates.map((u) => ({
              ...u,
              params: part(u.params),
              ...(u.extra && { extra: part(u.extra) }),
            }));
          },
        });
        expect(parts).toEqual(whole);
        expect(Math.max(...sizes)).toBeLessThan(run.fleet.initial.size / 2);
        run.adopt(whole);
      }
    },
  );

  it(`${declares.changesBase ? "changes" : "leaves"} the base, as it declares`, () => {
    const run = rehearse();
    for (const round of [1, 2]) run.adopt(run.aggregate(run.train(round, 0.3).updates, round));
    expect(run.offset.size > 0).toBe(declares.changesBase === true);
  });

  it.skipIf(except.deviation)(
    `measures its deviation from the mean of the clients' weights${except.deviation ? ` (not here: ${except.deviation})` : ""}`,
    () => {
      const run = rehearse();
      for (const round of [1, 2, 3]) {
        const present = run.fleet.clients.slice(round === 2 ? 1 : 0);
        const { updates, effective } = run.train(round, 0.3, present);
        const result = run.aggregate(updates, round);
        run.adopt(result);
        const total = updates.reduce((sum, u) => sum + (declares.uniformWeights ? 1 : u.numExamples), 0);
        for (const [module, got] of run.globalWeights()) {
          const squares = got.reduce((sum, x, i) => {
            const ideal = updates.reduce(
              (mean, u) =>
                mean +
                ((declares.uniformWeights ? 1 : u.numExamples) / total) *
                  (effective.get(u.client.id)?.get(module)?.[i] ?? 0),
              0,
            );
            return sum + (x - ideal) ** 2;
          }, 0);
          const measured = result.measurements?.[`deviation/${module}`] ?? Number.NaN;
          expect(Math.abs(measured - Math.sqrt(squares)), `round ${round}, ${module}`).toBeLessThan(ROUNDING);
        }
      }
    },
  );
}
