// Two strategies on the same silos, as jobs. Run: npx tsx examples/03-compare.ts [FOLDER]
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { checkJob } from "tributary";
import { runJob } from "tributary/node";

const [out = "runs/03-compare"] = process.argv.slice(2);
const presidents = fileURLToPath(new URL("presidents/", import.meta.url));

for (const name of ["fedit", "fedex-lora"]) {
  const job = checkJob({
    schema: 1,
    model: join(presidents, "base"),
    data: { path: join(presidents, "data/silos.jsonl"), maxLength: 64, splits: { field: "split" } },
    partition: { kind: "natural", field: "president" },
    adapter: { kind: "lora", rank: 8, alpha: 16, target: ["q_proj", "v_proj"] },
    strategy: { name },
    local: { optimizer: { name: "adamw", learningRate: 3e-3 }, steps: 2, batchSize: 4 },
    rounds: 2,
    clientsPerRound: 4,
    evaluation: { split: "test", maxExamples: 32 },
    seed: 1,
  });
  const { before, after, bytesDown, bytesUp } = await runJob(
    { ...job, out: join(out, name) },
    { fresh: true },
  );
  const loss = `${before.loss?.toFixed(4)} -> ${after.loss?.toFixed(4)}`;
  console.log(`${name.padEnd(10)}  held-out loss ${loss}  down ${bytesDown}  up ${bytesUp} bytes`);
}
