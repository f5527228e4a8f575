import type { TrainingResult, TrainingTask } from "../federation/client.ts";
import type { FederatedClient } from "../federation/door.ts";
import { mapParams, type Params } from "../tensor/params.ts";
import { stream } from "../tensor/random.ts";
import { float32 } from "../tensor/tensor.ts";

/** A low-rank adapter of five numbers: one module, in 3, out 2, rank 1. */
export function toyAdapter(): Params {
  return new Map([
    ["m.lora_A.weight", float32([1, 3], [0.5, -1, 0.25])],
    ["m.lora_B.weight", float32([2, 1], [1, -0.5])],
  ]);
}

/** Clients c000, c001, … with 3, 4, … examples. */
export function toyClients(count: number): FederatedClient[] {
  return Array.from({ length: count }, (_, i) => ({
    id: `c${String(i).padStart(3, "0")}`,
    rank: 1,
    scaling: 0.5,
    numExamples: 3 + i,
  }));
}

/** Moves every parameter by what (seed, round, client) draw, and by what the client remembers. */
export function toyResult({ assignment, half }: TrainingTask): TrainingResult {
  const { client, round, context } = assignment;
  const draw = stream({ seed: context.seed, round, client, purpose: "toy training" });
  const drift = Number(half.local.memory.get("drift")?.data[0] ?? 0);
  const params = mapParams(half.start.params, ({ shape, data }) =>
    float32(
      shape,
      Array.from(data as Float32Array, (value) => value + draw.uniformRange(-0.1, 0.1) + drift),
    ),
  );
  return {
    params,
    numExamples: 3 + Number(client.slice(1)),
    steps: 2,
    learningRate: 0.1,
    loss: 1 / round,
    metrics: { accuracy: 0.5 },
  };
}
