/**
 * Pearson's correlation of two lists of equal length; undefined where a side is constant or shorter than two.
 *
 * The means are taken first, so that a large common offset does not cancel the digits.
 */
export function pearson(xs: readonly number[], ys: readonly number[]): number | undefined {
  if (xs.length !== ys.length) {
    throw new RangeError(`pearson: ${xs.length} and ${ys.length} numbers, expected lists of equal length`);
  }
  const [meanX, meanY] = [mean(xs), mean(ys)];
  let [xx, yy, xy] = [0, 0, 0];
  for (const [i, x] of xs.entries()) {
    const dx = x - meanX;
    const dy = (ys[i] ?? Number.NaN) - meanY;
    xx += dx * dx;
    yy += dy * dy;
    xy += dx * dy;
  }
  if (constant(xs) || constant(ys)) return undefined;
  return Math.min(1, Math.max(-1, xy / (Math.sqrt(xx) * Math.sqrt(yy))));
}

/** Spearman's rank correlation: Pearson's of the ranks, equal values at the mean of their ranks. */
export function spearman(xs: readonly number[], ys: readonly number[]): number | undefined {
  return pearson(ranks(xs), ranks(ys));
}

/** Mean squared difference of two lists of equal length. */
export function meanSquaredError(xs: readonly number[], ys: readonly number[]): number {
  return mean(xs.map((x, i) => (x - (ys[i] ?? Number.NaN)) ** 2));
}

/** Ranks from 1 in ascending order. */
function ranks(values: readonly number[]): number[] {
  const order = values.map((_, i) => i).sort((a, b) => (values[a] ?? 0) - (values[b] ?? 0));
  const found = new Array<number>(values.length).fill(0);
  for (let start = 0; start < order.length; ) {
    let end = start + 1;
    while (end < order.length && values[order[end] ?? 0] === values[order[start] ?? 0]) end++;
    for (const i of order.slice(start, end)) found[i] = (start + 1 + end) / 2;
    start = end;
  }
  return found;
}

function mean(values: readonly number[]): number {
  return values.reduce((sum, value) => sum + value, 0) / values.length;
}

function constant(values: readonly number[]): boolean {
  return values.every((value) => value === values[0]);
}
