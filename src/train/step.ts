import { gradients } from "../graph/gradients.ts";
import { type EncodedGraph, encodeOnnx, encodeWithConstants } from "../graph/onnx.ts";
import { add, div, fill } from "../graph/ops.ts";
import { type PackedWeights, widenLate } from "../graph/passes/held-weights.ts";
import { pushSlices } from "../graph/passes/push-slices.ts";
import { type RecomputeLevel, recomputedGradients } from "../graph/passes/recompute.ts";
import { simplify } from "../graph/passes/simplify.ts";
import { input, type Value } from "../graph/value.ts";
import type { Loss } from "../nn/losses.ts";
import type { WeightSpec } from "../nn/scope.ts";
import { clipByGlobalNorm, globalNorm } from "../optim/clip.ts";
import type { Optimizer } from "../optim/optimizer.ts";
import { allocate } from "../tensor/dtype.ts";
import type { Params } from "../tensor/params.ts";
import { sizeOf, tensor } from "../tensor/tensor.ts";
import { packs } from "./pack.ts";

type Values = ReadonlyMap<string, Value>;
type Specs = ReadonlyMap<string, WeightSpec>;

/** What an algorithm adds to plain training, as far as the graph sees it. */
export interface StepRule {
  /** A scalar added to the mean loss. `received` holds the values at the start of the round. */
  penalty?(params: Values, received: Values): Value;
  /** Changes each gradient before clipping. `extra` and `memory` are graph inputs. */
  correct?(gradients: Values, extra: Values, memory: Values): Values;
}

export interface StepOptions {
  /** The task loss, as a sum and what it runs over. */
  readonly loss: Loss;
  /** The trained parameters: graph inputs that the loss depends on, by name. */
  readonly trainable: Values;
  readonly optimizer: Optimizer;
  /** Largest global gradient norm; 0 leaves gradients as they are. */
  readonly clipNorm?: number;
  readonly rule?: StepRule;
  /** What the backward pass computes again instead of keeping it. Default: nothing. */
  readonly recompute?: RecomputeLevel | undefined;
  /** Shapes of what the algorithm sends along and remembers, where `rule.correct` reads them. */
  readonly extra?: Specs;
  readonly memory?: Specs;
}

/**
 * A training step as graphs. Feeds and outputs have the same names, so that what one step puts out is fed to the next:
 * trained parameters under their own names, optimizer state under `optimizer/<state>/<name>`, gradient sums under
 * `gradient/<name>`. Further feeds: `received/<name>`, `extra/<name>`, `memory/<name>`, `scalar/<name>`.
 * Outputs are prefixed `next:`, beside `loss` (a sum), `count` and `norm` (of the mean gradient, before clipping).
 */
export interface StepGraphs {
  /** One batch, one step. */
  readonly step: Uint8Array<ArrayBuffer>;
  /** Adds the gradient of one micro-batch to the sums. */
  readonly accumulate: Uint8Array<ArrayBuffer>;
  /** Steps along the sums; `count` is a feed. */
  readonly apply: Uint8Array<ArrayBuffer>;
  /** The gradients that projectors are made of, from the sums and `count`; absent where the optimizer has none. */
  readonly projected?: Uint8Array<ArrayBuffer>;
}

export const feedNames = {
  state: (kind: string, name: string): string => `optimizer/${kind}/${name}`,
  gradient: (name: string): string => `gradient/${name}`,
  received: (name: string): string => `received/${name}`,
  extra: (name: string): string => `extra/${name}`,
  memory: (name: string): string => `memory/${name}`,
  scalar: (name: string): string => `scalar/${name}`,
  next: (name: string): string => `next:${name}`,
} as const;

