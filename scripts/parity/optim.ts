import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { runtime } from "#ort";
import { add, matMul, mul, reduceMean, sub, tanh } from "../../src/graph/ops.ts";
import { constant as constantValue, input, type Value } from "../../src/graph/value.ts";
import { adafactor } from "../../src/optim/adafactor.ts";
import { adagrad } from "../../src/optim/adagrad.ts";
import { adam, adamw } from "../../src/optim/adam.ts";
import type { Optimizer } from "../../src/optim/optimizer.ts";
import { rmsprop } from "../../src/optim/rmsprop.ts";
import { constant, cosine, linear, type Schedule, type ScheduleOptions } from "../../src/optim/schedules.ts";
import { sgd } from "../../src/optim/sgd.ts";
import { type Tensor, tensor } from "../../src/tensor/tensor.ts";
import { runLocal } from "../../src/train/local.ts";
import { initialState, traceStep } from "../../src/train/step.ts";
import { galoreCases } from "./galore.ts";
import type { ParityLine } from "./line.ts";

type Nested = number | readonly Nested[];
type Options = Readonly<Record<string, unknown>>;

function flat(value: Nested): number[] {
  return typeof value === "number" ? [value] : value.flatMap(flat);
}

function shapeOf(value: Nested): number[] {
  if (typeof value === "number") return [];
  const [head] = value;
  return [value.length, ...(head === undefined ? [] : shapeOf(head))];
}

const float64 = (value: Nested): Tensor<"float64"> =>
  tensor("float64", shapeOf(value), Float64Array.from(flat(value)));

const number = (options: Options, name: string): number => Number(options[name]);
const optional = <K extends string>(name: K, value: unknown): { [P in K]?: number } =>
  (typeof value === "number" ? { [name]: value } : {}) as { [P in K]?: number };
const pairOf = (value: unknown): readonly [number, number] => {
  const [a, b] = value as readonly number[];
  return [Number(a), Number(b)];
};

/** From the reference's option names to ours; every option of a case is used or refused. */
const optimizers: Readonly<
  Record<string, { readonly known: readonly string[]; readonly make: (o: Options) => Optimizer }>
> = {
  sgd: {
    known: ["lr", "momentum", "dampening", "nesterov", "weight_decay"],
    make: (o) =>
      sgd({
        learningRate: number(o, "lr"),
        nesterov: o.nesterov === true,
        ...optional("momentum", o.momentum),
        ...optional("dampening", o.dampening),
        ...optional("weightDecay", o.weight_decay),
      }),
  },
  adam: { known: ["lr", "betas", "eps", "weight_decay", "amsgrad"], make: (o) => adam(adamOptions(o)) },
  adamw: { known: ["lr", "betas", "eps", "weight_decay", "amsgrad"], make: (o) => adamw(adamOptions(o)) },
  adagrad: {
    known: ["lr", "lr_decay", "eps", "weight_decay", "initial_accumulator_value"],
    make: (o) =>
      adagrad({
        learningRate: number(o, "lr"),
        ...optional("learningRateDecay", o.lr_decay),
        ...optional("epsilon", o.eps),
        ...optional("weightDecay", o.weight_decay),
        ...optional("initialAccumulator", o.initial_accumulator_value),
      }),
  },
  rmsprop: {
    known: ["lr", "alpha", "eps", "momentum", "centered", "weight_decay"],
    make: (o) =>
      rmsprop({
        learningRate: number(o, "lr"),
        centered: o.centered === true,
        ...optional("alpha", o.alpha),
        ...optional("epsilon", o.eps),
        ...optional("momentum", o.momentum),
        ...optional("weightDecay", o.weight_decay),
      }),
  },
  adafactor: {
    known: [
      "lr",
      "scale_parameter",
      "relative_step",
      "warmup_init",
      "clip_threshold",
      "decay_rate",
      "beta1",
      "eps",
      "weight_decay",
    ],
    make: (o) =>
      adafactor({
        scaleParameter: o.scale_parameter === true,
        relativeStep: o.relative_step === true,
        warmupInit: o.warmup_init === true,
        ...optional("learningRate", o.lr),
        ...optional("clipThreshold", o.clip_threshold),
        ...optional("decayRate", o.decay_rate),
        ...optional("beta1", o.beta1),
        ...optional("weightDecay", o.weight_decay),
        ...(o.eps ? { epsilon: pairOf(o.eps) } : {}),
      }),
  },
};

function adamOptions(o: Options): Parameters<typeof adam>[0] {
  return {
    learningRate: number(o, "lr"),
    amsgrad: o.amsgrad === true,
    ...(o.betas ? { betas: pairOf(o.betas) } : {}),
    ...optional("epsilon", o.eps),
    ...optional("weightDecay", o.weight_decay),
  };
}

const schedules: Readonly<Record<string, (options: ScheduleOptions) => Schedule>> = {
  constant,
  constant_with_warmup: constant,
  linear,
  cosine,
};

interface Problem {
  readonly x: Nested;
  readonly y: Nested;
  readonly start: Readonly<Record<string, Nested>>;
}

interface Run {
  readonly options: Options;
  readonly steps: readonly {
    readonly loss: number;
    readonly parameters: Readonly<Record<string, Nested>>;
  }[];
}

