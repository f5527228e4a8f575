/** A prediction with the probability that the model gives it. */
export interface ConfidentPrediction {
  readonly confidence: number;
  readonly correct: boolean;
}

/**
 * Expected calibration error: the mean over equal bins of confidence of |accuracy - mean confidence|, weighted by their
 * predictions. A bin holds its upper border.
 *
 * Guo et al., ICML 2017, eq. 3; 15 bins as there. https://arxiv.org/abs/1706.04599
 */
export function expectedCalibrationError(predictions: readonly ConfidentPrediction[], bins = 15): number {
  const sums = Array.from({ length: bins }, () => ({ confidence: 0, correct: 0 }));
  for (const { confidence, correct } of predictions) {
    if (!(confidence >= 0 && confidence <= 1))
      throw new RangeError(`expectedCalibrationError: the confidence ${confidence}, expected 0 to 1`);
    const bin = sums[Math.max(0, Math.ceil(confidence * bins) - 1)];
    if (bin === undefined) continue;
    bin.confidence += confidence;
    bin.correct += correct ? 1 : 0;
  }
  return sums.reduce((sum, bin) => sum + Math.abs(bin.correct - bin.confidence), 0) / predictions.length;
}
