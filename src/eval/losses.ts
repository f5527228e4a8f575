import { type Example, ignored } from "../data/examples.ts";
import { argMax, cast, equal, gatherElements, logSoftmax, reshape } from "../graph/ops.ts";
import { input } from "../graph/value.ts";
import type { LossCase } from "../metrics/metric.ts";
import { forward } from "./forward.ts";
import type { EvaluatedModel, Found, PassOptions } from "./model.ts";

/** The loss of the labelled tokens of each example. */
export async function* tokenLosses(
  model: EvaluatedModel,
  examples: readonly Example[],
  options: PassOptions,
): AsyncGenerator<Found<LossCase>> {
  const passes = forward(
    model,
    examples,
    ({ output }) => {
      const labels = input("labels", "int64", ["labels"]);
      const logProbs = gatherElements(logSoftmax(output), reshape(labels, ["labels", 1]), 1); // [L, 1]
      return new Map([
        ["log_probs", logProbs],
        ["correct", cast(equal(argMax(output, -1), labels), "float32")],
      ]);
    },
    options,
  );
  for await (const { batch, indices, outputs } of passes) {
    const width = batch.inputIds.shape[1] ?? 1;
    const sums = indices.map(() => ({ sum: 0, tokens: 0, correct: 0 }));
    const [logProbs, correct] = [outputs.get("log_probs")?.data, outputs.get("correct")?.data];
    for (const [i, position] of batch.labelPositions.data.entries()) {
      const row = sums[Math.floor(Number(position) / width)];
      if (row === undefined) continue;
      row.sum -= Number(logProbs?.[i] ?? Number.NaN);
      row.correct += Number(correct?.[i] ?? Number.NaN);
      row.tokens++;
    }
    for (const [i, index] of indices.entries()) {
      const found = sums[i];
      const example = examples[index];
      if (found === undefined || example === undefined) continue;
      yield { index, value: { ...found, text: labelledText(example, model) } };
    }
  }
}

/** What the labelled tokens spell; the first token of a text has nothing before it and is not labelled. */
function labelledText({ labels }: Example, { tokenizer }: Pick<EvaluatedModel, "tokenizer">): string {
  return tokenizer.decode([...(labels ?? [])].slice(1).filter((label) => label !== ignored));
}
