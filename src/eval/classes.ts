import type { Example } from "../data/examples.ts";
import { softmax } from "../graph/ops.ts";
import type { ClassCase, NumberCase } from "../metrics/metric.ts";
import { forward } from "./forward.ts";
import type { EvaluatedModel, Found, PassOptions } from "./model.ts";

/** A predicted class with the probability of each class. */
export interface Classified extends ClassCase {
  readonly probabilities: readonly number[];
}

/** The likeliest class of each example, the first of equals. */
export async function* classified(
  model: EvaluatedModel,
  examples: readonly Example[],
  options: PassOptions,
): AsyncGenerator<Found<Classified>> {
  const passes = forward(
    model,
    examples,
    ({ output }) => new Map([["probabilities", softmax(output)]]), // [B, C]
    options,
  );
  for await (const { indices, outputs } of passes) {
    const { data = [], shape = [] } = outputs.get("probabilities") ?? {};
    const classes = shape[1] ?? 1;
    for (const [i, index] of indices.entries()) {
      const probabilities = Array.from(data.slice(i * classes, (i + 1) * classes), Number);
      const predicted = probabilities.reduce((best, p, k) => (p > (probabilities[best] ?? 0) ? k : best), 0);
      const confidence = Math.min(1, probabilities[predicted] ?? Number.NaN);
      const actual = examples[index]?.label ?? Number.NaN;
      const loss = -Math.log(probabilities[actual] ?? Number.NaN);
      yield { index, value: { predicted, actual, confidence, loss, probabilities } };
    }
  }
}

/** The predicted number of each example. */
export async function* regressed(
  model: EvaluatedModel,
  examples: readonly Example[],
  options: PassOptions,
): AsyncGenerator<Found<NumberCase>> {
  const passes = forward(model, examples, ({ output }) => new Map([["predictions", output]]), options);
  for await (const { indices, outputs } of passes) {
    const data = outputs.get("predictions")?.data ?? [];
    for (const [i, index] of indices.entries()) {
      const actual = examples[index]?.label ?? Number.NaN;
      yield { index, value: { predicted: Number(data[i]), actual } };
    }
  }
}
