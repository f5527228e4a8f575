import { spreadOf } from "../../src/sweep/statistics.ts";

/** The arithmetic mean; NaN of nothing. */
export function mean(values: readonly number[]): number {
  return spreadOf(values)?.mean ?? Number.NaN;
}

/** The standard deviation of a sample; NaN of fewer than two. */
export function spread(values: readonly number[]): number {
  return spreadOf(values)?.deviation ?? Number.NaN;
}

/** The number of the layer that a module belongs to. */
export function layerOf(module: string): number {
  return Number(/layers\.(\d+)\./.exec(module)?.[1] ?? Number.NaN);
}
