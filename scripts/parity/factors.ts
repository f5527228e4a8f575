import { type FedsaLoraState, fedsaLora } from "../../src/strategies/fedsa-lora.ts";
import { type FlascState, flasc, flascAdamw, spread } from "../../src/strategies/flasc.ts";
import { type FsLoraState, fsLora } from "../../src/strategies/fslora.ts";
import { type SloraState, slora } from "../../src/strategies/slora.ts";
import { svd } from "../../src/tensor/linalg.ts";
import { matmul, matrixOf } from "../../src/tensor/matrix.ts";
import { type Params, sub } from "../../src/tensor/params.ts";
import type { Tensor } from "../../src/tensor/tensor.ts";
import { topK } from "../../src/tensor/top-k.ts";
import {
  analysisOf,
  type Check,
  flat,
  type Golden,
  type Nested,
  named,
  type Observe,
  type Precision,
  perModule,
  type Replay,
  replay,
  scalars,
  values,
  weighting,
  weightsOf,
} from "./replay.ts";

type Compare = (golden: Golden, precision: Precision, check: Check) => void;

/** The methods that average parts of factors. */
export const factorMethods: Readonly<Record<string, Compare>> = {
  flasc: (golden, precision, check) => {
    checkTopK(golden, check);
    replay(golden, precision, check, flasc(flascOptions(golden)), sparse, { measured: false });
  },
  "flasc-adamw": (golden, precision, check) => {
    checkTopK(golden, check);
    const { beta1, beta2, eps, weightDecay } = golden.config;
    const strategy = flascAdamw({
      ...flascOptions(golden),
      beta1: Number(beta1),
      beta2: Number(beta2),
      epsilon: Number(eps),
      weightDecay: Number(weightDecay),
    });
    replay(golden, precision, check, strategy, sparse, { measured: false });
  },
  fslora: compareFsLora,
  slora: compareSlora,
  "fedsa-lora": compareFedSa,
  "fedsa-rslora": compareFedSa,
  "fedsa-vera": compareFedSa,
};

function flascOptions({ config }: Golden) {
  return {
    downDensity: Number(config.downDensity),
    upDensity: Number(config.upDensity),
    serverLearningRate: Number(config.serverLearningRate),
  };
}

function checkTopK({ topKCases = [] }: Golden, check: Check): void {
  for (const [i, { vector, k, expect }] of topKCases.entries()) {
    check.tree(`top k ${i}`, [...topK(Float64Array.from(flat(vector)), k)], expect);
  }
}

const sparse: Observe<FlascState> = (federation, _, { updates, before, result, ideal }) => {
  const { strategy, clients, offset } = federation;
  const [client] = clients;
  if (!client) return {};
  const order = [...federation.initial.keys()];
  const support = (params: Params) => {
    const flattened = order.flatMap((name) => [...values(params.get(name))]);
    return flattened.flatMap((x, i) => (x === 0 ? [] : [i]));
  };
  const sent = spread(before.sent, federation.initial);
  const moves = new Map(updates.map((update) => [update.client.id, spread(update, federation.initial)]));
  const server = result.state.params;
  const dense = federation.effective(server, client, offset);
  const masked = federation.effective(strategy.global(result.state), client, offset);
  const all = <T>(value: T) => Object.fromEntries(clients.map(({ id }) => [id, value]));
  const mean = order.map((name): [string, Float64Array] => {
    const sum = values(federation.initial.get(name)).map(() => 0);
    for (const move of moves.values())
      values(move.get(name)).forEach((x, i) => {
        sum[i] = (sum[i] ?? 0) - x / moves.size;
      });
    return [name.replace(/\.lora_([AB])\.weight$/, ".lora$1"), sum];
  });
  const downMask = support(sent);
  const upMask = Object.fromEntries([...moves].map(([id, move]) => [id, support(move)]));
  return {
    downMask,
    broadcast: all(named(sent)),
    upMask,
    pseudoGradient: Object.fromEntries(mean),
    server: named(server),
    head: values(server.get("head.weight")),
    effective: all(weightsOf(dense)),
    effectiveMasked: all(weightsOf(masked)),
    analysis: analysisOf(
      federation,
      () => dense,
      () => ideal,
    ),
    traffic: {
      upValues: Object.fromEntries(Object.entries(upMask).map(([id, mask]) => [id, mask.length])),
      downValues: all(downMask.length),
      dimension: order.reduce((sum, name) => sum + values(federation.initial.get(name)).length, 0),
    },
  };
};