/** The optimizer state before the first step. */
export function initialState(optimizer: Optimizer, trainable: Specs): Params {
  const state = new Map<string, ReturnType<typeof tensor>>();
  for (const [name, { shape, dtype }] of trainable) {
    for (const [kind, spec] of Object.entries(optimizer.state(shape, name))) {
      const data = allocate(dtype, sizeOf(spec.shape));
      if (data instanceof Float32Array || data instanceof Float64Array) data.fill(spec.fill);
      state.set(feedNames.state(kind, name), tensor(dtype, spec.shape, data));
    }
  }
  return state;
}

/** The mean gradients as the rule of the algorithm changes them. */
function corrected({ rule, extra = new Map(), memory = new Map() }: StepOptions, means: Values): Values {
  const inputs = (specs: Specs, rename: (name: string) => string): Values =>
    new Map([...specs].map(([name, { dtype, shape }]) => [name, input(rename(name), dtype, shape)]));
  return rule?.correct?.(means, inputs(extra, feedNames.extra), inputs(memory, feedNames.memory)) ?? means;
}

/** The part of a step that follows the corrected mean gradients. */
function update({ trainable, optimizer, clipNorm = 0 }: StepOptions, directions: Values): Map<string, Value> {
  const groups = packs(trainable, optimizer.elementwise);
  const raw = groups.map(({ names, join }) => join(names.map((name) => pick(directions, name))));
  const norm = globalNorm(raw);
  const clipped = clipNorm > 0 ? clipByGlobalNorm(raw, norm, clipNorm) : raw;
  const outputs = new Map<string, Value>([["norm", norm]]);
  groups.forEach(({ names, join, split }, i) => {
    const members = names.map((name) => pick(trainable, name));
    const parameter = join(members);
    const gradient = clipped[i];
    const [first] = members;
    if (!gradient || !first) throw new Error(`step: no gradient for "${names.join(", ")}"`);
    const kinds = Object.keys(optimizer.state(first.shape.map(Number), names[0]));
    const state = Object.fromEntries(
      kinds.map((kind) => {
        const parts = members.map(({ dtype, shape }, j) => {
          const spec = optimizer.state(shape.map(Number), names[j])[kind];
          if (!spec) throw new Error(`step: ${optimizer.name} has no state "${kind}" of shape [${shape}]`);
          return input(feedNames.state(kind, names[j] ?? ""), dtype, spec.shape);
        });
        return [kind, join(parts)];
      }),
    );
    const scalars = Object.fromEntries(
      Object.keys(optimizer.scalars(1)).map((name) => [
        name,
        input(feedNames.scalar(name), parameter.dtype, []),
      ]),
    );
    const next = optimizer.update({ parameter, gradient, state, scalars });
    const put = (value: Value, rename: (name: string) => string): void => {
      split(value).forEach((part, j) => {
        outputs.set(feedNames.next(rename(names[j] ?? "")), part);
      });
    };
    put(next.parameter, (name) => name);
    for (const [kind, value] of Object.entries(next.state)) {
      put(value, (name) => feedNames.state(kind, name));
    }
  });
  return outputs;
}

/** The outputs of one whole step, simplified: what `StepGraphs.step` holds. */
export function stepOutputs(options: StepOptions): ReadonlyMap<string, Value> {
  return simplified(traceWhole(options));
}

/** The loss without what it does not read, so that its gradients do not compute that either. */
function lean({ sum, count }: Loss): Loss {
  const [leanSum = sum, leanCount = count] = pushSlices([sum, count]);
  return { sum: leanSum, count: leanCount };
}

/** Gradients of the trained parameters, in their order. */
function backward({ trainable, recompute }: StepOptions, scalar: Value): readonly Value[] {
  const wrt = [...trainable.values()];
  return recompute ? recomputedGradients(scalar, wrt, recompute) : gradients(scalar, wrt);
}

