import { checkClients, cutEvenly, named, type Partition } from "./partition.ts";

/** Cuts the data into equal stretches in their order: sizes differ by at most one, and nothing is drawn. */
export function contiguous(numExamples: number, { clients }: { readonly clients: number }): Partition {
  checkClients("contiguous", clients, numExamples);
  const order = Array.from({ length: numExamples }, (_, i) => i);
  return named(cutEvenly(order, clients));
}
