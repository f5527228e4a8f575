import { BLOCK, dequantizeBlocks } from "../graph/ops/blocks.ts";
import { cast } from "../graph/ops.ts";
import { input, type Value } from "../graph/value.ts";
import type { DType } from "../tensor/dtype.ts";
import { type BlockBits, blockNames } from "../tensor/quant/matmul-nbits.ts";

/** What is known of a named tensor before its numbers are. */
export interface WeightSpec {
  /** Floats of 16 bits are read as float32. */
  readonly dtype: DType;
  readonly shape: readonly number[];
  /** Bits of a number where the matrix is held in blocks, under the names of `blockNames`. */
  readonly blockBits?: BlockBits;
}

/** What an adapter adds to a linear layer: the layer's new output for input `x` and base output `y`. */
export type LinearAdapter = (w: Scope, x: Value, y: Value) => Value;

/** A view of the weights under a name prefix. Names of graph inputs are the names in the checkpoint. */
export interface Scope {
  /** The prefix, such as `model.layers.0.self_attn`; empty at the root. */
  readonly path: string;
  /** What adapters add to the linear layer of this name, in the order of attachment. */
  readonly adapters: readonly LinearAdapter[];
  at(name: string | number): Scope;
  has(name: string): boolean;
  /**
   * A tensor: its graph input, or what is computed from it where it is held in fewer bits than are computed with. Throws
   * RangeError if there is none of this name.
   */
  get(name: string): Value;
  /** Every tensor that has been asked for, by full name. */
  readonly inputs: ReadonlyMap<string, Value>;
}

export interface ScopeOptions {
  /** Base weights and adapter parameters by full name. */
  readonly weights: ReadonlyMap<string, WeightSpec>;
  /** Names that share the tensor of another name, such as a tied output layer. */
  readonly tied?: ReadonlyMap<string, string>;
  /** Adapters of linear layers, by the layer's full name. */
  readonly adapters?: ReadonlyMap<string, readonly LinearAdapter[]>;
}

const none: readonly LinearAdapter[] = [];

/** The graph inputs that hold a tensor, in the type that is computed with. */
function read(name: string, { dtype, shape, blockBits }: WeightSpec): Value {
  if (blockBits === undefined) {
    const held = input(name, dtype, shape);
    return dtype === "float16" || dtype === "bfloat16" ? cast(held, "float32") : held;
  }
  const [out = 0, from = 0] = shape;
  const names = blockNames(name);
  const numbers = (part: string): Value => cast(input(part, "float16", [out, from / BLOCK]), "float32");
  const scales = numbers(names.scales);
  const levels = input(names.levels, "uint8", [out, from / BLOCK, (BLOCK * blockBits) / 8]);
  return dequantizeBlocks(
    blockBits === 8 ? { levels, scales } : { levels, scales, offsets: numbers(names.offsets) },
  );
}

/** The root scope over named weights; each becomes a graph input when it is first asked for. */
export function rootScope({ weights, tied = new Map(), adapters = new Map() }: ScopeOptions): Scope {
  const inputs = new Map<string, Value>();
  const stored = (name: string): string => (weights.has(name) ? name : (tied.get(name) ?? name));
  const view = (path: string): Scope => {
    const full = (name: string | number): string => (path === "" ? String(name) : `${path}.${name}`);
    return {
      path,
      inputs,
      adapters: adapters.get(path) ?? none,
      at: (name) => view(full(name)),
      has: (name) => weights.has(stored(full(name))),
      get(name) {
        const key = stored(full(name));
        const spec = weights.get(key);
        if (!spec)
          throw new RangeError(`scope: there is no tensor "${full(name)}" among ${weights.size} weights`);
        const known = inputs.get(key) ?? read(key, spec);
        inputs.set(key, known);
        return known;
      },
    };
  };
  return view("");
}
