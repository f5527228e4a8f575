import { stream } from "../../tensor/random.ts";
import { checkClients, cutEvenly, named, type Partition, type PartitionOptions } from "./partition.ts";

/** Deals the shuffled examples evenly: sizes differ by at most one. */
export function iid(numExamples: number, { clients, seed }: PartitionOptions): Partition {
  checkClients("iid", clients, numExamples);
  return named(cutEvenly(stream({ seed, purpose: "partition/iid" }).permutation(numExamples), clients));
}
