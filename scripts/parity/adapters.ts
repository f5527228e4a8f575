import { doraLinear } from "../../src/adapters/dora.ts";
import { loraLinear } from "../../src/adapters/lora.ts";
import { triLinear } from "../../src/adapters/tri-lora.ts";
import { veraLinear } from "../../src/adapters/vera.ts";
import { gradients } from "../../src/graph/gradients.ts";
import { mul, reduceSum, transpose } from "../../src/graph/ops.ts";
import { constant, input } from "../../src/graph/value.ts";
import { linear } from "../../src/nn/linear.ts";
import { type LinearAdapter, rootScope } from "../../src/nn/scope.ts";
import type { Tensor } from "../../src/tensor/tensor.ts";
import { type Array64, array64, evaluate } from "../../test/graph/evaluator.ts";
import {
  type AdapterCase,
  type Check,
  flat,
  type Golden,
  type Nested,
  type Precision,
  shapeOf,
} from "./replay.ts";

/** A layer with an adapter: the golden's names of the trained tensors by ours, and what the layer adds. */
interface Layer {
  readonly names: Readonly<Record<string, string>>;
  readonly adapter: LinearAdapter;
  /** How a gradient of the golden reads, where ours is a part of it. */
  readonly part?: (name: string, rows: Nested) => Nested;
}

const pair = { "lora_A.weight": "loraA", "lora_B.weight": "loraB" };

/** How the layers of the adapters that we have are built from what a case gives. */
const layers: Readonly<Record<string, (given: AdapterCase["given"]) => Layer>> = {
  lora: (given) => ({ names: pair, adapter: loraLinear(Number(given.scaling)) }),
  dora: (given) => ({
    names: { ...pair, lora_magnitude_vector: "magnitude" },
    adapter: doraLinear(Number(given.scaling)),
  }),
  rslora: (given) => ({ names: pair, adapter: loraLinear(Number(given.scaling)) }),
  "tri-lora": (given) => ({
    names: { ...pair, "lora_C.weight": "loraC" },
    adapter: triLinear(Number(given.scaling)),
  }),
  vera: ({ As = [], Bs = [] }) => ({
    names: { vera_lambda_d: "lambdaD", vera_lambda_b: "lambdaB" },
    adapter: veraLinear({ a: constant(tensorOf(As)), b: constant(tensorOf(Bs)) }, [
      rows(Bs).length,
      rows(rows(As)[0] ?? []).length,
    ]),
  }),
  // A sketched pair is the slice of its components at the scaling of their number.
  sketched: ({ scaling, indices = [], loraA = [] }) => {
    const drawn = flat(indices);
    const boost = rows(loraA).length / drawn.length;
    return {
      names: pair,
      adapter: loraLinear(Number(scaling) * boost),
      part: (name, whole) =>
        name === "loraA"
          ? drawn.map((i) => rows(whole)[i] ?? [])
          : rows(whole).map((row) => drawn.map((i) => rows(row)[i] ?? Number.NaN)),
    };
  },
};

/** adapters.json: the effective weight of every parametrisation, and the gradients of `sum(G * W_effective)`. */
export function compareAdapters({ initial, cases = {} }: Golden, _: Precision, check: Check): void {
  const { weight = [], G: slope = [] } = initial;
  for (const [name, { given, expect }] of Object.entries(cases)) {
    const layer = layers[name]?.(given);
    if (layer === undefined) {
      check.skip(name);
      continue;
    }
    const { names, adapter, part = (_name: string, whole: Nested) => whole } = layer;
    const trained = Object.entries(names).map(([ours, theirs]) => ({
      ours,
      theirs,
      value: part(theirs, given[theirs] ?? []),
    }));
    const [out = 0, width = 0] = shapeOf(weight);
    const values = new Map([["weight", weight], ...trained.map(({ ours, value }) => [ours, value] as const)]);
    const scope = rootScope({
      weights: new Map(
        [...values].map(([key, value]) => [key, { dtype: "float64", shape: shapeOf(value) }] as const),
      ),
      adapters: new Map([["", [adapter]]]),
    });
    const x = input("x", "float64", [width, width]);
    const g = input("G", "float64", [out, width]);
    const effective = transpose(linear(scope, x), [1, 0]); // of the identity
    const wrt = trained.map(({ ours }) => scope.get(ours));
    const feeds = new Map<string, Array64>([
      ...[...values, ["G", slope] as const].map(([key, value]): [string, Array64] => [
        key,
        array64(shapeOf(value), flat(value)),
      ]),
      ["x", array64([width, width], identity(width))],
    ]);
    const [got, ...slopes] = evaluate(
      [effective, ...gradients(reduceSum(mul(effective, g)), wrt)],
      [x, g, ...scope.inputs.values()],
      feeds,
    );
    check.tree(`${name} effective`, got?.data, expect.effective);
    trained.forEach(({ theirs }, i) => {
      const expected = expect.gradient?.[theirs];
      if (expected !== undefined)
        check.tree(`${name} gradient of ${theirs}`, slopes[i]?.data, part(theirs, expected));
    });
  }
}

function rows(value: Nested): readonly Nested[] {
  return typeof value === "number" ? [] : value;
}

function tensorOf(value: Nested): Tensor {
  return { dtype: "float64", shape: shapeOf(value), data: Float64Array.from(flat(value)) };
}

function identity(size: number): Float64Array {
  return Float64Array.from({ length: size * size }, (_, i) => (i % (size + 1) === 0 ? 1 : 0));
}
