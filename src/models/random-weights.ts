import type { Params } from "../tensor/params.ts";
import { stream } from "../tensor/random.ts";
import { float32, sizeOf, type Tensor } from "../tensor/tensor.ts";
import type { ModelParameter, ParameterKind } from "./model.ts";
import type { TaskModel } from "./task.ts";

/** Fresh weights of a whole model, for pretraining, tests and benchmarks. */
export function randomWeights({ model, config, task }: TaskModel, seed: number): Params {
  const weights = new Map<string, Tensor>();
  for (const [name, parameter] of model.parameters(config, task)) {
    weights.set(name, freshTensor(name, parameter, config.initializerRange, seed));
  }
  return weights;
}

const drawn: ReadonlySet<ParameterKind> = new Set<ParameterKind>(["linear", "embedding", "convolution"]);

/** One fresh tensor: matrices, embeddings and convolutions are normal, norm weights 1, everything else 0. */
export function freshTensor(
  name: string,
  { shape, kind }: ModelParameter,
  deviation: number,
  seed: number,
): Tensor<"float32"> {
  const values = new Float32Array(sizeOf(shape));
  if (kind === "norm-weight") values.fill(1);
  if (drawn.has(kind)) stream({ seed, purpose: `init/${name}` }).fillNormal(values, 0, deviation);
  return float32(shape, values);
}
