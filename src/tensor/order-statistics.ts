import type { Params } from "./params.ts";
import { mapParams } from "./params.ts";

/**
 * One number for every coordinate from its values in all sets, which are given in ascending order in an array that is
 * used again. Float64 in between, rounded once.
 */
export function reduceSorted(list: readonly Params[], reduce: (ascending: Float64Array) => number): Params {
  const [first = new Map()] = list;
  const column = new Float64Array(list.length);
  return mapParams(first, ({ dtype, shape, data }, name) => {
    const members = list.map((params) => {
      const values = params.get(name)?.data;
      if (!(values instanceof Float32Array || values instanceof Float64Array)) {
        throw new TypeError(`reduceSorted: ${name} is missing or not float32 or float64 in one of the sets`);
      }
      return values;
    });
    const reduced = new Float64Array(data.length);
    for (let i = 0; i < reduced.length; i++) {
      for (let k = 0; k < members.length; k++) column[k] = members[k]![i]!;
      reduced[i] = reduce(sorted(column));
    }
    return dtype === "float64"
      ? { dtype, shape, data: reduced }
      : { dtype: "float32", shape, data: Float32Array.from(reduced) };
  });
}

/** Sorts in place: by insertion where there are few values, as there are clients in a round. */
function sorted(values: Float64Array): Float64Array {
  if (values.length > 32) return values.sort();
  for (let i = 1; i < values.length; i++) {
    const value = values[i]!;
    let j = i;
    for (; j > 0 && values[j - 1]! > value; j--) values[j] = values[j - 1]!;
    values[j] = value;
  }
  return values;
}
