import { exp } from "../../tensor/elementary.ts";
import { stream } from "../../tensor/random.ts";
import {
  checkAlpha,
  checkClients,
  cutByShares,
  named,
  type Partition,
  type PartitionOptions,
  redrawn,
  withoutEmptySilos,
} from "./partition.ts";

/** Sizes grow with the client's number: shares i + 1. Labels are IID. */
export function linear(numExamples: number, options: PartitionOptions): Partition {
  return bySizes("linear", numExamples, options, (i) => i + 1);
}

/** Sizes grow with the square of the client's number: shares (i + 1)^2. Labels are IID. */
export function square(numExamples: number, options: PartitionOptions): Partition {
  return bySizes("square", numExamples, options, (i) => (i + 1) ** 2);
}

/** Sizes grow by the factor e from client to client: shares e^i. Labels are IID. */
export function exponential(numExamples: number, options: PartitionOptions): Partition {
  return bySizes("exponential", numExamples, options, exp);
}

export interface QuantityDirichletOptions extends PartitionOptions {
  /** Concentration: small gives few clients almost everything. */
  readonly alpha: number;
  readonly minExamples?: number;
  readonly attempts?: number;
}

/** Sizes by shares of Dir(alpha) over the clients. Labels are IID. */
export function quantityDirichlet(numExamples: number, options: QuantityDirichletOptions): Partition {
  const { clients, seed, alpha, minExamples = 1, attempts = 10_000 } = options;
  checkClients("quantityDirichlet", clients, numExamples);
  checkAlpha("quantityDirichlet", alpha);
  const random = stream({ seed, purpose: "partition/quantity-dirichlet" });
  const order = random.permutation(numExamples);
  return redrawn("quantityDirichlet", minExamples, attempts, () =>
    cutByShares(order, random.dirichlet(new Array<number>(clients).fill(alpha))),
  );
}

/** Sizes floor(share x examples), the remainder with the last client, as in flwr-datasets. */
function bySizes(
  who: string,
  numExamples: number,
  { clients, seed }: PartitionOptions,
  unit: (i: number) => number,
): Partition {
  checkClients(who, clients, numExamples);
  const units = Array.from({ length: clients }, (_, i) => unit(i));
  const sum = units.reduce((a, b) => a + b, 0);
  const order = stream({ seed, purpose: `partition/${who}` }).permutation(numExamples);
  let start = 0;
  const silos = units.map((u, i) => {
    const end = i === clients - 1 ? numExamples : start + Math.floor((numExamples * u) / sum);
    const silo = order.slice(start, end);
    start = end;
    return silo;
  });
  return withoutEmptySilos(who, named(silos));
}
