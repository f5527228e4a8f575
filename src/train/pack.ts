import { concat, reshape, slice } from "../graph/ops.ts";
import type { Value } from "../graph/value.ts";

/** Parameters with more elements than this are left alone: copying them costs more than the ops that it saves. */
const SMALL = 1 << 16;

/** Parameters that are stepped as one vector, or a single one as it is. */
export interface Pack {
  readonly names: readonly string[];
  /** The values of the pack's parameters as one value. */
  join(values: readonly Value[]): Value;
  /** The values of the single parameters, in the order of `names`. */
  split(value: Value): readonly Value[];
}

const sizeOf = ({ shape }: Value): number => shape.reduce<number>((product, dim) => product * Number(dim), 1);

/**
 * Groups parameters for an elementwise optimizer: the small ones of a dtype become one vector, so that a step over a
 * hundred adapter factors takes the dozen ops of one factor. Where `elementwise` is false each parameter is a pack.
 */
export function packs(parameters: ReadonlyMap<string, Value>, elementwise: boolean): Pack[] {
  const small = new Map<string, string[]>();
  const single: Pack[] = [];
  const alone = (name: string): Pack => ({
    names: [name],
    join: ([only]) => present(only),
    split: (only) => [only],
  });
  for (const [name, value] of parameters) {
    if (elementwise && sizeOf(value) <= SMALL) {
      const names = small.get(value.dtype) ?? [];
      names.push(name);
      small.set(value.dtype, names);
    } else single.push(alone(name));
  }
  const joined = [...small.values()].map((names): Pack => {
    const [only] = names;
    if (names.length === 1 && only !== undefined) return alone(only);
    const shapes = names.map((name) => present(parameters.get(name)).shape);
    const sizes = names.map((name) => sizeOf(present(parameters.get(name))));
    return {
      names,
      join: (values) =>
        concat(
          values.map((value) => reshape(value, [sizeOf(value)])),
          0,
        ),
      split(value) {
        let end = 0;
        return shapes.map((shape, i) => {
          const start = end;
          end += sizes[i] ?? 0;
          return reshape(slice(value, 0, start, end), shape);
        });
      },
    };
  });
  return [...joined, ...single];
}

function present<T>(value: T | undefined): T {
  if (value === undefined) throw new RangeError("pack: a parameter is missing");
  return value;
}