/** As observed by FSLoRA's golden: moves of the slices, and what no participant drew. */
const sketched =
  (draw: (client: string, round: number) => readonly number[]): Observe<FsLoraState> =>
  (federation, round, { updates, before, result, trained, ideal }) => {
    const { strategy, clients, offset, golden } = federation;
    const context = { round: round.round, seed: 1, numClients: clients.length };
    const moves = updates.map(({ client, params }) => {
      const start = strategy.broadcast(before, client, context).params;
      return [client.id, named(sub(params, start))] as const;
    });
    const shared = { id: "", rank: 0, scaling: Number(golden.config.scaling) };
    const after = federation.effective(strategy.global(result.state), shared, offset);
    const drawn = new Set(updates.flatMap(({ client }) => draw(client.id, round.round)));
    const all = <T>(value: T) => Object.fromEntries(clients.map(({ id }) => [id, value]));
    const rank = Number(golden.config.rank);
    return {
      upload: Object.fromEntries(moves),
      sketchedEffective: Object.fromEntries([...trained].map(([id, weights]) => [id, weightsOf(weights)])),
      untouchedComponents: Array.from({ length: rank }, (_, i) => i).filter((i) => !drawn.has(i)),
      effective: all(weightsOf(after)),
      analysis: analysisOf(
        federation,
        () => after,
        () => ideal,
      ),
      traffic: {
        up: Object.fromEntries(updates.map(({ client, params }) => [client.id, scalars(params)])),
        downAsSlice: Object.fromEntries(
          updates.map(({ client }) => [
            client.id,
            scalars(strategy.broadcast(before, client, context).params),
          ]),
        ),
      },
    };
  };

/** Client i holds the components I_i of what the golden gives at full rank. */
function slice(params: Params, components: readonly number[]): Params {
  return new Map(
    [...params].map(([name, tensor]): [string, Tensor] => {
      const [rows = 0, cols = 0] = tensor.shape;
      const data = values(tensor);
      const isA = name.endsWith("lora_A.weight");
      if (!isA && !name.endsWith("lora_B.weight")) return [name, tensor];
      const shape = isA ? [components.length, cols] : [rows, components.length];
      const picked = isA
        ? components.flatMap((i) => [...data.subarray(i * cols, (i + 1) * cols)])
        : Array.from({ length: rows }, (_, i) => components.map((j) => data[i * cols + j] ?? 0)).flat();
      return [
        name,
        tensor.dtype === "float64"
          ? { dtype: "float64", shape, data: Float64Array.from(picked) }
          : { dtype: "float32", shape, data: Float32Array.from(picked) },
      ];
    }),
  );
}

function compareFsLora(golden: Golden, precision: Precision, check: Check): void {
  const alpha = Number(golden.config.scaling) * Number(golden.config.rank);
  const draw = (client: string, round: number): readonly number[] =>
    golden.rounds.find((one) => one.round === round)?.indices?.[client] ??
    Array.from({ length: golden.clients[client]?.sketch ?? 0 }, (_, i) => i);
  const clients = Object.entries(golden.clients).map(([id, { sketch = 1 }]) => ({
    id,
    rank: sketch,
    scaling: alpha / sketch,
  }));
  const strategy = fsLora({ sketch: ({ id }, _, { round }) => draw(id, round) });
  replay(golden, precision, check, strategy, sketched(draw), {
    clients,
    held: (params, { id }, round) => slice(params, draw(id, round)),
    measured: false,
  });
}

/** FedSA-LoRA and its forms: the server holds what travels, and every client keeps the rest. */
const selective: Observe<FedsaLoraState> = (_, __, { result }) => ({ server: named(result.state.shared) });

function compareFedSa(golden: Golden, precision: Precision, check: Check): void {
  const scaling = Number(golden.config.scaling ?? 1);
  const clients = Object.keys(golden.clients).map((id) => ({
    id,
    rank: Number(golden.config.rank),
    scaling,
  }));
  const { As: down = [], Bs: up = [] } = golden.initial.shared ?? {};
  const [a, b] = [flatRows(down), flatRows(up)];
  replay(golden, precision, check, fedsaLora(weighting(golden)), selective, {
    clients,
    measured: false,
    ...(golden.initial.shared && {
      change: (params, module) => {
        const [d, scale] = [params.get(`${module}.vera_lambda_d`), params.get(`${module}.vera_lambda_b`)];
        const { out, in: width } = golden.modules[module] ?? { out: 0, in: 0 };
        if (!d || !scale) return undefined;
        const change = new Float64Array(out * width);
        for (let i = 0; i < out; i++)
          for (let j = 0; j < width; j++)
            for (let k = 0; k < a.length; k++)
              change[i * width + j] =
                (change[i * width + j] ?? 0) +
                Number(scale.data[i]) * (b[i]?.[k] ?? 0) * Number(d.data[k]) * (a[k]?.[j] ?? 0);
        return change;
      },
    }),
  });
}

