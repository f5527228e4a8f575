import {
  cast,
  dimSize,
  div,
  gatherElements,
  logSoftmax,
  mul,
  neg,
  reduceSum,
  reshape,
  sqrt,
  sub,
} from "../graph/ops.ts";
import { dimAt, elements } from "../graph/shape.ts";
import type { Value } from "../graph/value.ts";

/** A loss in two parts, so that sums over micro-batches and clients stay exact: the mean is `sum / count`. */
export interface Loss {
  readonly sum: Value; // []
  /** What the sum runs over, as float32. */
  readonly count: Value; // []
}

/** Cross-entropy of logits [N, classes] at int64 classes [N]. */
export function crossEntropy(logits: Value, classes: Value): Loss {
  const rows = dimAt(logits.shape, 0);
  const chosen = gatherElements(logSoftmax(logits), reshape(classes, [rows, 1]), 1);
  return { sum: neg(reduceSum(chosen)), count: cast(dimSize(rows), "float32") };
}

/** Squared error of predictions and targets of one shape. */
export function squaredError(predictions: Value, targets: Value): Loss {
  const difference = sub(predictions, targets);
  const count = cast(dimSize(elements(difference.shape)), "float32");
  return { sum: reduceSum(mul(difference, difference)), count };
}

/** The rows of x [N, D] divided by their Euclidean lengths. */
export function unitRows(x: Value): Value {
  return div(x, sqrt(reduceSum(mul(x, x), { axes: [-1], keepDims: true })));
}
