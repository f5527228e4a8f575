/** A sound job with the defaults left out, changed by `changes` at the top level. */
export function rawJob(changes: Readonly<Record<string, unknown>> = {}): Record<string, unknown> {
  return {
    schema: 1,
    model: "base",
    data: { path: "train.jsonl" },
    partition: { kind: "iid", clients: 4 },
    adapter: { kind: "lora", rank: 4 },
    strategy: { name: "fedit" },
    local: { optimizer: { name: "adamw", learningRate: 1e-3 } },
    rounds: 3,
    ...changes,
  };
}
