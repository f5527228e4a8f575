import { principalPair } from "../../src/adapters/lora.ts";
import { applyChanges, countScalars } from "../../src/federation/base-chain.ts";
import { loraPair, prefix } from "../../src/federation/low-rank.ts";
import type { BaseChange, ClientRef, StateTree, Strategy, Update } from "../../src/federation/strategy.ts";
import { gradients } from "../../src/graph/gradients.ts";
import { scalar } from "../../src/graph/ops.ts";
import { input } from "../../src/graph/value.ts";
import { products, residual } from "../../src/strategies/fedex-lora.ts";
import { type FedHmState, fedHm } from "../../src/strategies/fedhm.ts";
import { type FedLoruState, fedLoru } from "../../src/strategies/fedloru.ts";
import { flora } from "../../src/strategies/flora.ts";
import { type FrLoraState, frLora } from "../../src/strategies/frlora.ts";
import {
  type HetLoraOptions,
  type HetLoraState,
  hetLora,
  productNorms,
  tailNorm,
} from "../../src/strategies/hetlora.ts";
import { fairFit, loraFair, oneMinusCosine } from "../../src/strategies/lora-fair.ts";
import { type MFedLoruState, mFedLoru, rebuiltPairs } from "../../src/strategies/mfedloru.ts";
import { pFedLoru } from "../../src/strategies/pfedloru.ts";
import { type LowRankTerm, productInner, productNormSquared, stackTerms } from "../../src/tensor/linalg.ts";
import { matmul, matrix, matrixOf } from "../../src/tensor/matrix.ts";
import { type Params, scale, select, weightedMean } from "../../src/tensor/params.ts";
import { float32 } from "../../src/tensor/tensor.ts";
import { array64, evaluate } from "../../test/graph/evaluator.ts";
import {
  analysisOf,
  type Check,
  flat,
  type Golden,
  meanWeights,
  type Nested,
  named,
  type Observe,
  type Precision,
  perModule,
  Replay,
  replay,
  residualReport,
  scalars,
  type TensorSet,
  type Variant,
  values,
  type Weights,
  weighting,
  weightsOf,
} from "./replay.ts";

/** Compares a golden case with a strategy of ours. */
export type Runner = (golden: Golden, precision: Precision, check: Check) => void;