function traceWhole(options: StepOptions): Map<string, Value> {
  const { trainable, rule } = options;
  const loss = lean(options.loss);
  const mean = div(loss.sum, loss.count);
  const penalty = rule?.penalty?.(trainable, receivedInputs(trainable));
  const means = backward(options, penalty ? add(mean, penalty) : mean);
  const directions = corrected(options, named(trainable, means));
  return new Map([["loss", loss.sum], ["count", loss.count], ...update(options, directions)]);
}

/** The gradients of the parameters that have projectors. Clipping scales them all, which no singular vector sees. */
function projectedOutputs({ trainable, optimizer }: StepOptions, directions: Values): Map<string, Value> {
  return new Map(
    [...trainable]
      .filter(([name, { shape }]) => hasProjector(optimizer.state(shape.map(Number), name)))
      .map(([name]) => [feedNames.next(feedNames.gradient(name)), pick(directions, name)]),
  );
}

const hasProjector = (state: Readonly<Record<string, unknown>>): boolean =>
  state.leftProjector !== undefined || state.rightProjector !== undefined;

/** The values at the start of the round, as graph inputs. */
function receivedInputs(trainable: Values): Values {
  return new Map(
    [...trainable].map(([name, { dtype, shape }]) => [name, input(feedNames.received(name), dtype, shape)]),
  );
}

/** Values in the order of the trained parameters, by their names. */
function named(trainable: Values, values: readonly Value[]): Values {
  return new Map([...trainable.keys()].map((name, i) => [name, values[i] ?? fill([], 0)] as const));
}

/** Traces loss, backward pass and optimizer into one step, and into the two halves of an accumulated step. */
export function traceStep(options: StepOptions): StepGraphs {
  const { trainable, rule } = options;
  const loss = lean(options.loss);
  if (trainable.size === 0)
    throw new RangeError("step: nothing is trainable; choose a target that matches a layer");
  const names = [...trainable.keys()];
  const wrt = [...trainable.values()];
  const penalty = rule?.penalty?.(trainable, receivedInputs(trainable));
  const sums = named(
    trainable,
    wrt.map((value, i) => input(feedNames.gradient(names[i] ?? ""), value.dtype, value.shape)),
  );
  const accumulate = new Map<string, Value>([
    ["loss", loss.sum],
    ["count", loss.count],
  ]);
  backward(options, loss.sum).forEach((gradient, i) => {
    const name = names[i] ?? "";
    accumulate.set(feedNames.next(feedNames.gradient(name)), add(pick(sums, name), gradient));
  });

  const count = input("count", loss.count.dtype, []);
  const ofPenalty = penalty ? named(trainable, gradients(penalty, wrt)) : undefined;
  const means = new Map(
    names.map((name) => {
      const data = div(pick(sums, name), count);
      return [name, ofPenalty ? add(data, pick(ofPenalty, name)) : data] as const;
    }),
  );
  const directions = corrected(options, means);
  const projected = projectedOutputs(options, directions);
  return {
    step: encode(traceWhole(options)),
    accumulate: encode(accumulate),
    apply: encode(update(options, directions)),
    ...(projected.size > 0 && { projected: encode(projected) }),
  };
}

/** ONNX bytes of named outputs, after the passes. */
export function encode(outputs: ReadonlyMap<string, Value>): Uint8Array<ArrayBuffer> {
  return encodeOnnx({ outputs: simplified(outputs) });
}

/** The same for a graph that holds weights itself. */
export function encodePacked(outputs: ReadonlyMap<string, Value>, packed: PackedWeights): EncodedGraph {
  return encodeWithConstants({ outputs: simplified(outputs, packed) });
}

function simplified(outputs: ReadonlyMap<string, Value>, packed?: PackedWeights): ReadonlyMap<string, Value> {
  const values = widenLate(simplify([...outputs.values()]), packed);
  return new Map([...outputs.keys()].map((name, i) => [name, values[i] ?? fill([], 0)] as const));
}

function pick(values: Values, name: string): Value {
  const value = values.get(name);
  if (!value) throw new RangeError(`step: no value named "${name}"`);
  return value;
}
