import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { expect, it } from "vitest";
import { runtime } from "#ort";
import { pretrainingPassages } from "../../scripts/presidents/corpus.ts";
import { adaptedScope, adapterBase } from "../../src/adapters/adapter.ts";
import { batches } from "../../src/data/batches.ts";
import { packedExamples } from "../../src/data/examples.ts";
import { readTokenizer } from "../../src/data/files.node.ts";
import { batchFeeds } from "../../src/federation/trainer.ts";
import { openFolder } from "../../src/formats/files.node.ts";
import { loadModel } from "../../src/models/load.ts";
import { modelInputs, taskLoss } from "../../src/models/task.ts";
import { encode } from "../../src/train/step.ts";

interface Training {
  readonly parameters: number;
  readonly blockLength: number;
  readonly curve: readonly { readonly validation: number }[];
}

/** A tenth of the held-out blocks is measured, and the weights are stored in 16 bits. */
const TOLERANCE = 0.05;

it("the base model of the example has the held-out loss that its training recorded", async () => {
  const folder = fileURLToPath(new URL("../../examples/presidents/base", import.meta.url));
  const recorded: Training = JSON.parse(readFileSync(`${folder}/training.json`, "utf8"));
  const loaded = await loadModel(await openFolder(folder));
  const parameters = [...loaded.weights.values()].reduce((sum, { data }) => sum + data.length, 0);
  expect(parameters).toBe(recorded.parameters);

  const heldOut = pretrainingPassages().filter(({ split }) => split === "test");
  const { examples } = packedExamples(
    heldOut.map((passage) => ({ ...passage })),
    { tokenizer: await readTokenizer(folder), blockLength: recorded.blockLength },
  );
  const loss = taskLoss(loaded, adaptedScope(adapterBase(loaded)), modelInputs(loaded.model));
  const session = await runtime.openSession(
    encode(
      new Map([
        ["sum", loss.sum],
        ["count", loss.count],
      ]),
    ),
  );
  let [sum, count] = [0, 0];
  for (const batch of batches(
    examples.filter((_, i) => i % 10 === 0),
    { batchSize: 8 },
  )) {
    const got = await session.run(new Map([...loaded.weights, ...batchFeeds(batch, loaded.task)]));
    sum += Number(got.get("sum")?.data[0]);
    count += Number(got.get("count")?.data[0]);
  }
  await session.dispose();
  expect(Math.abs(sum / count - (recorded.curve.at(-1)?.validation ?? Number.NaN))).toBeLessThan(TOLERANCE);
});
