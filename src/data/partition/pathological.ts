import { type RandomStream, stream } from "../../tensor/random.ts";
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

export interface PathologicalOptions extends PartitionOptions {
  readonly classesPerClient: number;
  /**
   * How clients get their classes. `random`: drawn; some may be with nobody, and their examples are unused. `deterministic`:
   * client k has k, k + 1 and so on, cyclically. `first-deterministic`: k first, the others drawn.
   */
  readonly assignment?: "random" | "deterministic" | "first-deterministic";
}

/** Gives each client a fixed number of classes; a class is divided evenly among its holders. As in flwr-datasets. */
export function pathological(labels: readonly Label[], options: PathologicalOptions): Partition {
  const { clients, seed, classesPerClient, assignment = "random" } = options;
  checkClients("pathological", clients, labels.length);
  const classes = [...byLabel(labels).values()];
  if (!(Number.isInteger(classesPerClient) && classesPerClient >= 1 && classesPerClient <= classes.length)) {
    throw new RangeError(
      `pathological: classesPerClient ${classesPerClient}, expected an integer from 1 to ${classes.length}`,
    );
  }
  const random = stream({ seed, purpose: "partition/pathological" });
  const held = Array.from(
    { length: clients },
    (_, k) => new Set(assign[assignment](k, classesPerClient, classes.length, random)),
  );
  const silos = held.map((): number[] => []);
  for (const [c, indices] of classes.entries()) {
    const holders = silos.filter((_, k) => held[k]?.has(c));
    if (holders.length === 0) continue;
    for (const [h, stretch] of cutEvenly(random.shuffle(indices), holders.length).entries()) {
      for (const i of stretch) holders[h]?.push(i);
    }
  }
  return withoutEmptySilos("pathological", named(silos));
}

type Assign = (client: number, count: number, numClasses: number, random: RandomStream) => number[];

const assign: Readonly<Record<NonNullable<PathologicalOptions["assignment"]>, Assign>> = {
  random: (_, count, numClasses, random) => random.sample(numClasses, count),
  deterministic: (client, count, numClasses) =>
    Array.from({ length: count }, (_, i) => (client + i) % numClasses),
  "first-deterministic": (client, count, numClasses, random) => {
    const first = client % numClasses;
    // The other classes are those after the first, cyclically.
    return [first, ...random.sample(numClasses - 1, count - 1).map((i) => (first + 1 + i) % numClasses)];
  },
};
