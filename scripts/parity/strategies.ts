import { existsSync, readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { applyChanges, effectiveWeight } from "../../src/federation/base-chain.ts";
import { clientHalf } from "../../src/federation/local-rule.ts";
import type { Aggregate, ClientRef, StateTree, Strategy, Update } from "../../src/federation/strategy.ts";
import { gradients } from "../../src/graph/gradients.ts";
import { scalar } from "../../src/graph/ops.ts";
import { input } from "../../src/graph/value.ts";
import { fedAvg } from "../../src/strategies/fedavg.ts";
import {
  fedexLora,
  fedexLoraKeepLocal,
  fedexLoraReinit,
  products,
  residual,
} from "../../src/strategies/fedex-lora.ts";
import { fedIt } from "../../src/strategies/fedit.ts";
import { fedAdagrad, fedAdam, fedYogi } from "../../src/strategies/fedopt.ts";
import { fedProx } from "../../src/strategies/fedprox.ts";
import { ffaLora } from "../../src/strategies/ffa-lora.ts";
import { flexLora, meanProduct } from "../../src/strategies/flexlora.ts";
import { type LowRankTerm, type Svd, svd, svdOfSum } from "../../src/tensor/linalg.ts";
import { type Matrix, matmul, matrixOf } from "../../src/tensor/matrix.ts";
import { type Params, weightedMean } from "../../src/tensor/params.ts";
import type { Tensor } from "../../src/tensor/tensor.ts";
import { array64, evaluate } from "../../test/graph/evaluator.ts";
import type { ParityLine } from "./line.ts";

type Precision = "float64" | "float32";
type Nested = number | readonly Nested[];
type TensorSet = Readonly<Record<string, Nested>>;

interface GoldenRound {
  readonly round: number;
  readonly participants: readonly string[];
  readonly trained: Readonly<Record<string, TensorSet>>;
  readonly expect: Readonly<Record<string, unknown>>;
}

interface Golden {
  readonly method: string;
  readonly config: Readonly<Record<string, unknown>>;
  readonly modules: Readonly<Record<string, { readonly out: number; readonly in: number }>>;
  readonly clients: Readonly<
    Record<string, { readonly numExamples: number; readonly rank?: number; readonly scaling?: number }>
  >;
  readonly initial: {
    readonly base?: TensorSet;
    readonly server?: TensorSet;
    readonly clients?: Readonly<Record<string, TensorSet>>;
    readonly trained?: Readonly<Record<string, TensorSet>>;
  };
  readonly rounds: readonly GoldenRound[];
  readonly expect?: Readonly<Record<string, unknown>>;
  readonly compare: { readonly unique: readonly string[] };
  readonly local?: FedProxLocal;
}

interface FedProxLocal {
  readonly lr: number;
  readonly steps: number;
  readonly objectives: Readonly<
    Record<string, { readonly curvature: TensorSet; readonly center: TensorSet }>
  >;
}

/** Keys of `expect` that a method's own observations answer, beside those that `Replay` answers for all. */
type Observe<State extends StateTree> = (
  replay: Replay<State>,
  round: GoldenRound,
  step: Step<State>,
) => Record<string, unknown>;

/** Compares every golden strategy under `dir` with ours, in float64 and in float32. */
export async function* strategyCases(dir: string): AsyncIterable<ParityLine> {
  const folder = join(dir, "strategies");
  if (existsSync(folder)) {
    for (const file of readdirSync(folder)
      .filter((name) => name.endsWith(".json"))
      .sort()) {
      const golden: Golden = JSON.parse(readFileSync(join(folder, file), "utf8"));
      const compare = methods[golden.method];
      if (!compare) {
        yield unsupported(`strategies/${file}`, `no strategy of ours implements "${golden.method}" yet`);
        continue;
      }
      for (const precision of ["float64", "float32"] as const) {
        yield line(`strategies/${file} ${precision}`, precision, (check) =>
          compare(golden, precision, check),
        );
      }
    }
  }
  const fedopt = join(dir, "optim", "fedopt.json");
  if (existsSync(fedopt)) {
    for (const precision of ["float64", "float32"] as const) {
      yield line(`optim/fedopt.json ${precision}`, precision, (check) =>
        compareFedOpt(fedopt, precision, check),
      );
    }
  }
}

const methods: Readonly<Record<string, (golden: Golden, precision: Precision, check: Check) => void>> = {
  fedavg: (golden, precision, check) => replay(golden, precision, check, fedAvg(weighting(golden))),
  fedprox: (golden, precision, check) =>
    replay(
      golden,
      precision,
      check,
      fedProx({ ...weighting(golden), mu: Number(golden.config.mu) }),
      proximal,
    ),
  fedit: (golden, precision, check) => replay(golden, precision, check, fedIt(weighting(golden)), averaged),
  "ffa-lora": (golden, precision, check) =>
    replay(golden, precision, check, ffaLora(weighting(golden)), averaged),
  flexlora: (golden, precision, check) =>
    replay(golden, precision, check, flexLora(weighting(golden)), flexible),
  "fedex-lora": (golden, precision, check) =>
    replay(golden, precision, check, fedexLora(weighting(golden)), corrected),
  "fedex-lora-truncated": (golden, precision, check) =>
    replay(
      golden,
      precision,
      check,
      fedexLora({ ...weighting(golden), residualRank: Number(golden.config.residualRank) }),
      corrected,
    ),
  "fedex-lora-reinit": (golden, precision, check) =>
    replay(golden, precision, check, fedexLoraReinit(weighting(golden))),
  "fedex-lora-keep-local": (golden, precision, check) =>
    replay(golden, precision, check, fedexLoraKeepLocal(weighting(golden)), keptLocal),
  fedadagrad: (golden, precision, check) =>
    replay(golden, precision, check, fedAdagrad(serverOptions(golden.config, golden)), optimized),
  fedadam: (golden, precision, check) =>
    replay(golden, precision, check, fedAdam(serverOptions(golden.config, golden)), optimized),
  fedyogi: (golden, precision, check) =>
    replay(golden, precision, check, fedYogi(serverOptions(golden.config, golden)), optimized),
  comparison: compareErrors,
};

/** What a golden round is compared with after it was replayed. */
interface Step<State extends StateTree> {
  readonly updates: readonly Update[];
  readonly weights: readonly number[];
  readonly before: State;
  readonly result: Aggregate<State>;
}

/** A golden federation run through a strategy's own functions, local training replaced by the given result. */
class Replay<State extends StateTree> {
  readonly golden: Golden;
  readonly precision: Precision;
  readonly strategy: Strategy<State>;
  readonly clients: readonly ClientRef[];
  readonly initial: Params;
  readonly base: Params;
  readonly memories = new Map<string, Params>();
  state: State;
  offset: Params = new Map();

  constructor(golden: Golden, precision: Precision, strategy: Strategy<State>) {
    this.golden = golden;
    this.precision = precision;
    this.strategy = strategy;
    this.clients = Object.entries(golden.clients).map(([id, { rank = 0, scaling = 1 }]) => ({
      id,
      rank,
      scaling,
    }));
    const largest = this.clients.reduce((a, b) => (b.rank > a.rank ? b : a));
    const { server, clients = {}, base = server ?? {} } = golden.initial;
    this.initial = this.params(server ?? clients[largest.id] ?? clients["*"] ?? {});
    this.base = this.params(base);
    this.state = strategy.init(this.initial, this.clients);
  }

  params(set: TensorSet): Params {
    return new Map(
      Object.entries(set).map(([name, values]) => {
        const shape = shapeOf(values);
        const data = flat(values);
        const ours = name.replace(/\.lora([AB])$/, ".lora_$1.weight");
        const tensor: Tensor =
          this.precision === "float64"
            ? { dtype: "float64", shape, data: Float64Array.from(data) }
            : { dtype: "float32", shape, data: Float32Array.from(data) };
        return [ours, tensor];
      }),
    );
  }

  half(client: ClientRef, round: number) {
    const context = { round, seed: 1, numClients: this.clients.length };
    const received = this.strategy.broadcast(this.state, client, context);
    return clientHalf(this.strategy, {
      client,
      received,
      memory: this.memories.get(client.id),
      initial: this.initial,
      context,
    });
  }

  /** Runs one round and leaves the federation after it. */
  run({
    round,
    participants,
    trained,
  }: GoldenRound): Step<State> & { readonly ideal: ReadonlyMap<string, Float64Array> } {
    const ideals: ReadonlyMap<string, Float64Array>[] = [];
    const updates = participants.map((id): Update => {
      const client = this.client(id);
      const half = this.half(client, round);
      const given = this.params(trained[id] ?? {});
      const params = new Map([...half.start.params].map(([name, start]) => [name, given.get(name) ?? start]));
      const numExamples = this.golden.clients[id]?.numExamples ?? 0;
      const { memory, ...up } = half.upload({ params, numExamples, steps: 1, learningRate: 1 });
      ideals.push(this.effective(params, client, applyChanges(this.offset, half.personalBase)));
      this.memories.set(id, memory);
      return { client, numExamples, ...up };
    });
    const before = this.state;
    const result = this.strategy.aggregate(before, updates, {
      round,
      seed: 1,
      numClients: this.clients.length,
    });
    this.state = result.state;
    this.offset = applyChanges(this.offset, result.base ?? []);
    const weights = updates.map(({ numExamples }) =>
      this.strategy.declares.uniformWeights ? 1 : numExamples,
    );
    const total = weights.reduce((a, b) => a + b, 0);
    const ideal = new Map(
      Object.keys(this.golden.modules).map((module): [string, Float64Array] => {
        const mean = new Float64Array(ideals[0]?.get(module)?.length ?? 0);
        ideals.forEach((one, k) => {
          one.get(module)?.forEach((x, i) => {
            mean[i] = (mean[i] ?? 0) + ((weights[k] ?? 0) / total) * x;
          });
        });
        return [module, mean];
      }),
    );
    return { updates, weights, before, result, ideal };
  }

  client(id: string): ClientRef {
    const client = this.clients.find((one) => one.id === id);
    if (!client) throw new RangeError(`golden: unknown client ${id}`);
    return client;
  }

  /** The weight of every module as a client holds it. */
  effective(params: Params, { scaling }: ClientRef, offset: Params): ReadonlyMap<string, Float64Array> {
    return new Map(
      Object.keys(this.golden.modules).map((module): [string, Float64Array] => {
        const name = `${module}.weight`;
        const own = params.get(name);
        if (own) return [module, values(own)];
        const base = this.base.get(name);
        if (!base) throw new RangeError(`golden: no base weight ${name}`);
        const weight = values(effectiveWeight(base, offset.get(name)));
        const a = params.get(`${module}.lora_A.weight`);
        const b = params.get(`${module}.lora_B.weight`);
        if (a && b)
          matmul(matrixOf(b), matrixOf(a)).data.forEach((x, i) => {
            weight[i] = (weight[i] ?? 0) + scaling * x;
          });
        return [module, weight];
      }),
    );
  }

  /** What each client holds when the round is over: its frozen weights, and those with its adapter. */
  held(round: number) {
    return new Map(
      this.clients.map((client) => {
        const half = this.half(client, round + 1);
        const offset = applyChanges(this.offset, half.personalBase);
        return [
          client.id,
          {
            base: this.effective(new Map(), client, offset),
            effective: this.effective(half.start.params, client, offset),
            received: half.local.received.params,
          },
        ] as const;
      }),
    );
  }
}

function replay<State extends StateTree>(
  golden: Golden,
  precision: Precision,
  check: Check,
  strategy: Strategy<State>,
  observe: Observe<State> = () => ({}),
): void {
  const federation = new Replay(golden, precision, strategy);
  for (const round of golden.rounds) {
    const step = federation.run(round);
    const { updates, result, ideal } = step;
    const hasBase = golden.initial.base !== undefined;
    const held = federation.held(round.round);
    const each = <T>(pick: (id: string) => T) =>
      Object.fromEntries(federation.clients.map(({ id }) => [id, pick(id)]));
    const pretrained = federation.effective(
      hasBase ? new Map() : federation.initial,
      { id: "", rank: 0, scaling: 1 },
      new Map(),
    );
    const off = (x: ReadonlyMap<string, Float64Array>, y: ReadonlyMap<string, Float64Array>) =>
      Object.fromEntries(
        [...x].map(([module, one]) => [module, one.map((v, i) => v - (y.get(module)?.[i] ?? 0))]),
      );
    const norms = (set: Readonly<Record<string, Float64Array>>) =>
      Object.fromEntries(Object.entries(set).map(([module, x]) => [module, length(x)]));
    const ranks = (set: Readonly<Record<string, Float64Array>>) =>
      Object.fromEntries(
        Object.entries(set).map(([module, x]) => [module, rankOf(matrixLike(golden, module, x))]),
      );
    const deviation = each((id) => norms(off(held.get(id)?.effective ?? new Map(), ideal)));
    const goal = norms(off(ideal, pretrained));
    const upCount = (update: Update) => scalars(update.params) + scalars(update.extra ?? new Map());
    const observed: Record<string, unknown> = {
      upload: Object.fromEntries(updates.map(({ client, params }) => [client.id, named(params)])),
      server: named(strategy.global(result.state)),
      head: values(strategy.global(result.state).get("head.weight")),
      broadcast: each((id) => named(held.get(id)?.received ?? new Map())),
      effective: each((id) => weightsOf(held.get(id)?.effective)),
      base: each((id) => weightsOf(held.get(id)?.base)),
      analysis: {
        deviation,
        relativeDeviation: each((id) =>
          Object.fromEntries(
            Object.entries(deviation[id] ?? {}).map(([m, x]) => [m, x / Math.max(goal[m] ?? 0, 1e-300)]),
          ),
        ),
        rank: {
          idealUpdate: each(() => ranks(off(ideal, pretrained))),
          effectiveUpdate: each((id) => ranks(off(held.get(id)?.effective ?? new Map(), pretrained))),
        },
      },
      traffic: {
        up: Object.fromEntries(updates.map((update) => [update.client.id, upCount(update)])),
        down: each((id) => scalars(held.get(id)?.received ?? new Map())),
        downAsFactors: each(
          (id) => scalars(held.get(id)?.received ?? new Map()) + factorScalars(golden, step),
        ),
      },
      ...observe(federation, round, step),
    };
    const where = `round ${round.round}`;
    for (const [key, expected] of Object.entries(round.expect)) {
      if (!golden.compare.unique.includes(key)) continue;
      check.tree(`${where} ${key}`, observed[key], expected);
    }
    if (golden.compare.unique.includes("trained") && observed.trained)
      check.tree(`${where} trained`, observed.trained, round.trained);
    // What the strategy measures itself, against the dense algebra of the golden.
    const largest = federation.clients.reduce((a, b) => (b.rank > a.rank ? b : a));
    for (const [module, x] of Object.entries(deviation[largest.id] ?? {})) {
      check.tree(`${where} measured deviation of ${module}`, result.measurements?.[`deviation/${module}`], x);
    }
  }
}

const averaged: Observe<Params> = (federation, _, { updates, weights, result }) => ({
  residual: residualReport(federation.golden, (module) => {
    const full = updates.map((update) => ({
      ...update,
      params: new Map([...result.state, ...update.params]),
    }));
    return {
      residual: residual(full, weights, module, result.state),
      ideal: products(full, weights, module),
    };
  }),
});

const corrected: Observe<Params> = (federation, round, { updates, weights, before, result }) => ({
  residual: residualReport(federation.golden, (module) => ({
    residual: residual(updates, weights, module, result.state),
    ideal: products(updates, weights, module),
  })),
  residualSent: sentProducts(federation.golden, result),
  errorOfEveryRank: Object.fromEntries(
    Object.keys((round.expect.errorOfEveryRank as Record<string, unknown> | undefined) ?? {}).map((q) => {
      const strategy = fedexLora({ ...weighting(federation.golden), residualRank: Number(q) });
      const { measurements = {} } = strategy.aggregate(before, updates, {
        round: round.round,
        seed: 1,
        numClients: 1,
      });
      return [q, perModule(federation.golden, (module) => measurements[`deviation/${module}`] ?? Number.NaN)];
    }),
  ),
});

const keptLocal: Observe<StateTree & Parameters<ReturnType<typeof fedexLoraKeepLocal>["aggregate"]>[0]> = (
  federation,
  _,
  { result },
) => ({
  meanChange: sentProducts(federation.golden, result),
  meanWeight: weightsOf(federation.effective(new Map(), { id: "", rank: 0, scaling: 1 }, federation.offset)),
});

const flexible: Observe<Parameters<ReturnType<typeof flexLora>["aggregate"]>[0]> = (
  federation,
  _,
  { updates, weights, result },
) => {
  const { golden } = federation;
  const mean = (module: string) => meanProduct(updates, weights, module);
  return {
    meanProduct: perModule(golden, (module) => dense(mean(module))),
    singularValues: perModule(golden, (module) => padded(mean(module).singularValues, golden, module)),
    truncationError: Object.fromEntries(
      federation.clients.map(({ id, rank }) => [
        id,
        perModule(golden, (module) => {
          const label = rank === result.state.ranks[0] ? module : `${module}/rank-${rank}`;
          return result.measurements?.[`deviation/${label}`] ?? Number.NaN;
        }),
      ]),
    ),
  };
};

const optimized: Observe<Parameters<ReturnType<typeof fedAdam>["aggregate"]>[0]> = (
  _,
  __,
  { updates, weights, result },
) => ({
  average: named(
    weightedMean(
      updates.map(({ params }) => params),
      weights,
    ),
  ),
  optimizer: {
    // The golden's m runs along θ − mean, ours along mean − θ.
    momentum: Object.fromEntries(
      Object.entries(named(result.state.momentum)).map(([name, m]) => [name, m.map((x) => -x)]),
    ),
    secondMoment: named(result.state.secondMoment),
  },
});

const proximal: Observe<Params> = (federation, round, { before }) => {
  const { golden } = federation;
  const penalty = federation.strategy.local?.penalty;
  const specs = [...before].map(([name, { shape }]) => ({ name, shape }));
  const w = new Map(specs.map(({ name, shape }) => [name, input(name, "float64", shape)]));
  const start = new Map(specs.map(({ name, shape }) => [name, input(`received/${name}`, "float64", shape)]));
  const value = penalty ? penalty(w, start) : scalar(0, "float64");
  const trainables = [...w.values()];
  const inputs = [...trainables, ...start.values()];
  const outputs = [value, ...(penalty ? gradients(value, trainables) : [])];
  const feeds = (at: ReadonlyMap<string, Float64Array>) =>
    new Map(
      specs.flatMap(({ name, shape }) => [
        [name, array64(shape, at.get(name) ?? [])] as const,
        [`received/${name}`, array64(shape, values(before.get(name)))] as const,
      ]),
    );
  const { lr, steps, objectives } = golden.local ?? { lr: 0, steps: 0, objectives: {} };
  const trained: Record<string, Record<string, Float64Array>> = {};
  const penaltyAtEnd: Record<string, number> = {};
  for (const id of round.participants) {
    const curvature = federation.params(objectives[id]?.curvature ?? {});
    const center = federation.params(objectives[id]?.center ?? {});
    const at = new Map([...before].map(([name, tensor]) => [name, values(tensor)]));
    for (let step = 0; step < steps; step++) {
      const [, ...pulls] = evaluate(outputs, inputs, feeds(at));
      specs.forEach(({ name }, k) => {
        const h = values(curvature.get(name));
        const c = values(center.get(name));
        const x = at.get(name) ?? new Float64Array();
        at.set(
          name,
          x.map((v, i) => v - lr * ((h[i] ?? 0) * (v - (c[i] ?? 0)) + (pulls[k]?.data[i] ?? 0))),
        );
      });
    }
    trained[id] = Object.fromEntries(at);
    penaltyAtEnd[id] = evaluate(outputs.slice(0, 1), inputs, feeds(at))[0]?.data[0] ?? Number.NaN;
  }
  return { trained, penaltyAtEnd };
};

/** comparison.json: the distance of every rule from the ideal mean of one set of factors, unscaled. */
function compareErrors(golden: Golden, precision: Precision, check: Check): void {
  const { trained = {} } = golden.initial;
  const one: Golden = {
    ...golden,
    initial: { server: trained[Object.keys(trained)[0] ?? ""] ?? {}, base: {} },
  };
  const updates = Object.entries(trained).map(([id, set]): Update => {
    const { numExamples = 0, rank = 0, scaling = 1 } = golden.clients[id] ?? {};
    return {
      client: { id, rank, scaling },
      numExamples,
      params: new Replay(one, precision, fedIt()).params(set),
    };
  });
  const weights = updates.map(({ numExamples }) => numExamples);
  const initial = updates[0]?.params ?? new Map();
  const scaling = updates[0]?.client.scaling ?? 1;
  const clients = updates.map(({ client }) => client);
  const error = <State extends StateTree>(strategy: Strategy<State>, module: string): number => {
    const { measurements = {} } = strategy.aggregate(strategy.init(initial, clients), updates, {
      round: 1,
      seed: 1,
      numClients: clients.length,
    });
    return (measurements[`deviation/${module}`] ?? Number.NaN) / scaling;
  };
  const options = weighting(golden);
  const ideals = new Map(
    Object.keys(golden.modules).map((module) => [module, svdOfSum(products(updates, weights, module))]),
  );
  const spectrum = (module: string) =>
    padded(ideals.get(module)?.singularValues ?? new Float64Array(), golden, module);
  const mean = fedIt(options).aggregate(initial, updates, {
    round: 1,
    seed: 1,
    numClients: clients.length,
  }).state;
  const { errors, idealProduct, singularValuesOfIdeal } = golden.expect ?? {};
  const table = errors as Readonly<Record<string, Readonly<Record<string, number>>>>;
  for (const [module, row] of Object.entries(table)) {
    for (const [rule, expected] of Object.entries(row)) {
      const q = /^fedexRank(\d+)$/.exec(rule)?.[1];
      if (rule.startsWith("loraFair") || rule === "flora") check.skip(rule);
      else if (rule === "idealNorm") check.tree(rule, length(spectrum(module)), expected);
      else if (rule === "rankOfIdeal") check.tree(rule, rankFrom(spectrum(module)), expected);
      else if (rule === "rankOfResidual")
        check.tree(
          rule,
          rankFrom(svdOfSum(residual(updates, weights, module, mean)).singularValues),
          expected,
        );
      else if (rule === "fedit") check.tree(rule, error(fedIt(options), module), expected);
      else if (rule === "flexlora") check.tree(rule, error(flexLora(options), module), expected);
      else if (rule === "fedexExact") check.tree(rule, error(fedexLora(options), module), expected);
      else if (q !== undefined)
        check.tree(rule, error(fedexLora({ ...options, residualRank: Number(q) }), module), expected);
      else check.tree(rule, undefined, expected);
    }
  }
  check.tree(
    "idealProduct",
    perModule(golden, (module) => dense(ideals.get(module))),
    idealProduct,
  );
  check.tree("singularValuesOfIdeal", perModule(golden, spectrum), singularValuesOfIdeal);
}

interface GoldenFedOpt {
  readonly start: TensorSet;
  readonly deltas: readonly unknown[];
  readonly runs: readonly {
    readonly optimizer: string;
    readonly options: Readonly<Record<string, number>>;
    readonly rounds: readonly { readonly x: TensorSet; readonly m: TensorSet; readonly v: TensorSet }[];
  }[];
}

/** optim/fedopt.json: `deltas[round][client]`, or one set per client that is the same in every round. */
function compareFedOpt(path: string, precision: Precision, check: Check): void {
  const golden: GoldenFedOpt = JSON.parse(readFileSync(path, "utf8"));
  const shell: Golden = {
    method: "",
    config: {},
    modules: {},
    clients: { c: { numExamples: 1 } },
    initial: { server: golden.start },
    rounds: [],
    compare: { unique: [] },
  };
  for (const [index, { optimizer, options, rounds }] of golden.runs.entries()) {
    const make = { FedAdagrad: fedAdagrad, FedAdam: fedAdam, FedYogi: fedYogi }[optimizer];
    if (!make) {
      check.skip(optimizer);
      continue;
    }
    const federation = new Replay(
      shell,
      precision,
      make({ ...serverOptions(options), weighting: "uniform" }),
    );
    rounds.forEach(({ x, m, v }, t) => {
      const round = golden.deltas[t];
      const sets = (Array.isArray(round) ? round : golden.deltas) as TensorSet[];
      const { params } = federation.state;
      const updates = sets.map((delta, k): Update => {
        const client = { id: `c${k}`, rank: 0, scaling: 1 };
        const moved = federation.params(delta);
        return { client, numExamples: 1, params: sum(params, moved) };
      });
      const result = federation.strategy.aggregate(federation.state, updates, {
        round: t + 1,
        seed: 1,
        numClients: sets.length,
      });
      federation.state = result.state;
      const where = `${optimizer} ${index} round ${t + 1}`;
      check.tree(`${where} x`, named(result.state.params), x);
      check.tree(`${where} m`, named(result.state.momentum), m);
      check.tree(`${where} v`, named(result.state.secondMoment), v);
    });
  }
}

function weighting({ config }: Golden): { weighting: "samples" | "uniform" } {
  return { weighting: config.weighting === "uniform" ? "uniform" : "samples" };
}

function serverOptions(config: Readonly<Record<string, unknown>>, golden?: Golden) {
  return {
    ...(golden && weighting(golden)),
    ...(config.eta !== undefined && { serverLearningRate: Number(config.eta) }),
    ...(config.beta1 !== undefined && { beta1: Number(config.beta1) }),
    ...(config.beta2 !== undefined && { beta2: Number(config.beta2) }),
    ...(config.tau !== undefined && { tau: Number(config.tau) }),
  };
}

/** Collects the differences of one case. */
class Check {
  readonly precision: Precision;
  maxAbs = 0;
  maxRel = 0;
  readonly compared = new Set<string>();
  readonly failures: string[] = [];
  readonly skipped = new Set<string>();

  constructor(precision: Precision) {
    this.precision = precision;
  }

  skip(what: string): void {
    this.skipped.add(what);
  }

  tree(path: string, got: unknown, expected: unknown): void {
    const label =
      path
        .replace(/^.*round \d+ /, "")
        .replace(/ of .*/, "")
        .split("/")[0] ?? path;
    if (/(^|\/| )(rank|rankOf\w+)(\/|$)/.test(path) && this.precision === "float32") {
      this.skip("ranks, which float32 noise hides");
      return;
    }
    this.compared.add(label);
    if (isNumeric(expected)) {
      const want = flat(expected);
      const have = isNumeric(got)
        ? flat(got)
        : ArrayBuffer.isView(got)
          ? Array.from(got as Float64Array)
          : undefined;
      if (!have || have.length !== want.length) {
        this.failures.push(
          `${path}: got ${have ? `${have.length} numbers` : "nothing"}, expected ${want.length}`,
        );
        return;
      }
      const largest = want.reduce((a, x) => Math.max(a, Math.abs(x)), 0);
      const worst = want.reduce((a, x, i) => {
        const difference = Math.abs(x - (have[i] ?? Number.NaN));
        return Number.isNaN(difference) ? Number.NaN : Math.max(a, difference);
      }, 0);
      this.maxAbs = Math.max(this.maxAbs, worst);
      if (largest > 0) this.maxRel = Math.max(this.maxRel, worst / Math.max(1, largest));
      const limit = tolerances[this.precision] * (this.precision === "float32" ? Math.max(1, largest) : 1);
      if (!(worst <= limit)) this.failures.push(`${path}: off by ${worst.toExponential(2)}`);
    } else if (expected !== null && typeof expected === "object") {
      const fields = (got ?? {}) as Readonly<Record<string, unknown>>;
      const wanted = Object.entries(expected);
      if (wanted.length === 1 && wanted[0]?.[0] === "*") {
        for (const [who, field] of Object.entries(fields)) this.tree(`${path}/${who}`, field, wanted[0][1]);
        if (Object.keys(fields).length === 0) this.failures.push(`${path}: nothing to compare`);
        return;
      }
      for (const [key, field] of wanted) this.tree(`${path}/${key}`, fields[key], field);
      const surplus = Object.keys(fields).filter((key) => !(key in expected));
      if (surplus.length > 0 && /upload\/|broadcast\//.test(path))
        this.failures.push(`${path}: surplus ${surplus.join(", ")}`);
    } else if (got !== expected) {
      this.failures.push(`${path}: got ${String(got)}, expected ${String(expected)}`);
    }
  }
}

const tolerances: Readonly<Record<Precision, number>> = { float64: 1e-10, float32: 2e-5 };

function line(name: string, precision: Precision, compare: (check: Check) => void): ParityLine {
  const check = new Check(precision);
  try {
    compare(check);
  } catch (error) {
    check.failures.push(error instanceof Error ? error.message : String(error));
  }
  const notes = [
    ...(check.failures.length > 0 ? [check.failures.slice(0, 3).join("; ")] : []),
    ...(check.skipped.size > 0 ? [`not compared: ${[...check.skipped].join(", ")}`] : []),
  ];
  return {
    name,
    what: [...check.compared].join(", "),
    maxAbs: check.maxAbs,
    maxRel: check.maxRel,
    tolerance: tolerances[precision],
    verdict: check.failures.length === 0 && check.compared.size > 0 ? "passed" : "failed",
    ...(notes.length > 0 && { note: notes.join("; ") }),
  };
}

function unsupported(name: string, note: string): ParityLine {
  return { name, what: "", maxAbs: 0, maxRel: 0, tolerance: 0, verdict: "unsupported", note };
}

/** Norm, share, rank and spectrum of R for every module. */
function residualReport(
  golden: Golden,
  terms: (module: string) => {
    readonly residual: readonly LowRankTerm[];
    readonly ideal: readonly LowRankTerm[];
  },
) {
  const of = (module: string) => {
    const { residual: r, ideal } = terms(module);
    const spectrum = r.length > 0 ? svdOfSum(r).singularValues : new Float64Array();
    return { spectrum: padded(spectrum, golden, module), ideal: length(svdOfSum(ideal).singularValues) };
  };
  return {
    norm: perModule(golden, (module) => length(of(module).spectrum)),
    ratioToT: perModule(golden, (module) => length(of(module).spectrum) / of(module).ideal),
    rank: perModule(golden, (module) => rankFrom(of(module).spectrum)),
    singularValues: perModule(golden, (module) => of(module).spectrum),
  };
}

/** The unscaled product that the round added to the base, for every module. */
function sentProducts(golden: Golden, { base = [] }: Aggregate<StateTree>) {
  const scaling = Number(golden.config.scaling);
  const change = applyChanges(new Map(), base);
  return perModule(golden, (module) => {
    const { out, in: width } = golden.modules[module] ?? { out: 0, in: 0 };
    const tensor = change.get(`${module}.weight`);
    return tensor ? values(tensor).map((x) => x / scaling) : new Float64Array(out * width);
  });
}

/** Scalars of the round's base changes if all of them travelled as factors; a dense one has the rank of its residual. */
function factorScalars<State extends StateTree>(
  golden: Golden,
  { updates, weights, result }: Step<State>,
): number {
  const { base = [] } = result;
  return base
    .flatMap((change) => {
      if (change.kind === "factors")
        return [...change.left.values(), ...change.right.values()].map(({ data }) => data.length);
      const mean = weightedMean(
        updates.map(({ params }) => params),
        weights,
      );
      return [...change.difference.keys()].map((name) => {
        const module = name.replace(/\.weight$/, "");
        const { out, in: width } = golden.modules[module] ?? { out: 0, in: 0 };
        const rank = rankFrom(svdOfSum(residual(updates, weights, module, mean)).singularValues);
        return Math.min(rank, Number(golden.config.residualRank ?? rank)) * (out + width);
      });
    })
    .reduce((a, b) => a + b, 0);
}

function perModule<T>({ modules }: Golden, of: (module: string) => T): Record<string, T> {
  return Object.fromEntries(Object.keys(modules).map((module) => [module, of(module)]));
}

function padded(spectrum: Float64Array, { modules }: Golden, module: string): Float64Array {
  const { out, in: width } = modules[module] ?? { out: 0, in: 0 };
  const full = new Float64Array(Math.min(out, width));
  full.set(spectrum.subarray(0, full.length));
  return full;
}

function dense(decomposition: Svd | undefined): Float64Array {
  if (!decomposition) return new Float64Array();
  const { u, singularValues, vt } = decomposition;
  return matmul({ ...u, data: u.data.map((x, i) => x * (singularValues[i % u.cols] ?? 0)) }, vt).data;
}

function matrixLike({ modules }: Golden, module: string, data: Float64Array): Matrix {
  const { out, in: width } = modules[module] ?? { out: 0, in: 0 };
  return { rows: out, cols: width, data };
}

function rankOf(x: Matrix): number {
  return rankFrom(svd(x).singularValues);
}

/** The goldens' rule: singular values above 1e-9 * max(1, largest). */
function rankFrom(singularValues: Float64Array): number {
  return singularValues.filter((sigma) => sigma > 1e-9 * Math.max(1, singularValues[0] ?? 0)).length;
}

function weightsOf(modules: ReadonlyMap<string, Float64Array> | undefined): Record<string, Float64Array> {
  return Object.fromEntries([...(modules ?? [])].map(([module, x]) => [`${module}.weight`, x]));
}

/** Our tensors under the goldens' names. */
function named(params: Params): Record<string, Float64Array> {
  return Object.fromEntries(
    [...params].map(([name, tensor]) => [name.replace(/\.lora_([AB])\.weight$/, ".lora$1"), values(tensor)]),
  );
}

function sum(x: Params, y: Params): Params {
  return new Map(
    [...x].map(([name, tensor]): [string, Tensor] => {
      const other = values(y.get(name));
      const data = values(tensor).map((v, i) => v + (other[i] ?? 0));
      return [
        name,
        tensor.dtype === "float64"
          ? { dtype: "float64", shape: tensor.shape, data }
          : { dtype: "float32", shape: tensor.shape, data: Float32Array.from(data) },
      ];
    }),
  );
}

function values(tensor: Tensor | undefined): Float64Array {
  return tensor ? Float64Array.from([...tensor.data].map(Number)) : new Float64Array();
}

function scalars(params: Params): number {
  return [...params.values()].reduce((total, { data }) => total + data.length, 0);
}

function length(x: Float64Array): number {
  return Math.sqrt(x.reduce((total, v) => total + v * v, 0));
}

function isNumeric(value: unknown): value is Nested {
  return typeof value === "number" || (Array.isArray(value) && value.every(isNumeric));
}

function flat(value: Nested): number[] {
  return typeof value === "number" ? [value] : value.flatMap(flat);
}

function shapeOf(value: Nested): number[] {
  if (typeof value === "number") return [];
  return [value.length, ...(value[0] === undefined ? [] : shapeOf(value[0]))];
}
