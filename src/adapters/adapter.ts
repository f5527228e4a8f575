import type { ModelParameter } from "../models/model.ts";
import type { TaskModel } from "../models/task.ts";
import { type LinearAdapter, rootScope, type Scope, type WeightSpec } from "../nn/scope.ts";
import type { Params } from "../tensor/params.ts";
import type { Tensor } from "../tensor/tensor.ts";

/** What the first value of a parameter may depend on. */
export interface Start {
  /** Seed of the streams, each of which is keyed by the parameter's name. */
  readonly seed: number;
  /** Base weights in float32, for parameters that start as copies. */
  readonly base: Pick<Params, "get">;
}

/** A parameter that an adapter brings along. Under the name of a base tensor it stands in that tensor's place. */
export interface AdapterParameter {
  readonly shape: readonly number[];
  /** Parameters that are not trainable are fed like base weights. */
  readonly trainable: boolean;
  readonly start: (from: Start) => Tensor;
}

/** The tensors that an adapter can choose from. */
export interface AdapterBase {
  readonly parameters: ReadonlyMap<string, ModelParameter>;
  /** Names that share the tensor of another name. */
  readonly tied: ReadonlyMap<string, string>;
  /** How the tensors are held that are not held as float32. Default: none. */
  readonly held?: ReadonlyMap<string, WeightSpec>;
  /** The name of a tensor in PEFT's files. Default: that in checkpoints. */
  readonly loadedName?: (name: string) => string;
}

/** An adapter that has chosen its places in one model. */
export interface AttachedAdapter {
  /** Its parameters by full name, in the order of the model's tensors. */
  readonly parameters: ReadonlyMap<string, AdapterParameter>;
  /** What it adds to linear layers, by the layer's name. */
  readonly linear: ReadonlyMap<string, LinearAdapter>;
  /** The base tensors that change when `params` are folded into them. */
  merge(base: Params, params: Params): Params;
}

/** What is trained and how it enters `linear`. */
export interface Adapter {
  readonly name: string;
  attach(base: AdapterBase): AttachedAdapter;
}

/** The tensors of a model for a task, as adapters see them. */
export function adapterBase({ model, config, task, held }: TaskModel): AdapterBase {
  const { loadedName } = model;
  return {
    parameters: model.parameters(config, task),
    tied: model.tied(config),
    ...(held && { held }),
    ...(loadedName && { loadedName }),
  };
}

/**
 * The root scope of a model with adapters: base tensors as they are held, adapter parameters as float32 graph inputs, and so
 * `further` tensors, which adapters may look for; under a known name they give its shape, such as that of a smaller rank.
 */
export function adaptedScope(
  base: AdapterBase,
  attached: readonly AttachedAdapter[] = [],
  further: ReadonlyMap<string, WeightSpec> = new Map(),
): Scope {
  const weights = new Map<string, WeightSpec>();
  const adapters = new Map<string, LinearAdapter[]>();
  for (const [name, { shape }] of base.parameters)
    weights.set(name, base.held?.get(name) ?? { dtype: "float32", shape });
  for (const { parameters, linear } of attached) {
    for (const [name, { shape }] of parameters) weights.set(name, { dtype: "float32", shape });
    for (const [module, adapter] of linear) adapters.set(module, [...(adapters.get(module) ?? []), adapter]);
  }
  for (const [name, spec] of further) weights.set(name, spec);
  return rootScope({ weights, tied: base.tied, adapters });
}

/** Names of the parameters that an optimizer may move. */
export function trainableNames(attached: readonly AttachedAdapter[]): string[] {
  return attached.flatMap(({ parameters }) =>
    [...parameters].filter(([, { trainable }]) => trainable).map(([name]) => name),
  );
}

/** The first values of all parameters. */
export function startParams(attached: readonly AttachedAdapter[], from: Start): Params {
  const params = new Map<string, Tensor>();
  for (const { parameters } of attached) {
    for (const [name, { start }] of parameters) params.set(name, start(from));
  }
  return params;
}