function flatRows(rows: Nested): number[][] {
  return typeof rows === "number" ? [] : rows.map(flat);
}

function compareSlora(golden: Golden, precision: Precision, check: Check): void {
  const masks = golden.initial.mask ?? {};
  const positions = (module: string): number[] =>
    flat(masks[`${module}.weight`] ?? []).flatMap((x, i) => (x === 0 ? [] : [i]));
  const modules = Object.entries(golden.modules);
  const rank = Number(golden.config.rank);
  const ones = (rows: number, cols: number): number[][] =>
    Array.from({ length: rows }, () => Array(cols).fill(1));
  const strategy = slora({
    ...weighting(golden),
    sparseRounds: Number(golden.config.stage1Rounds),
    mask: positions,
  });
  const observe: Observe<SloraState> = (federation, _, { updates, before, result, ideal }) => {
    const { clients, offset, golden } = federation;
    const all = <T>(value: T) => Object.fromEntries(clients.map(({ id }) => [id, value]));
    const [client] = clients;
    if (!client || before.left === 0) return {};
    if (result.state.left > 0) return heldDifference(federation, result.state);
    // The golden's round ends before the switch, where clients hold the mean of the sparse weights.
    const server = weightsOf(ideal);
    const after = {
      server,
      effective: all(server),
      analysis: analysisOf(
        federation,
        () => ideal,
        () => ideal,
      ),
      traffic: {
        up: Object.fromEntries(updates.map(({ client: { id }, params }) => [id, scalars(params)])),
        down: all(packed(positions)),
      },
    };
    const { params } = result.state;
    const delta = (module: string) =>
      (ideal.get(module) ?? new Float64Array()).map(
        (x, i) => x - (values(federation.base.get(`${module}.weight`))[i] ?? 0),
      );
    const product = (module: string) => {
      const [b, a] = [params.get(`${module}.lora_B.weight`), params.get(`${module}.lora_A.weight`)];
      return b && a ? matmul(matrixOf(b), matrixOf(a)).data : undefined;
    };
    return {
      ...after,
      stageSwitch: {
        delta: perModule(golden, delta),
        singularValues: perModule(golden, (module) => {
          const { out, in: width } = golden.modules[module] ?? { out: 0, in: 0 };
          return svd({ rows: out, cols: width, data: delta(module) }).singularValues;
        }),
        startProduct: perModule(golden, product),
        truncationError: perModule(golden, (module) => result.measurements?.[`deviation/${module}`]),
        effective: all(weightsOf(federation.effective(params, client, offset))),
      },
    };
  };
  const packed = (of: (module: string) => number[]): number =>
    modules.reduce((sum, [module]) => sum + of(module).length, 0);
  replay(golden, precision, check, strategy, observe, {
    measured: false,
    initial: Object.fromEntries(
      modules.flatMap(([module, { out, in: width }]) => [
        [`${module}.loraA`, ones(rank, width)],
        [`${module}.loraB`, ones(out, rank)],
      ]),
    ),
    held: (params) =>
      new Map(
        [...params].map(([name, tensor]): [string, Tensor] =>
          name.endsWith(".weight") && !name.includes(".lora_") ? difference(name, tensor) : [name, tensor],
        ),
      ),
    change: (params, module, { scaling }) => {
      const [b, a] = [params.get(`${module}.lora_B.weight`), params.get(`${module}.lora_A.weight`)];
      const dense = params.get(`${module}.difference.weight`);
      if (dense) return values(dense);
      return a && b ? matmul(matrixOf(b), matrixOf(a)).data.map((x) => scaling * x) : undefined;
    },
  });

  /** The golden gives whole weights; a client trains their difference from the pretrained ones. */
  function difference(name: string, { dtype, shape, data }: Tensor): [string, Tensor] {
    const base = flat(golden.initial.base?.[name] ?? []);
    const moved = Float64Array.from([...data].map(Number), (x, i) => x - (base[i] ?? 0));
    return [
      `${name.slice(0, -".weight".length)}.difference.weight`,
      dtype === "float64"
        ? { dtype, shape, data: moved }
        : { dtype: "float32", shape, data: Float32Array.from(moved) },
    ];
  }

  /** What clients hold of a sparse state, put together from what travels. */
  function heldDifference(federation: Replay<SloraState>, state: SloraState) {
    const held = new Map(
      modules.map(([module]) => {
        const weight = values(federation.base.get(`${module}.weight`));
        const moves = values(state.difference.get(`${module}.difference.values`));
        positions(module).forEach((at, i) => {
          weight[at] = (weight[at] ?? 0) + (moves[i] ?? 0);
        });
        return [module, weight] as const;
      }),
    );
    return { server: weightsOf(held) };
  }
}
