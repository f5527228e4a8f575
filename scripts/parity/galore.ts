import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { parseSafetensors } from "../../src/formats/safetensors.ts";
import { type GaloreAdamOptions, galoreAdamW, galoreSgd } from "../../src/optim/galore.ts";
import type { Optimizer } from "../../src/optim/optimizer.ts";
import { fedFtg } from "../../src/strategies/fedftg.ts";
import type { Params } from "../../src/tensor/params.ts";
import { type Tensor, tensor } from "../../src/tensor/tensor.ts";
import { GivenGradients } from "../../test/optim/given-gradients.ts";
import type { ParityLine } from "./line.ts";
import { type Check, type Golden, named, type Precision, Replay, replay, type TensorSet } from "./replay.ts";

type Options = Readonly<Record<string, unknown>>;

const known = new Set([
  ...["rank", "gap", "update_proj_gap", "scale", "side", "proj_type", "lr", "inner", "correctBias"],
  ...["beta1", "beta2", "betas", "eps", "weight_decay", "weightDecay"],
]);

/** From the names of the goldens to ours; an option that we do not know is refused. */
function optimizerOf(options: Options): Optimizer {
  const unknown = Object.keys(options).find((name) => !known.has(name));
  if (unknown !== undefined) throw new RangeError(`galore: unknown option ${unknown}`);
  if (options.correctBias === false) throw new RangeError("galore: Adam without bias correction");
  const [beta1, beta2] = (options.betas ?? [options.beta1 ?? 0.9, options.beta2 ?? 0.999]) as number[];
  const side = String(options.side ?? options.proj_type ?? "std").replace("_", "-");
  const common: GaloreAdamOptions = {
    learningRate: Number(options.lr),
    rank: Number(options.rank),
    gap: Number(options.gap ?? options.update_proj_gap),
    scale: Number(options.scale),
    side: side as NonNullable<GaloreAdamOptions["side"]>,
    decomposition: "exact",
    weightDecay: Number(options.weightDecay ?? options.weight_decay ?? 0),
  };
  if (options.inner === "sgd") return galoreSgd(common);
  return galoreAdamW({
    ...common,
    betas: [Number(beta1), Number(beta2)],
    epsilon: Number(options.eps ?? 1e-6),
  });
}

/** State tensors of one kind under the parameters' names. */
function stateOf(state: Params, kind: RegExp): Params {
  return new Map(
    [...state].flatMap(([key, value]): [string, Tensor][] => {
      const [, of = "", ...name] = key.split("/");
      return kind.test(of) ? [[name.join("/"), value]] : [];
    }),
  );
}

/** strategies/galore.json: named option sets over the same gradients. */
export async function compareGalore(golden: Golden, precision: Precision, check: Check): Promise<void> {
  const { initial, gradients, rounds } = golden as Golden & {
    readonly initial: { readonly weights: TensorSet };
    readonly gradients: readonly TensorSet[];
    readonly rounds: readonly {
      readonly name: string;
      readonly options: Options;
      readonly expect: { readonly steps: readonly Readonly<Record<string, TensorSet>>[] };
    }[];
  };
  const { params: read } = shellOf(golden, precision);
  const start = read(initial.weights);
  for (const { name, options, expect } of rounds) {
    const training = new GivenGradients(optimizerOf(options), start);
    let held: { params: Params; kept: Params } = { params: start, kept: new Map() };
    for (const [t, step] of expect.steps.entries()) {
      const after = await training.run(held.params, [read(gradients[t] ?? {})], held.kept, "kept");
      held = after;
      const observed: Record<string, Params> = {
        weights: after.params,
        projector: stateOf(after.state, /Projector$/),
        momentum: stateOf(after.state, /^firstMoment$/),
        secondMoment: stateOf(after.state, /^secondMoment$/),
      };
      for (const [what, set] of Object.entries(step))
        check.tree(`${name} round ${t} ${what}`, named(observed[what] ?? new Map()), set);
    }
    await training.dispose();
  }
}

