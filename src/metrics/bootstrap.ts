import { stream } from "../tensor/random.ts";

export interface BootstrapOptions {
  /** Samples drawn. Default: 1000. */
  readonly resamples?: number;
  /** Share of the samples within the interval. Default: 0.95. */
  readonly confidence?: number;
  readonly seed: number;
  /** Makes the draws of one measurement differ from those of another by the same seed. */
  readonly key?: string;
}

/** Where a value lies in most samples. */
export interface Interval {
  readonly low: number;
  readonly high: number;
}

/**
 * Percentile bootstrap: `count` examples are drawn with replacement, measured again and again, and the interval holds the
 * middle share of the values. A sample that has no value does not count; undefined where fewer than half have one.
 *
 * Efron and Tibshirani 1993, section 13.3.
 */
export function bootstrapInterval(
  count: number,
  measure: (indices: readonly number[]) => number | undefined,
  { resamples = 1000, confidence = 0.95, seed, key = "" }: BootstrapOptions,
): Interval | undefined {
  const random = stream({ seed, purpose: `bootstrap ${key}` });
  const values: number[] = [];
  for (let i = 0; i < resamples; i++) {
    const drawn = Array.from({ length: count }, () => random.integer(count));
    const value = measure(drawn);
    if (value !== undefined && Number.isFinite(value)) values.push(value);
  }
  if (count === 0 || values.length < resamples / 2) return undefined;
  values.sort((a, b) => a - b);
  const tail = (1 - confidence) / 2;
  return { low: quantile(values, tail), high: quantile(values, 1 - tail) };
}

/** A quantile of sorted values, linear between two of them. */
function quantile(sorted: readonly number[], share: number): number {
  const at = share * (sorted.length - 1);
  const [below, above] = [sorted[Math.floor(at)] ?? Number.NaN, sorted[Math.ceil(at)] ?? Number.NaN];
  return below + (at - Math.floor(at)) * (above - below);
}
