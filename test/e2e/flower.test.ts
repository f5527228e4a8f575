import { readFileSync } from "node:fs";
import { gunzipSync } from "node:zlib";
import { expect, test } from "vitest";
import { adapterBase } from "../../src/adapters/adapter.ts";
import { lora } from "../../src/adapters/lora.ts";
import { classificationExamples } from "../../src/data/examples.ts";
import { loadTokenizer } from "../../src/data/tokenizer.ts";
import { federate } from "../../src/federation/federate.ts";
import { localTrainer } from "../../src/federation/trainer.ts";
import { openFolder } from "../../src/formats/files.node.ts";
import { readPeftAdapter } from "../../src/formats/peft.ts";
import { loadModel } from "../../src/models/load.ts";
import { adamw } from "../../src/optim/adam.ts";
import { fedIt } from "../../src/strategies/fedit.ts";
import { openPool, planPool } from "../../src/train/pool.node.ts";
import { shared } from "../shared.ts";

/** Measured with Flower 1.41, transformers and PEFT on the same four clients (methods and figures: docs/benchmarks.md). */
const reference = [0.686933, 0.681903, 0.677283];

test.skipIf(!shared)(
  "FedIT on MiniLM and SST-2 gives the losses that Flower and PEFT give",
  async () => {
    const path = `${shared}/models/all-MiniLM-L6-v2`;
    const read = (name: string): unknown => JSON.parse(readFileSync(`${path}/${name}`, "utf8"));
    const tokenizer = loadTokenizer(read("tokenizer.json"), read("tokenizer_config.json"));
    const rows = gunzipSync(readFileSync(`${shared}/data/glue/sst2/train.jsonl.gz`))
      .toString("utf8")
      .split("\n")
      .slice(0, 256)
      .map((line) => JSON.parse(line));
    const { examples } = classificationExamples(rows, {
      tokenizer,
      maxLength: 64,
      text: "sentence",
      classes: 2,
    });
    const clients = [0, 1, 2, 3].map((k) => ({ id: `client-${k}`, rank: 8, scaling: 2, numExamples: 64 }));
    const model = await loadModel(await openFolder(path), { task: "sequence-classification", numLabels: 2 });
    const adapter = lora({
      rank: 8,
      alpha: 16,
      target: ["query", "value"],
      modulesToSave: ["classifier"],
    }).attach(adapterBase(model));
    const { params: initial } = await readPeftAdapter(await openFolder(`${path}/lora-init`));
    const pool = await openPool({
      base: { kind: "folder", path, task: "sequence-classification", numLabels: 2, seed: 0 },
      plan: planPool({ tasks: 4, weightBytes: 9e7 }),
    });
    try {
      const trainer = localTrainer({
        model,
        pretrained: model.weights,
        attach: () => [adapter],
        pool,
        examples: new Map(clients.map(({ id }, k) => [id, examples.slice(64 * k, 64 * (k + 1))])),
        local: {
          optimizer: () => adamw({ learningRate: 1e-3, weightDecay: 0.01 }),
          length: { epochs: 1 },
          batchSize: 16,
          order: "as-given",
        },
      });
      const losses: number[] = [];
      for await (const round of federate({
        strategy: fedIt(),
        initial,
        clients,
        trainer,
        rounds: 3,
        seed: 1,
        concurrency: pool.plan.workers,
      }))
        losses.push(round.loss);
      expect(losses).toHaveLength(3);
      for (const [i, loss] of losses.entries())
        expect(Math.abs(loss - (reference[i] ?? Number.NaN))).toBeLessThan(1e-4);
    } finally {
      await pool.close();
    }
  },
  120_000,
);