/** `mean((scale * (tanh(x w1ᵀ + b1) w2ᵀ) + b2 − y)²)` as a sum and a count. */
function problemLoss(problem: Problem, w: (name: string) => Value): { sum: Value; count: Value } {
  const [x, y] = [constantValue(float64(problem.x)), constantValue(float64(problem.y))];
  const inner = tanh(add(matMul(x, w("w1"), { transB: true }), w("b1")));
  const out = add(mul(matMul(inner, w("w2"), { transB: true }), w("scale")), w("b2"));
  const difference = sub(out, y);
  const one = constantValue(tensor("float64", [], Float64Array.of(1)));
  return { sum: reduceMean(mul(difference, difference)), count: one };
}

async function optimizerLine(
  name: string,
  problem: Problem,
  run: Run,
  optimizer: Optimizer,
): Promise<ParityLine> {
  const start = new Map(Object.entries(problem.start).map(([key, value]) => [key, float64(value)]));
  const inputs = new Map([...start].map(([key, { shape }]) => [key, input(key, "float64", shape)]));
  const loss = problemLoss(problem, (key) => {
    const value = inputs.get(key);
    if (!value) throw new Error(`problem.json has no "${key}"`);
    return value;
  });
  const graphs = traceStep({ loss, trainable: inputs, optimizer });
  const session = await runtime.openSession(graphs.step);
  let [maxAbs, maxRel] = [0, 0];
  const compare = (got: number, expected: number): void => {
    maxAbs = Math.max(maxAbs, Math.abs(got - expected));
    maxRel = Math.max(maxRel, Math.abs(got - expected) / Math.max(1, Math.abs(expected)));
  };
  const absent = (): never => {
    throw new Error("this case accumulates nothing");
  };
  let params = start as ReadonlyMap<string, Tensor>;
  let optimizerState = initialState(optimizer, start);
  for (const [i, step] of run.steps.entries()) {
    const outcome = await runLocal(
      { step: session, accumulate: absent, apply: absent },
      {
        base: new Map(),
        start: params,
        optimizerState,
        steps: [[new Map()]],
        scalars: [optimizer.scalars(i + 1)],
      },
    );
    compare(outcome.steps[0]?.loss ?? Number.NaN, step.loss);
    for (const [key, expected] of Object.entries(step.parameters)) {
      const got = outcome.params.get(key)?.data ?? [];
      for (const [j, value] of flat(expected).entries()) compare(Number(got[j] ?? Number.NaN), value);
    }
    ({ params, optimizerState } = outcome);
  }
  await session.dispose();
  const tolerance = 1e-11;
  return {
    name,
    what: `parameters over ${run.steps.length} steps`,
    maxAbs,
    maxRel,
    tolerance,
    verdict: maxRel <= tolerance ? "passed" : "failed",
  };
}

function readJson(path: string): unknown {
  return JSON.parse(readFileSync(path, "utf8"));
}

/** Optimizer and schedule cases under `DIR/optim`. */
export async function* optimizerCases(dir: string): AsyncIterable<ParityLine> {
  const folder = join(dir, "optim");
  if (!existsSync(join(folder, "problem.json"))) return;
  const problem = readJson(join(folder, "problem.json")) as Problem;
  for (const [name, { known, make }] of Object.entries(optimizers)) {
    const path = join(folder, `${name}.json`);
    if (!existsSync(path)) continue;
    const { runs } = readJson(path) as { runs: readonly Run[] };
    for (const [i, run] of runs.entries()) {
      const title = `optim/${name}#${i} ${JSON.stringify(run.options)}`;
      const unknown = Object.keys(run.options).filter((key) => !known.includes(key));
      if (unknown.length > 0) {
        yield {
          name: title,
          what: "options",
          maxAbs: 0,
          maxRel: 0,
          tolerance: 0,
          verdict: "unsupported",
          note: `options ${unknown.join(", ")}`,
        };
      } else yield await optimizerLine(title, problem, run, make(run.options));
    }
  }
  yield* scheduleCases(folder);
  yield* galoreCases(folder);
}

function* scheduleCases(folder: string): Iterable<ParityLine> {
  const path = join(folder, "schedules.json");
  if (!existsSync(path)) return;
  interface Case {
    readonly name: string;
    readonly lr: number;
    readonly rates: readonly number[];
    readonly num_warmup_steps?: number;
    readonly num_training_steps?: number;
  }
  for (const [i, item] of (readJson(path) as { schedules: readonly Case[] }).schedules.entries()) {
    const make = schedules[item.name];
    const name = `optim/schedules#${i} ${item.name}`;
    if (!make) {
      yield {
        name,
        what: "rates",
        maxAbs: 0,
        maxRel: 0,
        tolerance: 0,
        verdict: "unsupported",
        note: `schedule ${item.name}`,
      };
      continue;
    }
    const schedule = make({
      learningRate: item.lr,
      warmupSteps: item.num_warmup_steps ?? 0,
      ...(item.num_training_steps === undefined ? {} : { totalSteps: item.num_training_steps }),
    });
    const maxAbs = Math.max(...item.rates.map((rate, t) => Math.abs(schedule(t + 1) - rate)));
    yield {
      name,
      what: `${item.rates.length} rates`,
      maxAbs,
      maxRel: maxAbs / item.lr,
      tolerance: 1e-12,
      verdict: maxAbs <= 1e-12 ? "passed" : "failed",
    };
  }
}
