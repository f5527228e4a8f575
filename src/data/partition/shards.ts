import { stream } from "../../tensor/random.ts";
import {
  byLabel,
  checkClients,
  cutEvenly,
  type Label,
  named,
  type Partition,
  type PartitionOptions,
  withoutEmptySilos,
} from "./partition.ts";

export interface ShardsOptions extends PartitionOptions {
  /** Shards that each client gets. */
  readonly shardsPerClient?: number;
}

/**
 * Pathological shards: the examples sorted by label are cut into equal shards, dealt at random.
 *
 * McMahan et al., AISTATS 2017, section 3. https://arxiv.org/abs/1602.05629
 */
export function shards(
  labels: readonly Label[],
  { clients, seed, shardsPerClient = 2 }: ShardsOptions,
): Partition {
  checkClients("shards", clients, labels.length);
  if (!(Number.isInteger(shardsPerClient) && shardsPerClient >= 1)) {
    throw new RangeError(`shards: shardsPerClient ${shardsPerClient}, expected an integer of at least 1`);
  }
  const sorted = [...byLabel(labels).values()].flat();
  const pieces = stream({ seed, purpose: "partition/shards" }).shuffle(
    cutEvenly(sorted, clients * shardsPerClient),
  );
  const dealt = Array.from({ length: clients }, (_, k) =>
    pieces.slice(k * shardsPerClient, (k + 1) * shardsPerClient).flat(),
  );
  return withoutEmptySilos("shards", named(dealt));
}
