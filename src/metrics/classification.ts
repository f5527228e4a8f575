/** Share of the predictions that are right. */
export function accuracy(predicted: readonly number[], actual: readonly number[]): number {
  checkLengths("accuracy", predicted, actual);
  return predicted.filter((label, i) => label === actual[i]).length / predicted.length;
}

/** How the F1 of several classes become one: their mean, F1 of all counts together, or their mean weighted by examples. */
export type F1Average = "macro" | "micro" | "weighted";

/**
 * F1 over classes as scikit-learn computes it: the classes are those that occur on either side, and F1 of a class without
 * right predictions is 0.
 */
export function f1(predicted: readonly number[], actual: readonly number[], average: F1Average): number {
  checkLengths("f1", predicted, actual);
  // Every example has one label and one prediction, so the counts of all classes together give the accuracy.
  if (average === "micro") return accuracy(predicted, actual);
  const classes = [...new Set([...actual, ...predicted])];
  const examples = (label: number): number => actual.filter((other) => other === label).length;
  const weights = classes.map((label) => (average === "macro" ? 1 : examples(label)));
  const all = weights.reduce((sum, weight) => sum + weight, 0);
  return (
    classes.reduce((sum, label, i) => sum + binaryF1(predicted, actual, label) * (weights[i] ?? 0), 0) / all
  );
}

/** F1 of one class, the second where none is named: the harmonic mean of its precision and its recall. */
export function binaryF1(predicted: readonly number[], actual: readonly number[], positive = 1): number {
  checkLengths("binaryF1", predicted, actual);
  const both = predicted.filter((label, i) => label === positive && actual[i] === positive).length;
  const either =
    predicted.filter((label) => label === positive).length +
    actual.filter((label) => label === positive).length;
  return both === 0 ? 0 : (2 * both) / either;
}

function checkLengths(who: string, predicted: readonly number[], actual: readonly number[]): void {
  if (predicted.length === actual.length) return;
  throw new RangeError(
    `${who}: ${predicted.length} predictions of ${actual.length} examples, expected lists of equal length`,
  );
}
