import { mixture } from "../../src/adapters/lora-moe.ts";
import { factorMatrix, loraPair } from "../../src/federation/low-rank.ts";
import { input } from "../../src/graph/value.ts";
import { linear } from "../../src/nn/linear.ts";
import { rootScope } from "../../src/nn/scope.ts";
import {
  type CeLoraState,
  ceLora,
  shareOut,
  similarityOfCores,
  similarityOfData,
  sketchDistance,
} from "../../src/strategies/ce-lora.ts";
import {
  chooseClusters,
  expertDistances,
  type FedleaseState,
  fedlease,
} from "../../src/strategies/fedlease.ts";
import { type FlTacState, flTac } from "../../src/strategies/fl-tac.ts";
import { svd } from "../../src/tensor/linalg.ts";
import { matmul, matrix, matrixOf } from "../../src/tensor/matrix.ts";
import { mixtureDistance } from "../../src/tensor/mixture.ts";
import { select } from "../../src/tensor/params.ts";
import { array64, evaluate } from "../../test/graph/evaluator.ts";
import {
  analysisOf,
  type Check,
  type Golden,
  meanWeights,
  type Nested,
  named,
  type Observe,
  type Precision,
  perModule,
  Replay,
  rankFrom,
  replay,
  scalars,
  values,
} from "./replay.ts";

type Compare = (golden: Golden, precision: Precision, check: Check) => void;

/** The methods that leave clients or clusters models of their own. */
export const personalMethods: Readonly<Record<string, Compare>> = {
  "ce-lora": compareCeLora,
  "fl-tac": compareFlTac,
  fedlease: compareFedlease,
};

function compareCeLora(golden: Golden, precision: Precision, check: Check): void {
  const ids = Object.keys(golden.clients);
  const { rank, scaling, lambda } = golden.config;
  const data = golden.initial.mixtures ?? {};
  const sketches = ids.map((id) => data[id] ?? {});
  const { classDistances, dataDistance, dataSimilarity } = golden.expectBeforeRounds ?? {};
  const distances = ids.map((_, i) =>
    ids.map((_, j) => (i === j ? 0 : sketchDistance(sketches[i] ?? {}, sketches[j] ?? {}))),
  );
  check.tree("dataDistance", distances, dataDistance);
  check.tree("dataSimilarity", similarityOfData(sketches)?.data, dataSimilarity);
  const pairs = Object.keys((classDistances ?? {}) as object).map((pair) => {
    const [one = {}, other = {}] = pair.split(",").map((id) => data[id] ?? {});
    const shared = Object.keys(one).filter((label) => label in other);
    const of = (label: string) =>
      mixtureDistance(one[label]?.components ?? [], other[label]?.components ?? []);
    return [pair, Object.fromEntries(shared.map((label) => [label, of(label)]))] as const;
  });
  check.tree("classDistances", Object.fromEntries(pairs), classDistances);
  let rows = matrix(0, 0);
  const strategy = ceLora({
    data,
    mix(similarities) {
      rows = shareOut(similarities, Number(lambda));
      return rows;
    },
  });
  const observe: Observe<CeLoraState> = (federation, { round }, { updates, trained }) => {
    const row = (i: number): number[] => [...rows.data.subarray(i * rows.cols, (i + 1) * rows.cols)];
    const held = federation.held(round);
    return {
      modelSimilarity: similarityOfCores(updates.map(({ params }) => params))?.data,
      weights: Object.fromEntries(
        ids.map((id, i) => [id, Object.fromEntries(ids.map((other, j) => [other, row(i)[j]]))]),
      ),
      analysis: analysisOf(
        federation,
        (id) => held.get(id)?.effective ?? new Map(),
        (id) =>
          meanWeights(
            ids.map((other) => trained.get(other) ?? new Map()),
            row(ids.indexOf(id)),
          ),
      ),
    };
  };
  replay(golden, precision, check, strategy, observe, {
    clients: ids.map((id) => ({ id, rank: Number(rank), scaling: Number(scaling) })),
    measured: false,
    change(params, module, client) {
      const [a, c, b] = ["A", "C", "B"].map((letter) => params.get(`${module}.lora_${letter}.weight`));
      if (!a || !b || !c) return undefined;
      const product = matmul(matrixOf(b), matmul(matrixOf(c), matrixOf(a)));
      return product.data.map((x) => client.scaling * x);
    },
  });
}

