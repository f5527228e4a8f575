import { existsSync, readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import type { StateTree, Strategy, Update } from "../../src/federation/strategy.ts";
import { gradients } from "../../src/graph/gradients.ts";
import { scalar } from "../../src/graph/ops.ts";
import { input } from "../../src/graph/value.ts";
import { fedAvg } from "../../src/strategies/fedavg.ts";
import { fedAvgM } from "../../src/strategies/fedavgm.ts";
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
import { flora } from "../../src/strategies/flora.ts";
import { loraFair } from "../../src/strategies/lora-fair.ts";
import { type ScaffoldState, scaffold } from "../../src/strategies/scaffold.ts";
import { svdOfSum } from "../../src/tensor/linalg.ts";
import { type Params, weightedMean } from "../../src/tensor/params.ts";
import type { Tensor } from "../../src/tensor/tensor.ts";
import { array64, evaluate } from "../../test/graph/evaluator.ts";
import { compareAdapters } from "./adapters.ts";
import { factorMethods } from "./factors.ts";
import { compareFedBuff } from "./fedbuff.ts";
import { compareFedFtg, compareGalore } from "./galore.ts";
import type { ParityLine } from "./line.ts";
import { personalMethods } from "./personal.ts";
import { rankMethods } from "./rank-methods.ts";
import {
  type Check,
  dense,
  type Golden,
  length,
  line,
  named,
  type Observe,
  type Precision,
  padded,
  perModule,
  Replay,
  rankFrom,
  replay,
  residualReport,
  sentProducts,
  type TensorSet,
  values,
  weighting,
  weightsOf,
} from "./replay.ts";
import { robustRules } from "./robust.ts";

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
        yield await line(`strategies/${file} ${precision}`, precision, (check) =>
          compare(golden, precision, check),
        );
      }
    }
  }
  const fedopt = join(dir, "optim", "fedopt.json");
  if (existsSync(fedopt)) {
    for (const precision of ["float64", "float32"] as const) {
      yield await line(`optim/fedopt.json ${precision}`, precision, (check) =>
        compareFedOpt(fedopt, precision, check),
      );
    }
  }
}

const methods: Readonly<
  Record<string, (golden: Golden, precision: Precision, check: Check) => void | Promise<void>>
> = {
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
  fedavgm: (golden, precision, check) =>
    replay(
      golden,
      precision,
      check,
      fedAvgM({ ...serverOptions(golden.config, golden), beta: Number(golden.config.beta) }),
      (_, __, { updates, weights, result }) => ({
        average: averageOf(updates, weights),
        optimizer: { momentum: negated(result.state.momentum) },
      }),
    ),
  scaffold: (golden, precision, check) =>
    replay(
      golden,
      precision,
      check,
      scaffold({ serverLearningRate: Number(golden.config.serverLearningRate) }),
      controlled,
    ),
  ...factorMethods,
  ...personalMethods,
  adapters: compareAdapters,
  ...rankMethods,
  ...robustRules,
  fedbuff: compareFedBuff,
  galore: compareGalore,
  fedftg: compareFedFtg,
  comparison: compareErrors,
};

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
  average: averageOf(updates, weights),
  optimizer: {
    momentum: negated(result.state.momentum),
    secondMoment: named(result.state.secondMoment),
  },
});

function averageOf(updates: readonly Update[], weights: readonly number[]): Record<string, Float64Array> {
  return named(
    weightedMean(
      updates.map(({ params }) => params),
      weights,
    ),
  );
}

/** The golden's m runs along θ − mean, ours along mean − θ. */
function negated(momentum: Params): Record<string, Float64Array> {
  return Object.fromEntries(Object.entries(named(momentum)).map(([name, m]) => [name, m.map((x) => -x)]));
}

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

