import { gradients } from "../../src/graph/gradients.ts";
import { cast, mul, reduceSum } from "../../src/graph/ops.ts";
import type { Dim } from "../../src/graph/shape.ts";
import { input, type Value } from "../../src/graph/value.ts";
import type { DType } from "../../src/tensor/dtype.ts";
import type { OpCase } from "./cases.ts";
import { uniforms } from "./cases.ts";
import { type Array64, array64 } from "./evaluator.ts";

export type Sizes = ReadonlyMap<string, number>;

/** A case as a graph of one float type. */
export interface CaseGraph {
  readonly inputs: readonly Value[];
  readonly output: Value;
  /** The output seen through a fixed random direction, a scalar; its gradient is the vector-Jacobian product. */
  readonly scalar: Value;
  readonly wrt: readonly Value[];
  readonly grads: readonly Value[];
}

export function caseGraph(opCase: OpCase, float: DType): CaseGraph {
  const inputs = opCase.inputs.map(({ shape, dtype }, i) =>
    input(`x${i}`, dtype === "float" ? float : dtype, shape),
  );
  const output = opCase.build(inputs, float);
  const direction = input("direction", float, output.shape);
  const scalar = reduceSum(mul(cast(output, float), direction));
  const wrt = inputs.filter((value, i) => value.dtype === float && !opCase.constant?.includes(i));
  return { inputs: [...inputs, direction], output, scalar, wrt, grads: gradients(scalar, wrt) };
}

const length = (dim: Dim, sizes: Sizes): number =>
  String(dim)
    .split("*")
    .reduce((product, factor) => product * (sizes.get(factor) ?? Number(factor)), 1);

/** Seeded feeds for all inputs of a case. */
export function caseFeeds(
  opCase: OpCase,
  { inputs }: CaseGraph,
  sizes: Sizes,
  seed: number,
): Map<string, Array64> {
  const draw = uniforms(seed);
  for (let i = 0; i < 4; i++) draw();
  return new Map(
    inputs.map((value, i) => {
      const element = opCase.inputs[i]?.element ?? ((next) => 2 * next() - 1);
      const shape = value.shape.map((dim) => length(dim, sizes));
      const count = shape.reduce((a, b) => a * b, 1);
      // Float32 numbers, so that every runtime is given the same ones.
      return [
        value.name ?? "",
        array64(
          shape,
          Float32Array.from({ length: count }, () => element(draw)),
        ),
      ];
    }),
  );
}