/** strategies/fedftg.json: local GaLore on given gradients, FedAvg of the weights, three fates of the state. */
export async function compareFedFtg(golden: Golden, precision: Precision, check: Check): Promise<void> {
  const { config, gradients } = golden as Golden & {
    readonly gradients: Readonly<Record<string, readonly TensorSet[]>>;
  };
  const { localSteps, weighting: _, ...options } = config;
  const shell = shellOf(golden, precision);
  const { params: read, initial } = shell;
  const training = new GivenGradients(optimizerOf(options), initial);
  const fates = [
    ["kept", "kept"],
    ["resetMoments", "projectors"],
    ["resetAll", "fresh"],
  ] as const;
  const perRound = Number(localSteps);
  for (const [fate, memory] of fates) {
    const strategy = fedFtg({ afterAggregation: memory });
    const federation = new Replay(golden, precision, strategy);
    const kept = new Map<string, Params>();
    for (const [r, round] of golden.rounds.entries()) {
      const trained: Record<string, Params> = {};
      const optimizer: Record<string, unknown> = {};
      for (const id of round.participants) {
        const given = (gradients[id] ?? []).slice(r * perRound, (r + 1) * perRound).map(read);
        const survives = strategy.local?.optimizerState ?? "fresh";
        const after = await training.run(federation.state, given, kept.get(id) ?? new Map(), survives);
        trained[id] = after.params;
        kept.set(id, after.kept);
        optimizer[id] = Object.fromEntries(
          [...federation.state.keys()].map((name) => {
            const one = (kind: RegExp) => named(stateOf(after.state, kind))[name];
            return [
              name,
              {
                momentum: one(/^firstMoment$/),
                secondMoment: one(/^secondMoment$/),
                projector: one(/Projector$/),
              },
            ];
          }),
        );
      }
      const lists = Object.fromEntries(Object.entries(trained).map(([id, set]) => [id, nested(set)]));
      const { result } = federation.run({ ...round, trained: lists });
      const where = `round ${round.round}`;
      if (fate === "kept") {
        check.tree(
          `${where} trained`,
          Object.fromEntries(Object.entries(trained).map(([id, set]) => [id, named(set)])),
          round.trained,
        );
        check.tree(`${where} optimizer`, optimizer, round.expect.optimizer);
        check.tree(`${where} server`, named(result.state), round.expect.server);
      } else {
        const variants = round.expect.variants as Readonly<Record<string, unknown>>;
        check.tree(`${where} variants/${fate}`, named(result.state), variants[fate]);
      }
    }
  }
  await training.dispose();
  // The server's half, with `trained` as given.
  const unique = ["server", "effective", "analysis", "traffic"];
  replay({ ...golden, compare: { unique } }, precision, check, fedFtg());
}

/** A set of matrices and vectors as nested lists. */
function nested(set: Params): TensorSet {
  return Object.fromEntries(
    [...set].map(([name, { shape, data }]) => {
      const numbers = [...data].map(Number);
      const [rows = 1, cols] = shape;
      return [
        name,
        cols === undefined
          ? numbers
          : Array.from({ length: rows }, (_, i) => numbers.slice(i * cols, (i + 1) * cols)),
      ];
    }),
  );
}

function shellOf(golden: Golden, precision: Precision): { initial: Params; params(set: TensorSet): Params } {
  const { weights } = golden.initial as { readonly weights?: TensorSet };
  const replayed = new Replay(
    { ...golden, initial: { server: golden.initial.server ?? weights ?? {} } },
    precision,
    fedFtg(),
  );
  return { initial: replayed.initial, params: (set) => replayed.params(set) };
}

/** optim/galore.json: weights and projections over the steps, in float64 and in float32. */
export async function* galoreCases(folder: string): AsyncIterable<ParityLine> {
  const path = join(folder, "galore.json");
  if (!existsSync(path)) return;
  const { options, matrices, tolerance } = JSON.parse(readFileSync(path, "utf8")) as {
    readonly options: Options;
    readonly tolerance: number;
    readonly matrices: Readonly<Record<string, unknown>>;
  };
  const { params: stored } = parseSafetensors(readFileSync(join(folder, "galore.safetensors")));
  for (const precision of ["float64", "float32"] as const) {
    for (const matrix of Object.keys(matrices)) {
      const read = (name: string, step?: number): Tensor => {
        const whole = stored.get(`${matrix}.${name}`);
        if (!whole) throw new RangeError(`galore.safetensors has no ${matrix}.${name}`);
        const shape = step === undefined ? whole.shape : whole.shape.slice(1);
        const size = shape.reduce((a, b) => a * b, 1);
        const numbers = [...whole.data].slice((step ?? 0) * size, ((step ?? 0) + 1) * size).map(Number);
        return precision === "float64"
          ? tensor("float64", shape, Float64Array.from(numbers))
          : tensor("float32", shape, Float32Array.from(numbers));
      };
      const of = (value: Tensor): Params => new Map([["w", value]]);
      const steps = stored.get(`${matrix}.gradients`)?.shape[0] ?? 0;
      const training = new GivenGradients(optimizerOf(options), of(read("start")));
      let held: { params: Params; kept: Params } = { params: of(read("start")), kept: new Map() };
      let maxAbs = 0;
      let maxRel = 0;
      const compare = (got: Tensor | undefined, want: Tensor): void => {
        want.data.forEach((x: number | bigint, i: number) => {
          const off = Math.abs(Number(x) - Number(got?.data[i] ?? Number.NaN));
          maxAbs = Number.isNaN(off) ? Number.POSITIVE_INFINITY : Math.max(maxAbs, off);
          maxRel = Math.max(maxRel, off / Math.max(1, Math.abs(Number(x))));
        });
      };
      for (let t = 0; t < steps; t++) {
        const after = await training.run(held.params, [of(read("gradients", t))], held.kept, "kept");
        held = after;
        compare(after.params.get("w"), read("weights", t));
        compare(stateOf(after.state, /Projector$/).get("w"), read("projections", t));
      }
      await training.dispose();
      yield {
        name: `optim/galore ${matrix} ${precision}`,
        what: `weights and projections over ${steps} steps`,
        maxAbs,
        maxRel,
        tolerance,
        verdict: steps > 0 && maxAbs <= tolerance ? "passed" : "failed",
      };
    }
  }
}
