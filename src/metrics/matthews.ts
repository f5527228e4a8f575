/**
 * Matthews' correlation of predicted and true classes: `(c s − Σ_k p_k t_k) / √((s² − Σ p_k²)(s² − Σ t_k²))`, where s counts
 * the examples, c the right answers, p_k the predictions of class k and t_k its examples; 0 where a side knows one class only.
 *
 * Gorodkin, Comput. Biol. Chem. 2004, eq. 8; for two classes Matthews, BBA 1975. https://doi.org/10.1016/j.compbiolchem.2004.09.006
 */
export function matthewsCorrelation(predicted: readonly number[], actual: readonly number[]): number {
  if (predicted.length !== actual.length) {
    throw new RangeError(
      `matthewsCorrelation: ${predicted.length} predictions of ${actual.length} examples, expected lists of equal length`,
    );
  }
  const total = predicted.length;
  const right = predicted.filter((label, i) => label === actual[i]).length;
  const [found, truth] = [counts(predicted), counts(actual)];
  let both = 0;
  for (const [label, count] of found) both += count * (truth.get(label) ?? 0);
  const spread = (of: ReadonlyMap<number, number>): number =>
    total ** 2 - [...of.values()].reduce((sum, count) => sum + count ** 2, 0);
  const scale = Math.sqrt(spread(found)) * Math.sqrt(spread(truth));
  return scale === 0 ? 0 : (right * total - both) / scale;
}

function counts(labels: readonly number[]): ReadonlyMap<number, number> {
  const found = new Map<number, number>();
  for (const label of labels) found.set(label, (found.get(label) ?? 0) + 1);
  return found;
}
