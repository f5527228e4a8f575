import { type RandomStream, stream } from "../../tensor/random.ts";
import {
  byLabel,
  checkAlpha,
  checkClients,
  cutByShares,
  type Label,
  named,
  type Partition,
  type PartitionOptions,
  redrawn,
} from "./partition.ts";

export interface DirichletOptions extends PartitionOptions {
  /** Concentration: small gives each class to few clients, large comes near to IID. */
  readonly alpha: number;
  /** Fewest examples of a client; the partition is drawn again until it holds. */
  readonly minExamples?: number;
  /** Draws before the partition is given up. */
  readonly attempts?: number;
  /** Gives nothing more to a client that has its even share already. */
  readonly selfBalancing?: boolean;
}

/**
 * Label Dirichlet over clients: each class is divided among the clients by shares of Dir(alpha), so sizes vary.
 *
 * Yurochkin et al., ICML 2019, section 4, https://arxiv.org/abs/1905.12022; `selfBalancing` as in flwr-datasets.
 */
export function dirichlet(labels: readonly Label[], options: DirichletOptions): Partition {
  const { clients, seed, alpha, minExamples = 1, attempts = 10_000, selfBalancing = false } = options;
  checkClients("dirichlet", clients, labels.length);
  checkAlpha("dirichlet", alpha);
  const random = stream({ seed, purpose: "partition/dirichlet" });
  const classes = [...byLabel(labels).values()].map((indices) => random.shuffle(indices));
  return redrawn("dirichlet", minExamples, attempts, () => {
    const shards = Array.from({ length: clients }, (): number[] => []);
    for (const indices of classes) {
      const drawn = random.dirichlet(new Array<number>(clients).fill(alpha));
      const shares = selfBalancing ? closed(drawn, shards, labels.length / clients) : drawn;
      for (const [k, stretch] of cutByShares(indices, shares).entries()) {
        for (const i of stretch) shards[k]?.push(i);
      }
    }
    return shards;
  });
}

/** The shares without those of clients above their even size, summing to 1 again. */
function closed(shares: readonly number[], shards: readonly (readonly number[])[], even: number): number[] {
  const open = shares.map((share, k) => ((shards[k]?.length ?? 0) > even ? 0 : share));
  const sum = open.reduce((a, b) => a + b, 0);
  // With vanishing shares the open clients may sum to 0 in float64: they then share alike.
  if (sum === 0) return evenShares(shards, even);
  return open.map((share) => share / sum);
}

function evenShares(shards: readonly (readonly number[])[], even: number): number[] {
  const isOpen = shards.map((shard) => shard.length <= even);
  const count = isOpen.filter(Boolean).length;
  return isOpen.map((open) => (open ? 1 / count : 0));
}

export interface ClassDirichletOptions extends PartitionOptions {
  readonly alpha: number;
  /**
   * What alpha multiplies. `prior`: the overall shares of the classes, as in the paper. `one`: 1 for every class, as in many
   * re-implementations; with balanced classes that is `prior` with alpha times the number of classes.
   */
  readonly per?: "prior" | "one";
}

/**
 * Label Dirichlet over classes: each client draws its mixture of classes from Dir(alpha p) and then floor(examples / clients)
 * examples one by one without replacement. An exhausted class is left out of the mixture.
 *
 * Hsu, Qi and Brown, 2019, section 3, https://arxiv.org/abs/1909.06335
 */
export function classDirichlet(
  labels: readonly Label[],
  { clients, seed, alpha, per = "prior" }: ClassDirichletOptions,
): Partition {
  checkClients("classDirichlet", clients, labels.length);
  checkAlpha("classDirichlet", alpha);
  const random = stream({ seed, purpose: "partition/class-dirichlet" });
  const pools = [...byLabel(labels).values()].map((indices) => random.shuffle(indices));
  const prior = pools.map((pool) => pool.length / labels.length); // p
  const size = Math.floor(labels.length / clients);
  return named(
    Array.from({ length: clients }, () => {
      const mixture = random.dirichlet(prior.map((share) => (per === "prior" ? alpha * share : alpha))); // q
      return Array.from({ length: size }, () => {
        const left = openShares(mixture, pools) ?? openShares(prior, pools) ?? prior;
        return pools[choose(left, random)]?.pop() ?? 0;
      });
    }),
  );
}

/** The shares of the classes that still have examples, or undefined if these sum to 0. */
function openShares(shares: readonly number[], pools: readonly (readonly number[])[]): number[] | undefined {
  const open = shares.map((share, c) => (pools[c]?.length ? share : 0));
  return open.some((share) => share > 0) ? open : undefined;
}

/** An index with a chance in proportion to its weight. */
function choose(weights: readonly number[], random: RandomStream): number {
  let left = random.uniform() * weights.reduce((a, b) => a + b, 0);
  let last = 0;
  for (const [i, weight] of weights.entries()) {
    if (weight === 0) continue;
    last = i;
    left -= weight;
    if (left < 0) return i;
  }
  return last;
}
