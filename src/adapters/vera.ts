import { add, matMul, mul, slice } from "../graph/ops.ts";
import { constant, type Value } from "../graph/value.ts";
import type { LinearAdapter } from "../nn/scope.ts";
import type { Params } from "../tensor/params.ts";
import { stream } from "../tensor/random.ts";
import { float32, type Tensor, zeros } from "../tensor/tensor.ts";
import type { Adapter, AdapterParameter } from "./adapter.ts";
import { type LoraModule, type LoraOptions, lora, loraModules, loraNames } from "./lora.ts";

export interface VeraOptions extends Pick<LoraOptions, "target" | "exclude" | "modulesToSave"> {
  /** Rank of the shared matrices. Default: 256. */
  readonly rank?: number;
  /** Seed of the shared matrices, which all clients draw alike. Default: 0. */
  readonly projectionSeed?: number;
  /** First value of every entry of lambda_d. Default: 0.1. */
  readonly initialD?: number;
}

/** Names of a module's vectors in files: lambda_d [rank] and lambda_b [out]. */
export const veraNames = (module: string): { readonly lambdaD: string; readonly lambdaB: string } => ({
  lambdaD: `${module}.vera_lambda_d`,
  lambdaB: `${module}.vera_lambda_b`,
});

/**
 * VeRA: `y = W x + diag(lambda_b) B diag(lambda_d) A x`, where A and B are random, frozen, and shared by all modules:
 * each takes as many columns of A and rows of B as it has inputs and outputs. Only the two vectors are trained.
 *
 * Kopiczko et al., ICLR 2024, section 3. https://arxiv.org/abs/2310.11454
 */
export function vera({ rank = 256, projectionSeed = 0, initialD = 0.1, ...options }: VeraOptions): Adapter {
  const like: LoraOptions = { ...options, rank, alpha: rank }; // scaling 1
  return {
    name: "vera",
    attach(base) {
      const pairs = lora(like).attach(base);
      const modules = loraModules(base, like);
      const shared = projections(modules, rank, projectionSeed);
      const factors = new Set(
        modules.flatMap(({ module }) => Object.values<string>({ ...loraNames(module) })),
      );
      const parameters = new Map<string, AdapterParameter>();
      for (const { module, shape } of modules) {
        const { lambdaB, lambdaD } = veraNames(module);
        const [out] = shape;
        parameters.set(lambdaB, { shape: [out], trainable: true, start: () => zeros("float32", [out]) });
        parameters.set(lambdaD, {
          shape: [rank],
          trainable: true,
          start: () => float32([rank], new Float32Array(rank).fill(initialD)),
        });
      }
      for (const [name, parameter] of pairs.parameters)
        if (!factors.has(name)) parameters.set(name, parameter);
      const values = { a: constant(shared.a), b: constant(shared.b) };
      return {
        parameters,
        linear: new Map(modules.map(({ module, shape }) => [module, veraLinear(values, shape)])),
        merge: (weights, params) =>
          pairs.merge(
            weights,
            new Map([...params, ...modules.flatMap((module) => asFactors(params, module, shared))]),
          ),
      };
    },
  };
}

/** The shared matrices A [rank, widest in] and B [widest out, rank]. */
export interface VeraProjections {
  readonly a: Tensor<"float32">;
  readonly b: Tensor<"float32">;
}

/** Draws the shared matrices: uniform in ±sqrt(6 / fan-in), as Kaiming's with a gain of sqrt(2). */
export function projections(
  modules: readonly Pick<LoraModule, "shape">[],
  rank: number,
  seed: number,
): VeraProjections {
  const widest = (axis: 0 | 1): number => Math.max(...modules.map(({ shape }) => shape[axis]));
  const draw = (shape: readonly [number, number], name: string): Tensor<"float32"> => {
    const values = new Float32Array(shape[0] * shape[1]);
    const bound = Math.sqrt(6 / shape[1]);
    stream({ seed, purpose: `vera ${name}` }).fillUniform(values, -bound, bound);
    return float32(shape, values);
  };
  return { a: draw([rank, widest(1)], "A"), b: draw([widest(0), rank], "B") };
}

/** The layer of a module of shape [out, in] over the shared matrices. */
export function veraLinear(
  shared: { readonly a: Value; readonly b: Value },
  [out, from]: LoraModule["shape"],
): LinearAdapter {
  return (w, x, y) => {
    const a = leading(shared.a, 1, from); // [rank, in]
    const b = leading(shared.b, 0, out); // [out, rank]
    const inner = mul(matMul(x, a, { transB: true }), w.get("vera_lambda_d")); // [..., rank]
    return add(y, mul(matMul(inner, b, { transB: true }), w.get("vera_lambda_b")));
  };
}

function leading(x: Value, axis: 0 | 1, size: number): Value {
  return x.shape[axis] === size ? x : slice(x, axis, 0, size);
}

/** The same change as a pair of factors: A' = A[:, :in], B' = diag(lambda_b) B[:out] diag(lambda_d). */
function asFactors(
  params: Params,
  { module, shape: [out, from], rank }: LoraModule,
  { a, b }: VeraProjections,
): [string, Tensor][] {
  const { lambdaB, lambdaD } = veraNames(module);
  const [scaleB, scaleD] = [params.get(lambdaB), params.get(lambdaD)];
  if (!scaleB || !scaleD) throw new RangeError(`vera: merging "${module}" needs ${lambdaB} and ${lambdaD}`);
  const width = a.shape[1] ?? 0;
  const left = new Float32Array(out * rank);
  for (let i = 0; i < left.length; i++) {
    left[i] = Number(scaleB.data[Math.floor(i / rank)]) * b.data[i]! * Number(scaleD.data[i % rank]);
  }
  const right = Float32Array.from(
    { length: rank * from },
    (_, i) => a.data[Math.floor(i / from) * width + (i % from)]!,
  );
  const { loraA, loraB } = loraNames(module);
  return [
    [loraA, float32([rank, from], right)],
    [loraB, float32([out, rank], left)],
  ];
}