/** Methods that stack, merge or correct factors, or hold models of unequal rank. */
export const rankMethods: Readonly<Record<string, Runner>> = {
  flora: (golden, precision, check) => replay(golden, precision, check, flora(weighting(golden)), stacked),
  fedloru: (golden, precision, check) => loru(golden, precision, check),
  "fedloru-no-reset": (golden, precision, check) => loru(golden, precision, check),
  pfedloru: (golden, precision, check) => {
    const [own = {}] = Object.values(golden.initial.clients ?? {});
    const renamed = (name: string) => name.replace(/\.private([AB])$/, ".private_$1.weight");
    const variant: Variant = {
      initial: { ...golden.initial.server, ...mapKeys(own, renamed) },
      held: (params) => new Map([...params].map(([name, tensor]) => [renamed(name), tensor])),
      change: (params, module, client) => privateChange(params, module, client, golden),
      measured: false, // of what is shared; the golden's weights hold the private pairs too
    };
    replay(golden, precision, check, pFedLoru(loruOptions(golden)), personal, variant);
  },
  mfedloru: (golden, precision, check) => {
    const { rank, scaling, alphaA, alphaB } = golden.config;
    const ids = Object.entries(golden.clients);
    const innerRanks = Object.fromEntries(ids.map(([id, { innerRank = 1 }]) => [id, innerRank]));
    const options = { ...loruOptions(golden), innerRanks, alphaA: Number(alphaA), alphaB: Number(alphaB) };
    const variant: Variant = {
      clients: ids.map(([id]) => ({ id, rank: Number(rank), scaling: Number(scaling) })),
      held: (params) =>
        new Map([...params].map(([name, x]) => [`${name}.weight`.replace(".lora", ".lora_"), x])),
      change: (params, module, client) => nestedChange(params, module, client, options),
    };
    replay(golden, precision, check, mFedLoru(options), nested(options), variant);
  },
  frlora: (golden, precision, check) => {
    const { pretrained: base = {} } = golden.initial;
    if (precision === "float32") checkPrincipal(golden, check);
    replay(
      { ...golden, initial: { ...golden.initial, base } },
      precision,
      check,
      frLora(weighting(golden)),
      residualSent,
    );
  },
  "lora-fair": (golden, precision, check) =>
    replay(
      golden,
      precision,
      check,
      loraFair({ ...weighting(golden), lambda: Number(golden.config.lambda) }),
      fair,
    ),
  hetlora: (golden, precision, check) => {
    const { gamma, lambda, rankMin, scaling } = golden.config;
    const options = { gamma: Number(gamma), lambda: Number(lambda), minRank: Number(rankMin) };
    const clients = Object.entries(golden.clients).map(([id, { rank = 0 }]) => ({
      id,
      rank,
      scaling: Number(scaling),
    }));
    const variant = { clients, measured: false };
    replay(golden, precision, check, hetLora(options), pruned(options), variant);
    if (precision === "float64") checkRegulariser(golden, check, hetLora(options));
  },
  fedhm: (golden, precision, check) => {
    const ratios = Object.fromEntries(
      Object.entries(golden.clients).map(([id, { ratio = 1 }]) => [id, ratio]),
    );
    const base = golden.initial.server ?? {};
    const whole = Object.keys(base).filter((name) => !(name.replace(/\.weight$/, "") in golden.modules));
    const options = { ratios, whole, ...weighting(golden) };
    replay({ ...golden, initial: { ...golden.initial, base } }, precision, check, fedHm(options), factorized);
  },
};

/** The principal start, which is drawn in float32. */
function checkPrincipal(golden: Golden, check: Check): void {
  const { pretrained = {} } = golden.initial;
  const base = new Map(
    Object.entries(pretrained).map(([name, rows]) => [
      name,
      float32([flat(rows).length / widthOf(rows), widthOf(rows)], flat(rows)),
    ]),
  );
  const products = perModule(golden, (module) => {
    const { rank, scaling } = golden.config;
    const { a, b } = principalPair(module, { base, seed: 1 }, Number(rank), Number(scaling));
    return matmul(matrixOf(b), matrixOf(a)).data;
  });
  check.tree("principalProduct", products, golden.expectBeforeRounds?.principalProduct);
}

function widthOf(rows: Nested): number {
  return Array.isArray(rows) && Array.isArray(rows[0]) ? rows[0].length : 1;
}

function loru(golden: Golden, precision: Precision, check: Check): void {
  const options = { mergeEvery: Number(golden.config.tau), reset: golden.config.reset === true };
  const strategy = fedLoru({ ...weighting(golden), ...options });
  if (!options.reset) check.skip("scalars down, where a pair that was merged and stays is counted once");
  const rounds = golden.rounds.map((round) => {
    const { up } = { up: {}, ...(round.expect.traffic as object) };
    return options.reset ? round : { ...round, expect: { ...round.expect, traffic: { up } } };
  });
  replay({ ...golden, rounds }, precision, check, strategy, accumulated);
}

function loruOptions(golden: Golden) {
  const { tau, reset } = golden.config;
  return { ...weighting(golden), mergeEvery: Number(tau), reset: reset === true };
}

function mapKeys<T>(of: Readonly<Record<string, T>>, rename: (key: string) => string): Record<string, T> {
  return Object.fromEntries(Object.entries(of).map(([key, value]) => [rename(key), value]));
}

/** s B A + s_p L U */
function privateChange(params: Params, module: string, { scaling }: ClientRef, { config }: Golden) {
  const shared = pairProduct(params, `${module}.lora_B.weight`, `${module}.lora_A.weight`);
  const own = pairProduct(params, `${module}.private_B.weight`, `${module}.private_A.weight`);
  return shared?.map((x, i) => scaling * x + Number(config.privateScaling) * (own?.[i] ?? 0));
}

