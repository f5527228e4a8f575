/** Mean of some values, and how far they spread. */
export interface Spread {
  readonly mean: number;
  /** Sample standard deviation (over n - 1); absent for one value. */
  readonly deviation?: number;
  readonly n: number;
}

/** Mean and sample standard deviation; undefined for no values. */
export function spreadOf(values: readonly number[]): Spread | undefined {
  const n = values.length;
  if (n === 0) return undefined;
  const [first = 0] = values;
  if (n === 1) return { mean: first, n };
  // Equal values are their mean exactly, which their sum over n may miss.
  if (values.every((value) => value === first)) return { mean: first, deviation: 0, n };
  const mean = values.reduce((sum, value) => sum + value, 0) / n;
  const squares = values.reduce((sum, value) => sum + (value - mean) ** 2, 0);
  return { mean, deviation: Math.sqrt(squares / (n - 1)), n };
}

/** A mean of differences between pairs. */
export interface Difference {
  readonly mean: number;
  /** Standard deviation of the differences over the root of their number; absent for one pair. */
  readonly standardError?: number;
  readonly n: number;
}

/** Mean of `value - reference` over the keys that both have, with its standard error; undefined for no pairs. */
export function pairedDifference(
  values: ReadonlyMap<number, number>,
  references: ReadonlyMap<number, number>,
): Difference | undefined {
  const differences = [...values].flatMap(([key, value]) => {
    const reference = references.get(key);
    return reference === undefined ? [] : [value - reference];
  });
  const found = spreadOf(differences);
  if (found === undefined) return undefined;
  const { mean, deviation, n } = found;
  return { mean, n, ...(deviation === undefined ? {} : { standardError: deviation / Math.sqrt(n) }) };
}