function compareFlTac(given: Golden, precision: Precision, check: Check): void {
  const names = given.initial.submissions ?? [];
  const clients = Object.fromEntries(
    names.map((name) => [name, given.clients[name.split("/")[0] ?? ""] ?? { numExamples: 0 }]),
  );
  const golden: Golden = { ...given, clients };
  const { scaling, rank, tasks } = given.config;
  const members = names.map((id) => ({ id, rank: Number(rank), scaling: Number(scaling) }));
  const groupsOf = (cluster: Readonly<Record<string, number>>) =>
    [...new Set(Object.values(cluster))].map((n) => Object.keys(cluster).filter((id) => cluster[id] === n));
  const observe: Observe<FlTacState> = (federation, round, { updates, before, result, trained }) => {
    const { state } = result;
    const context = { round: round.round, seed: 1, numClients: names.length };
    const sampled = flTac({ tasks: Number(tasks), weighting: "samples" }).aggregate(
      before,
      updates,
      context,
    ).state;
    const expected = round.expect.cluster as Readonly<Record<string, number>>;
    const means = (of: FlTacState) =>
      Object.fromEntries(
        Object.entries(expected).map(([id, n]) => [
          String(n),
          named(of.means[of.holds[id] ?? -1] ?? new Map()),
        ]),
      );
    const found = Object.fromEntries(updates.map(({ client }) => [client.id, state.holds[client.id] ?? -1]));
    const held = federation.held(round.round);
    const ideal = (id: string) => {
      const group = groupsOf(found).find((one) => one.includes(id)) ?? [];
      return meanWeights(
        group.map((member) => trained.get(member) ?? new Map()),
        group.map(() => 1),
      );
    };
    const present = new Set(Object.keys(expected));
    const inRound = <T>(record: Readonly<Record<string, T>>) =>
      Object.fromEntries(Object.entries(record).filter(([id]) => present.has(id)));
    const full = analysisOf(
      federation,
      (id) => held.get(id)?.effective ?? new Map(),
      (id) => (present.has(id) ? ideal(id) : (held.get(id)?.effective ?? new Map())),
    );
    return {
      // Names of clusters are free: the first member of each stands for it.
      cluster: Object.fromEntries(
        Object.keys(expected).map((id) => {
          const group = groupsOf(found).find((one) => one.includes(id)) ?? [];
          const same = groupsOf(expected).find((one) => one.includes(id)) ?? [];
          return [id, group.slice().sort().join() === same.slice().sort().join() ? expected[id] : -1];
        }),
      ),
      means: means(state),
      variants: { samples: means(sampled) },
      analysis: {
        deviation: inRound(full.deviation),
        relativeDeviation: inRound(full.relativeDeviation),
        rank: {
          idealUpdate: inRound(full.rank.idealUpdate),
          effectiveUpdate: inRound(full.rank.effectiveUpdate),
        },
      },
      traffic: {
        up: Object.fromEntries(updates.map(({ client, params }) => [client.id, scalars(params)])),
        down: Object.fromEntries(updates.map(({ client }) => [client.id, held.get(client.id)?.sent])),
      },
    };
  };
  replay(golden, precision, check, flTac({ tasks: Number(tasks) }), observe, {
    clients: members,
    ...(given.initial.adapter && { initial: given.initial.adapter }),
    measured: false,
  });
}