/** s (B + α_B B_d B_u)(A + α_A A_d A_u) */
function nestedChange(
  params: Params,
  module: string,
  { scaling }: ClientRef,
  { alphaA, alphaB }: { readonly alphaA: number; readonly alphaB: number },
) {
  if (!params.has(`${module}.lora_B.weight`)) return undefined;
  const outer = select(params, (name) => /lora_[AB]\.weight$/.test(name));
  const inner = select(params, (name) => /lora_[AB][du]\.weight$/.test(name));
  const pairs = inner.size > 0 ? rebuiltPairs(outer, inner, alphaA, alphaB) : outer;
  return pairProduct(pairs, `${module}.lora_B.weight`, `${module}.lora_A.weight`)?.map((x) => scaling * x);
}

function pairProduct(params: Params, left: string, right: string): Float64Array | undefined {
  const [b, a] = [params.get(left), params.get(right)];
  return b && a ? matmul(matrixOf(b), matrixOf(a)).data : undefined;
}

const personal: Observe<FedLoruState> = (federation, round, step) => {
  const { updates, weights } = step;
  const shared = (params: Params) => select(params, (name) => !name.includes(".private_"));
  // The analysis is about what is shared.
  const offset = beforeRound(federation.offset, step.result.base);
  const ideal = meanWeights(
    updates.map(({ params, client }) => federation.effective(params, client, offset)),
    weights,
  );
  const after = new Map(
    federation.clients.map((client) => {
      const { start } = federation.half(client, round.round + 1);
      return [client.id, federation.effective(shared(start.params), client, federation.offset)];
    }),
  );
  return {
    ...accumulated(federation, round, step),
    sharedEffective: Object.fromEntries([...after].map(([id, weight]) => [id, weightsOf(weight)])),
    analysis: analysisOf(
      federation,
      (id) => after.get(id) ?? new Map(),
      () => ideal,
    ),
  };
};

/** The offset of the base before some changes were added to it. */
function beforeRound(offset: Params, changes: readonly BaseChange[] = []): Params {
  return applyChanges(
    offset,
    changes.map((change) =>
      change.kind === "factors"
        ? { ...change, scale: -change.scale }
        : { kind: "dense", difference: scale(change.difference, -1) },
    ),
  );
}

const nested =
  (options: { readonly alphaA: number; readonly alphaB: number }): Observe<MFedLoruState> =>
  (federation, { round, fresh }, { updates, weights, before, result }) => {
    // The pair that all of the round's clients held fixed.
    const [client] = federation.clients;
    const context = { round, seed: 1, numClients: federation.clients.length };
    if (!client) return {};
    const received = federation.strategy.broadcast(before, client, context);
    const local = { client, received, memory: new Map(), initial: federation.initial, context };
    const start = federation.strategy.local?.start?.(local).params ?? new Map();
    const outer = select(start, (name) => /lora_[AB]\.weight$/.test(name));
    const rebuilt = updates.map((update) => ({
      ...update,
      params: rebuiltPairs(outer, update.params, options.alphaA, options.alphaB),
    }));
    const held = federation.held(round);
    if (fresh) {
      // From here on the golden's clients hold the A that it has drawn.
      const params = new Map([...result.state.params, ...federation.params(fresh as TensorSet)]);
      federation.state = { ...result.state, params, fresh: false };
    }
    return {
      rebuilt: Object.fromEntries(rebuilt.map(({ client: { id }, params }) => [id, named(params)])),
      average: averageOf(rebuilt, weights),
      merged: (result.base ?? []).length > 0,
      // Inner ranks, one number each, are not counted.
      traffic: {
        up: Object.fromEntries(updates.map(({ client: { id }, params }) => [id, scalars(params)])),
        down: Object.fromEntries(
          [...held].map(([id, one]) => [id, scalars(one.received) + countScalars(result.base ?? [])]),
        ),
      },
    };
  };

