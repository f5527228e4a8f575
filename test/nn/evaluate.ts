import { runtime } from "#ort";
import type { Value } from "../../src/graph/value.ts";
import type { Params } from "../../src/tensor/params.ts";
import { encode } from "../../src/train/step.ts";

/** The numbers of graph values for feeds, by the names given. */
export async function evaluate(
  outputs: Readonly<Record<string, Value>>,
  feeds: Params = new Map(),
): Promise<Readonly<Record<string, number[]>>> {
  const session = await runtime.openSession(encode(new Map(Object.entries(outputs))));
  try {
    const got = await session.run(feeds);
    return Object.fromEntries([...got].map(([name, { data }]) => [name, Array.from(data, Number)]));
  } finally {
    await session.dispose();
  }
}

/** The largest absolute difference of two lists of one length. */
export function farthest(a: readonly number[], b: readonly number[]): number {
  if (a.length !== b.length) throw new RangeError(`farthest: got ${a.length} and ${b.length} numbers`);
  return a.reduce((most, x, i) => Math.max(most, Math.abs(x - (b[i] ?? Number.NaN))), 0);
}