/** SCAFFOLD's local steps on the golden's quadratic objectives, its correction evaluated as a graph. */
const controlled: Observe<ScaffoldState> = (federation, _, { updates, before, result }) => {
  const { golden } = federation;
  const specs = [...before.params].map(([name, { shape }]) => ({ name, shape }));
  const inputsOf = (kind: string) =>
    new Map(specs.map(({ name, shape }) => [name, input(`${kind}/${name}`, "float64", shape)]));
  const [raw, control, own] = [inputsOf("gradient"), inputsOf("extra"), inputsOf("memory")];
  const corrected = federation.strategy.local?.correct?.(raw, control, own) ?? raw;
  const outputs = specs.map(({ name }) => corrected.get(name) ?? scalar(0, "float64"));
  const inputs = [raw, control, own].flatMap((set) => [...set.values()]);
  const { lr, steps, objectives } = golden.local ?? { lr: 0, steps: 0, objectives: {} };
  const trained: Record<string, Record<string, Float64Array>> = {};
  updates.forEach(({ client: { id }, extra = new Map() }) => {
    const curvature = federation.params(objectives[id]?.curvature ?? {});
    const center = federation.params(objectives[id]?.center ?? {});
    const after = federation.memories.get(id) ?? new Map();
    const at = new Map([...before.params].map(([name, tensor]) => [name, values(tensor)]));
    for (let step = 0; step < steps; step++) {
      const feeds = new Map(
        specs.flatMap(({ name, shape }) => {
          const [h, c, x] = [
            values(curvature.get(name)),
            values(center.get(name)),
            at.get(name) ?? new Float64Array(),
          ];
          const change = values(extra.get(name));
          const memory = values(after.get(name)).map((v, i) => v - (change[i] ?? 0)); // c_i before the round
          return [
            [
              `gradient/${name}`,
              array64(
                shape,
                x.map((v, i) => (h[i] ?? 0) * (v - (c[i] ?? 0))),
              ),
            ] as const,
            [`extra/${name}`, array64(shape, values(before.control.get(name)))] as const,
            [`memory/${name}`, array64(shape, memory)] as const,
          ];
        }),
      );
      const found = evaluate(outputs, inputs, feeds);
      specs.forEach(({ name }, k) => {
        const x = at.get(name) ?? new Float64Array();
        at.set(
          name,
          x.map((v, i) => v - lr * (found[k]?.data[i] ?? 0)),
        );
      });
    }
    trained[id] = Object.fromEntries(at);
  });
  const zeros = new Map([...before.params].map(([name, { data }]) => [name, new Float64Array(data.length)]));
  const memory = (id: string) => named(federation.memories.get(id) ?? new Map());
  return {
    trained,
    controlDelta: Object.fromEntries(
      updates.map(({ client, extra = new Map() }) => [client.id, named(extra)]),
    ),
    serverControl: named(result.state.control),
    clientControl: Object.fromEntries(
      federation.clients.map(({ id }) => [
        id,
        federation.memories.has(id) ? memory(id) : Object.fromEntries(zeros),
      ]),
    ),
  };
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
      const lambda = /^loraFairLambda([\d.]+)$/.exec(rule)?.[1];
      if (rule === "idealNorm") check.tree(rule, length(spectrum(module)), expected);
      else if (rule === "rankOfIdeal") check.tree(rule, rankFrom(spectrum(module)), expected);
      else if (rule === "rankOfResidual")
        check.tree(
          rule,
          rankFrom(svdOfSum(residual(updates, weights, module, mean)).singularValues),
          expected,
        );
      else if (rule === "fedit") check.tree(rule, error(fedIt(options), module), expected);
      else if (rule === "flexlora") check.tree(rule, error(flexLora(options), module), expected);
      else if (rule === "flora") check.tree(rule, error(flora(options), module), expected);
      else if (lambda !== undefined)
        check.tree(rule, error(loraFair({ ...options, lambda: Number(lambda) }), module), expected);
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

function serverOptions(config: Readonly<Record<string, unknown>>, golden?: Golden) {
  return {
    ...(golden && weighting(golden)),
    ...(config.eta !== undefined && { serverLearningRate: Number(config.eta) }),
    ...(config.beta1 !== undefined && { beta1: Number(config.beta1) }),
    ...(config.beta2 !== undefined && { beta2: Number(config.beta2) }),
    ...(config.tau !== undefined && { tau: Number(config.tau) }),
  };
}

function unsupported(name: string, note: string): ParityLine {
  return { name, what: "", maxAbs: 0, maxRel: 0, tolerance: 0, verdict: "unsupported", note };
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