/** FRLoRA's clients hear of the mean pair as the change of the base, and of the rest by the payload. */
const residualSent: Observe<FrLoraState> = (federation, round, step) => {
  const [change] = step.result.base ?? [];
  const pairs = Object.keys(federation.golden.modules).flatMap((module) => {
    if (change?.kind !== "factors") return [];
    const [b, a] = [change.left.get(`${module}.weight`), change.right.get(`${module}.weight`)];
    return [
      [`${module}.loraB`, values(b)],
      [`${module}.loraA`, values(a)],
    ] as const;
  });
  const held = federation.held(round.round);
  return {
    ...sentWithBase(federation, round, step),
    broadcast: Object.fromEntries(
      [...held].map(([id, { received }]) => [id, { ...named(received), ...Object.fromEntries(pairs) }]),
    ),
  };
};

const stacked: Observe<Params> = (federation, round, step) => {
  const [change] = step.result.base ?? [];
  const lefts = change?.kind === "factors" ? [...change.left.values()] : [];
  return {
    stackRank: lefts[0]?.shape[1],
    head: values(step.result.state.get("head.weight")),
    ...sentWithBase(federation, round, step),
  };
};

const accumulated: Observe<StateTree> = (federation, round, step) => ({
  average: averageOf(step.updates, step.weights),
  merged: (step.result.base ?? []).length > 0,
  ...sentWithBase(federation, round, step),
});

/** What travels: the payload, and the round's base changes. */
function sentWithBase<State extends StateTree>(
  ...[federation, { round }, { updates, result }]: Parameters<Observe<State>>
): Record<string, unknown> {
  const held = federation.held(round);
  const base = countScalars(result.base ?? []);
  return {
    traffic: {
      up: Object.fromEntries(updates.map(({ client, params }) => [client.id, scalars(params)])),
      down: Object.fromEntries([...held].map(([id, { sent }]) => [id, sent + base])),
    },
  };
}

export function averageOf(
  updates: readonly Update[],
  weights: readonly number[],
): Record<string, Float64Array> {
  return named(
    weightedMean(
      updates.map(({ params }) => params),
      weights,
    ),
  );
}

const fair: Observe<Params> = ({ golden }, _, { updates, weights, result }) => {
  const average = weightedMean(
    updates.map(({ params }) => params),
    weights,
  );
  const lambda = Number(golden.config.lambda);
  const free = loraFair({ lambda: 0, ...weighting(golden) });
  const context = { round: 1, seed: 1, numClients: updates.length };
  const unregularised = free.aggregate(average, updates, context).measurements ?? {};
  return {
    average: named(average),
    residual: residualReport(golden, (module) => ({
      residual: residual(updates, weights, module, average),
      ideal: products(updates, weights, module),
    })),
    fair: perModule(golden, (module) => {
      const fit = fairFit(updates, weights, module, average);
      const corrected = matrixOf(loraPair(result.state, module).loraB);
      const correction = {
        ...corrected,
        data: corrected.data.map((x, i) => x - (fit.mean.data[i] ?? 0)),
      };
      const ideal = products(updates, weights, module);
      const error = (params: Params) => productNormSquared([...ideal, productOf(params, module, -1)]);
      const cosine = (params: Params) => {
        const [t, x] = [stackTerms(ideal), stackTerms([productOf(params, module, 1)])];
        return productInner(t, x) / Math.sqrt(productInner(t, t) * productInner(x, x));
      };
      const length = correction.data.reduce((sum, x) => sum + x * x, 0);
      return {
        correction: correction.data,
        objectiveBefore: error(average),
        objectiveAfter: error(result.state) + lambda * length,
        cosineBefore: cosine(average),
        cosineAfter: cosine(result.state),
        gradientOfOneMinusCosineAtAverage: oneMinusCosine(fit, matrix(corrected.rows, corrected.cols))
          .gradient.data,
        unregularisedError:
          (unregularised[`deviation/${module}`] ?? Number.NaN) / Number(golden.config.scaling),
      };
    }),
  };
};

