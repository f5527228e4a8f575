// FedIT over the addresses of four presidents; writes a PEFT adapter. Run: npx tsx examples/01-fedit.ts [FOLDER]
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { causalExamples, federate, loadModel, localTrainer, plainText, writePeftAdapter } from "tributary";
import { adapterBase, startParams } from "tributary/adapters/adapter";
import { lora } from "tributary/adapters/lora";
import { peftConfigOf } from "tributary/adapters/peft";
import { openFolder, openPool, planPool, readRecords, readTokenizer, writeFileAtomic } from "tributary/node";
import { adamw } from "tributary/optim/adam";
import { fedIt } from "tributary/strategies/fedit";

const [out = "runs/01-fedit"] = process.argv.slice(2);
const path = fileURLToPath(new URL("presidents/base", import.meta.url));
const model = await loadModel(await openFolder(path));
const tokenizer = await readTokenizer(path);

// Four silos of twelve passages each.
const { rows } = await readRecords(join(path, "../data/silos.jsonl"));
const silos = ["William J Clinton", "George W Bush", "Barack Obama", "Joseph R Biden"];
const examples = new Map(
  silos.map((name) => {
    const passages = rows.filter(({ president }) => president === name).slice(0, 12);
    return [name, causalExamples(passages, { tokenizer, template: plainText(), maxLength: 64 }).examples];
  }),
);

const options = { rank: 8, alpha: 16, target: ["q_proj", "v_proj"] };
const adapter = lora(options).attach(adapterBase(model));
const pool = await openPool({
  base: { kind: "folder", path, task: model.task, seed: 0 },
  plan: planPool({ tasks: silos.length, weightBytes: 11e6 }),
});
const trainer = localTrainer({
  model,
  pretrained: model.weights,
  attach: () => [adapter],
  examples,
  local: { optimizer: () => adamw({ learningRate: 3e-3 }), length: { epochs: 1 }, batchSize: 4 },
  pool,
});
let params = startParams([adapter], { seed: 1, base: model.weights });
const run = federate({
  strategy: fedIt(),
  initial: params,
  clients: silos.map((id) => ({ id, rank: 8, scaling: 2, numExamples: 12 })),
  trainer,
  rounds: 3,
  seed: 1,
  concurrency: pool.plan.workers,
  evaluate: async (state) => {
    params = state.global();
    return {};
  },
});
for await (const { number, loss, bytesUp } of run)
  console.log(`round ${number}  loss ${loss.toFixed(4)}  up ${bytesUp} bytes`);
await pool.close();
const config = peftConfigOf(adapterBase(model), options, { taskType: "CAUSAL_LM", baseModel: path });
for (const [name, bytes] of writePeftAdapter({ config, params }))
  await writeFileAtomic(join(out, name), bytes);
