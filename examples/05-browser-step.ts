// LoRA training steps on a small random Llama, in a browser page or in Node.js: npx tsx examples/05-browser-step.ts
import { batches, batchFeeds, initialState, runLocal, runtime, traceStep } from "tributary";
import { adaptedScope, adapterBase, startParams } from "tributary/adapters/adapter";
import { lora } from "tributary/adapters/lora";
import { describeModel } from "tributary/models/load";
import { randomWeights } from "tributary/models/random-weights";
import { modelInputs, taskLoss } from "tributary/models/task";
import { adamw } from "tributary/optim/adam";

const model = describeModel({
  architectures: ["LlamaForCausalLM"],
  model_type: "llama",
  vocab_size: 32,
  hidden_size: 32,
  intermediate_size: 48,
  num_hidden_layers: 2,
  num_attention_heads: 4,
  max_position_embeddings: 32,
  initializer_range: 0.2,
});
const base = randomWeights(model, 1);
const adapter = lora({ rank: 4, alpha: 8, target: "all-linear" }).attach(adapterBase(model));
const start = startParams([adapter], { seed: 1, base });

// The text counts up; every token is trained.
const examples = Array.from({ length: 4 }, (_, row) => {
  const inputIds = Int32Array.from({ length: 12 }, (_, i) => (5 * row + i) % 32);
  return { inputIds, labels: inputIds };
});
const [batch] = batches(examples, { batchSize: 4 });
if (batch === undefined) throw new Error("no batch");

const optimizer = adamw({ learningRate: 1e-2 });
const scope = adaptedScope(adapterBase(model), [adapter]);
const loss = taskLoss(model, scope, modelInputs(model.model));
const trainable = new Map([...start.keys()].map((name) => [name, scope.get(name)]));
const graphs = traceStep({ loss, trainable, optimizer });
const step = await runtime.openSession(graphs.step);

const steps = Array.from({ length: 20 }, () => [batchFeeds(batch, model.task)]);
const outcome = await runLocal(
  {
    step,
    accumulate: () => runtime.openSession(graphs.accumulate),
    apply: () => runtime.openSession(graphs.apply),
  },
  {
    base,
    start,
    optimizerState: initialState(optimizer, start),
    steps,
    scalars: steps.map((_, i) => optimizer.scalars(i + 1)),
  },
);
for (const record of outcome.steps) console.log(`step ${record.step}  loss ${record.loss.toFixed(4)}`);
await step.dispose();
