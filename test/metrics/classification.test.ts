import { describe, expect, it } from "vitest";
import { expectedCalibrationError } from "../../src/metrics/calibration.ts";
import { accuracy, binaryF1, f1 } from "../../src/metrics/classification.ts";

describe("F1", () => {
  // The example of scikit-learn's f1_score.
  const [actual, predicted] = [
    [0, 1, 2, 0, 1, 2],
    [0, 2, 1, 0, 0, 1],
  ];

  it("has the values of scikit-learn's documentation", () => {
    expect(f1(predicted, actual, "macro")).toBeCloseTo(0.26666, 4);
    expect(f1(predicted, actual, "micro")).toBeCloseTo(1 / 3, 12);
    expect(f1(predicted, actual, "weighted")).toBeCloseTo(0.26666, 4);
  });

  it("is the harmonic mean of precision and recall of one class, and 0 without a right prediction", () => {
    // Precision 2/3, recall 2/4.
    expect(binaryF1([1, 1, 1, 0, 0], [1, 1, 0, 1, 1])).toBeCloseTo(4 / 7, 12);
    expect(binaryF1([0, 0], [1, 1])).toBe(0);
  });

  it("counts classes that are only predicted among the mean, and not in the weighted one", () => {
    expect(f1([2, 0], [0, 0], "macro")).toBeCloseTo(1 / 3, 12);
    expect(f1([2, 0], [0, 0], "weighted")).toBeCloseTo(2 / 3, 12);
  });

  it("refuses lists of different lengths", () => {
    expect(() => f1([1], [1, 0], "macro")).toThrow("1 predictions of 2 examples");
    expect(accuracy([1, 0, 2], [1, 1, 2])).toBeCloseTo(2 / 3, 12);
  });
});

describe("the expected calibration error", () => {
  it("weighs the gap of each bin by its predictions", () => {
    // Of 10 bins: (0.2, 0.3] holds one wrong, (0.8, 0.9] two of which one is right.
    const found = expectedCalibrationError(
      [
        { confidence: 0.3, correct: false },
        { confidence: 0.85, correct: true },
        { confidence: 0.9, correct: false },
      ],
      10,
    );
    expect(found).toBeCloseTo((0.3 + 2 * (0.875 - 0.5)) / 3, 12);
  });

  it("is 0 for a model that knows how sure it may be, and counts certainty in the last bin", () => {
    const sure = { confidence: 1, correct: true };
    expect(expectedCalibrationError([sure, sure])).toBe(0);
    expect(expectedCalibrationError([sure, { confidence: 1, correct: false }])).toBeCloseTo(0.5, 12);
  });

  it("refuses what is no probability", () => {
    expect(() => expectedCalibrationError([{ confidence: 1.2, correct: true }])).toThrow("expected 0 to 1");
  });
});
