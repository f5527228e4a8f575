/** Standard error of the mean: the sample deviation over √n; not defined for fewer than two values. */
export function standardError(values: readonly number[]): number | undefined {
  const count = values.length;
  if (count < 2) return undefined;
  const mean = values.reduce((sum, value) => sum + value, 0) / count;
  const squares = values.reduce((sum, value) => sum + (value - mean) ** 2, 0);
  return Math.sqrt(squares / (count - 1) / count);
}