/** The golden's first round is our second: the one before gives its warm-up as trained. */
function compareFedlease(golden: Golden, precision: Precision, check: Check): void {
  const { scaling, rank, maxExperts } = golden.config;
  const ids = Object.keys(golden.clients);
  const clients = ids.map((id) => ({ id, rank: Number(rank), scaling: Number(scaling) }));
  const { warmup = {}, adapter = {}, router = {} } = golden.initial;
  const strategy = fedlease({ warmupRounds: 1, maxExperts: Number(maxExperts) });
  const federation = new Replay(golden, precision, strategy, { clients, initial: adapter });
  const first = federation.run({ round: 1, participants: ids, trained: warmup, expect: {} });
  const before = golden.expectBeforeRounds ?? {};
  const list = ids.map((id) => federation.params(warmup[id] ?? {}));
  const distances = expertDistances(list);
  check.tree("distance", distances.data, before.distance);
  const { silhouettes } = chooseClusters(distances, Number(maxExperts));
  check.tree(
    "silhouette",
    Object.fromEntries(silhouettes.map((x, i) => [String(i + 2), x])),
    before.silhouette,
  );
  check.tree("experts", federation.state.experts.length, before.experts);
  // Clusters are numbered by their first client, as in the golden.
  check.tree("cluster", federation.state.clusters, before.cluster);
  check.tree("expertParams", expertParams(federation.state), before.expertParams);
  check.tree("warm-up result", first.result.state.experts.length, before.experts);
  // The first routers are given.
  const routers = federation.state.experts.map(() => federation.params(router));
  federation.state = { ...federation.state, routers };
  for (const round of golden.rounds) {
    const step = federation.run({ ...round, round: round.round + 1 });
    const { state } = federation;
    const where = `round ${round.round}`;
    const { expertParams: params, routers: expectedRouters, forward, expertAnalysis, traffic } = round.expect;
    check.tree(`${where} expertParams`, expertParams(state), params);
    check.tree(
      `${where} routers`,
      Object.fromEntries(state.routers.map((one, m) => [String(m), named(one)])),
      expectedRouters,
    );
    check.tree(`${where} forward`, forwards(state, round.round, forward), paperOutputs(forward));
    check.tree(`${where} expertAnalysis`, analysisByExpert(step), expertAnalysis);
    check.tree(
      `${where} traffic`,
      {
        up: Object.fromEntries(step.updates.map((update) => [update.client.id, scalars(update.params)])),
        down: Object.fromEntries([...federation.held(round.round + 1)].map(([id, { sent }]) => [id, sent])),
      },
      traffic,
    );
  }

  function analysisByExpert({ updates, result }: ReturnType<typeof federation.run>) {
    const clusters = result.state.clusters;
    const present = [...new Set(updates.map(({ client }) => clusters[client.id] ?? 0))];
    return Object.fromEntries(
      present.map((m) => [
        String(m),
        perModule(golden, (module) => {
          const members = updates.filter(({ client }) => clusters[client.id] === m);
          const products = members.map(({ params }) =>
            matmul(
              factorMatrix(loraPair(params, module).loraB),
              factorMatrix(loraPair(params, module).loraA),
            ),
          );
          const [one] = products;
          const ideal = (one?.data ?? new Float64Array()).map(
            (_, i) => products.reduce((sum, { data }) => sum + (data[i] ?? 0), 0) / products.length,
          );
          return {
            deviation: result.measurements?.[`deviation/${module}/expert-${m}`],
            rankOfIdeal: rankFrom(
              svd({ rows: one?.rows ?? 0, cols: one?.cols ?? 0, data: ideal }).singularValues,
            ),
          };
        }),
      ]),
    );
  }

  /** The layers of some clients on the golden's tokens, through the adapter's graph. */
  function forwards(state: FedleaseState, round: number, expected: unknown) {
    return Object.fromEntries(
      Object.keys(expected ?? {}).map((id) => {
        const client = clients.find((one) => one.id === id) ?? { id, rank: 0, scaling: 1 };
        const { params } = strategy.broadcast(state, client, {
          round: round + 1,
          seed: 1,
          numClients: ids.length,
        });
        return [
          id,
          perModule(golden, (module) => {
            const own = select(params, (name) => name.startsWith(`${module}.`));
            const weight = federation.params({ w: golden.initial.base?.[`${module}.weight`] ?? [] }).get("w");
            const weights = new Map([...own, ...(weight ? [[`${module}.weight`, weight] as const] : [])]);
            const scope = rootScope({
              weights: new Map(
                [...weights].map(([name, { shape }]) => [name, { dtype: "float64", shape }] as const),
              ),
              adapters: new Map([[module, [mixture(client.scaling, (_, __, y) => y)]]]),
            }).at(module);
            const rows = golden.tokens?.[module] ?? [];
            const x = input("x", "float64", [rows.length, rows[0]?.length ?? 0]);
            const [y] = evaluate(
              [linear(scope, x)],
              [x, ...scope.inputs.values()],
              new Map([
                ["x", array64([rows.length, rows[0]?.length ?? 0], rows.flat())],
                ...[...weights].map(
                  ([name, tensor]) => [name, array64(tensor.shape, values(tensor))] as const,
                ),
              ]),
            );
            return y?.data;
          }),
        ];
      }),
    );
  }
}

const expertParams = ({ experts }: FedleaseState) =>
  Object.fromEntries(experts.map((expert, m) => [String(m), named(expert)]));

/** Of a golden's layers the outputs under the paper's map of slots, which is ours. */
function paperOutputs(forward: unknown) {
  const layers = forward as Readonly<
    Record<string, Readonly<Record<string, { readonly paper: readonly { readonly y: Nested }[] }>>>
  >;
  return Object.fromEntries(
    Object.entries(layers).map(([id, modules]) => [
      id,
      Object.fromEntries(
        Object.entries(modules).map(([module, { paper }]) => [module, paper.map(({ y }) => y)]),
      ),
    ]),
  );
}