const pruned =
  (options: HetLoraOptions & { readonly gamma: number }): Observe<HetLoraState> =>
  (federation, { round, trained }, { updates, before, result }) => {
    const { golden, strategy } = federation;
    const modules = Object.keys(golden.modules);
    const each = <T>(of: (update: Update) => T) =>
      Object.fromEntries(updates.map((update) => [update.client.id, of(update)]));
    const context = { round, seed: 1, numClients: federation.clients.length };
    const received = ({ client }: Update) => strategy.broadcast(before, client, context).params;
    const rankAfter = ({ client: { id } }: Update) => result.state.ranks[id] ?? Number.NaN;
    const uploads = updates.map((update) => ({
      ...update,
      params: prefix(update.params, rankAfter(update)),
    }));
    const norms = productNorms(uploads, modules);
    const total = (list: readonly number[]) => list.reduce((a, b) => a + b, 0);
    const overall = uploads.map((_, k) =>
      Math.hypot(...modules.map((module) => norms.get(module)?.[k] ?? Number.NaN)),
    );
    const other = hetLora({ ...options, normOver: "client" }).aggregate(before, updates, context).state;
    const held = federation.held(round);
    const none = { id: "server", rank: 0, scaling: Number(golden.config.scaling) };
    const server = federation.effective(result.state.params, none, new Map());
    const ideal: Weights = new Map(
      modules.flatMap((module) => {
        const weights = norms.get(module) ?? [];
        const list = uploads.map(({ params, client }) => federation.effective(params, client, new Map()));
        return [...meanWeights(list, weights)].filter(([name]) => name === module);
      }),
    );
    const analysis = analysisOf(
      federation,
      (id) => held.get(id)?.effective ?? new Map(),
      () => ideal,
    );
    const uncut = analysisOf(
      federation,
      () => server,
      () => ideal,
    );
    const withServer = <T>(of: Readonly<Record<string, T>>, same: Readonly<Record<string, T>>) => ({
      ...of,
      ...(Object.values(same)[0] !== undefined && { server: Object.values(same)[0] }),
    });
    return {
      received: each((update) => named(received(update))),
      prune: each((update) => {
        const start = received(update);
        const rank = start.get(`${modules[0]}.lora_A.weight`)?.shape[0] ?? 0;
        const keep = Math.floor(options.gamma * rank);
        const given = federation.params(trained[update.client.id] ?? {});
        return {
          tailBefore: tailNorm(start, keep),
          tailAfter: tailNorm(given, keep),
          rank: rankAfter(update),
        };
      }),
      upload: Object.fromEntries(uploads.map(({ client, params }) => [client.id, named(params)])),
      productNorms: perModule(golden, (module) =>
        Object.fromEntries(uploads.map(({ client }, k) => [client.id, norms.get(module)?.[k]])),
      ),
      weights: perModule(golden, (module) => {
        const list = norms.get(module) ?? [];
        return Object.fromEntries(
          uploads.map(({ client }, k) => [client.id, (list[k] ?? Number.NaN) / total(list)]),
        );
      }),
      variants: {
        globalWeights: Object.fromEntries(
          uploads.map(({ client }, k) => [client.id, (overall[k] ?? Number.NaN) / total(overall)]),
        ),
        serverWithGlobalWeights: named(other.params),
      },
      effective: {
        ...Object.fromEntries([...held].map(([id, { effective }]) => [id, weightsOf(effective)])),
        server: weightsOf(server),
      },
      analysis: {
        deviation: withServer(analysis.deviation, {
          server: perModule(golden, (module) => result.measurements?.[`deviation/${module}`] ?? Number.NaN),
        }),
        relativeDeviation: withServer(analysis.relativeDeviation, {
          server: perModule(
            golden,
            (module) => result.measurements?.[`relativeDeviation/${module}`] ?? Number.NaN,
          ),
        }),
        rank: {
          idealUpdate: analysis.rank.idealUpdate,
          effectiveUpdate: withServer(analysis.rank.effectiveUpdate, uncut.rank.effectiveUpdate),
        },
      },
      // What a client has pruned is zeros in its update, which are not counted.
      traffic: {
        up: Object.fromEntries(uploads.map(({ client, params }) => [client.id, scalars(params)])),
        down: each((update) => scalars(received(update))),
      },
    };
  };

const factorized: Observe<FedHmState> = (federation, { round, participants }, { before, result, ideal }) => {
  const { golden, strategy, clients } = federation;
  const held = federation.held(round);
  const server = new Map(
    Object.keys(golden.modules).map((module) => [
      module,
      values(strategy.global(result.state).get(`${module}.weight`)),
    ]),
  );
  const of = (effective: (id: string) => Weights) => analysisOf(federation, effective, () => ideal);
  const [cut, uncut] = [of((id) => held.get(id)?.effective ?? new Map()), of(() => server)];
  const [any = ""] = clients.map(({ id }) => id);
  const add = <T>(own: Readonly<Record<string, T>>, all: Readonly<Record<string, T>>) => ({
    ...own,
    server: all[any],
  });
  return {
    receivedProduct: Object.fromEntries(
      participants.map((id) => {
        const { params } = strategy.broadcast(before, federation.client(id), {
          round,
          seed: 1,
          numClients: 1,
        });
        return [
          id,
          perModule(golden, (module) => {
            const { loraA, loraB } = loraPair(params, module);
            return matmul(matrixOf(loraB), matrixOf(loraA)).data;
          }),
        ];
      }),
    ),
    truncationError: Object.fromEntries(
      clients.map(({ id }) => [
        id,
        perModule(
          golden,
          (module) =>
            result.measurements?.[`deviation/${module}/ratio-${result.state.ratios[id]}`] ?? Number.NaN,
        ),
      ]),
    ),
    effective: {
      ...Object.fromEntries([...held].map(([id, { effective }]) => [id, weightsOf(effective)])),
      server: weightsOf(server),
    },
    analysis: {
      deviation: add(cut.deviation, uncut.deviation),
      relativeDeviation: add(cut.relativeDeviation, uncut.relativeDeviation),
      rank: {
        idealUpdate: cut.rank.idealUpdate,
        effectiveUpdate: add(cut.rank.effectiveUpdate, uncut.rank.effectiveUpdate),
      },
    },
  };
};

/** The penalty on the tail as a graph, and its gradient. */
function checkRegulariser(golden: Golden, check: Check, strategy: Strategy<HetLoraState>): void {
  const { regulariser } = golden;
  if (!regulariser) return;
  const params = new Replay(golden, "float64", strategy).params(regulariser.params);
  const specs = [...params].map(([name, { shape }]) => ({ name, shape }));
  const w = new Map(specs.map(({ name, shape }) => [name, input(name, "float64", shape)]));
  const start = new Map(specs.map(({ name, shape }) => [name, input(`received/${name}`, "float64", shape)]));
  const value = strategy.local?.penalty?.(w, start) ?? scalar(0, "float64");
  const inputs = [...w.values(), ...start.values()];
  const feeds = new Map(
    specs.flatMap(({ name, shape }) => {
      const fed = array64(shape, values(params.get(name)));
      return [[name, fed] as const, [`received/${name}`, fed] as const];
    }),
  );
  const [found, ...slopes] = evaluate([value, ...gradients(value, [...w.values()])], inputs, feeds);
  check.tree("regulariser", found?.data[0], regulariser.expect.value);
  const gradient = Object.fromEntries(
    specs.map(({ name }, k) => [
      name.replace(/\.lora_([AB])\.weight$/, ".lora$1"),
      slopes[k]?.data ?? new Float64Array(),
    ]),
  );
  check.tree("regulariser", gradient, regulariser.expect.gradient);
}

function productOf(params: Params, module: string, coefficient: number): LowRankTerm {
  const { loraA, loraB } = loraPair(params, module);
  return { coefficient, left: matrixOf(loraB), right: matrixOf(loraA) };
}
