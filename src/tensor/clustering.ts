import { type Matrix, matmul, matrix } from "./matrix.ts";
import type { RandomStream } from "./random.ts";

/** The cluster of each item, numbered from 0 in the order of their first items. */
export type Clusters = readonly number[];

/** How `kMeans` searches. */
export interface KMeansOptions {
  /** Searches from different starts, of which the best counts. Default: 10. */
  readonly starts?: number;
  /** Most passes of a search. Default: 300. */
  readonly iterations?: number;
}

/**
 * K-means of the rows of `points`, by Lloyd's passes from starts of K-means++. All distances follow from the products of
 * the points, so a pass costs O(points²) whatever their length.
 *
 * Arthur and Vassilvitskii, SODA 2007, section 2.2.
 */
export function kMeans(
  points: Matrix,
  count: number,
  random: RandomStream,
  { starts = 10, iterations = 300 }: KMeansOptions = {},
): Clusters {
  const size = points.rows;
  if (size <= count) return Array.from({ length: size }, (_, i) => i);
  const gram = matmul(points, points, { transposeB: true }).data;
  let best: { readonly clusters: number[]; readonly inertia: number } | undefined;
  for (let start = 0; start < starts; start++) {
    const seeds = plusPlus(gram, size, count, random);
    let clusters = Array.from({ length: size }, (_, i) =>
      leastBy(count, (c) => between(gram, size, i, seeds[c] ?? 0)),
    );
    let distances = toCentres(gram, clusters, count);
    for (let pass = 0; pass < iterations; pass++) {
      const next = clusters.map((_, i) => leastBy(count, (c) => distances.data[i * count + c] ?? 0));
      if (next.every((c, i) => c === clusters[i])) break;
      clusters = next;
      distances = toCentres(gram, clusters, count);
    }
    const inertia = clusters.reduce((sum, c, i) => sum + (distances.data[i * count + c] ?? 0), 0);
    if (best === undefined || inertia < best.inertia) best = { clusters, inertia };
  }
  return renumbered(best?.clusters ?? []);
}

/**
 * Merges the two clusters of least mean distance until `count` are left (average linkage). Of equal pairs the first.
 */
export function averageLinkage(distances: Matrix, count: number): Clusters {
  let groups = Array.from({ length: distances.rows }, (_, i) => [i]);
  while (groups.length > count) {
    let nearest = { first: 0, second: 1, distance: Number.POSITIVE_INFINITY };
    groups.forEach((group, first) => {
      for (let second = first + 1; second < groups.length; second++) {
        const distance = meanDistance(distances, group, groups[second] ?? []);
        if (distance < nearest.distance) nearest = { first, second, distance };
      }
    });
    const merged = [...(groups[nearest.first] ?? []), ...(groups[nearest.second] ?? [])];
    groups = groups.flatMap((group, i) =>
      i === nearest.first ? [merged] : i === nearest.second ? [] : [group],
    );
  }
  const clusters: number[] = [];
  for (const [cluster, group] of groups.entries()) for (const i of group) clusters[i] = cluster;
  return renumbered(clusters);
}

/**
 * Mean of (b - a) / max(a, b) over all items, where a is the mean distance to the own cluster and b the least to
 * another; 0 for an item that is alone.
 *
 * Rousseeuw, Journal of Computational and Applied Mathematics 1987.
 */
export function silhouette(distances: Matrix, clusters: Clusters): number {
  const groups = Array.from({ length: Math.max(-1, ...clusters) + 1 }, (_, c) =>
    clusters.flatMap((one, i) => (one === c ? [i] : [])),
  );
  const scores = clusters.map((cluster, i): number => {
    const own = (groups[cluster] ?? []).filter((j) => j !== i);
    if (own.length === 0 || groups.length < 2) return 0;
    const a = meanDistance(distances, [i], own);
    const b = Math.min(
      ...groups.filter((_, c) => c !== cluster).map((other) => meanDistance(distances, [i], other)),
    );
    return Math.max(a, b) === 0 ? 0 : (b - a) / Math.max(a, b);
  });
  return scores.reduce((sum, score) => sum + score, 0) / Math.max(1, scores.length);
}

function meanDistance({ cols, data }: Matrix, first: readonly number[], second: readonly number[]): number {
  let sum = 0;
  for (const i of first) for (const j of second) sum += data[i * cols + j]!;
  return sum / (first.length * second.length);
}

/** ‖x_i − x_j‖² */
function between(gram: Float64Array, size: number, i: number, j: number): number {
  return gram[i * size + i]! - 2 * gram[i * size + j]! + gram[j * size + j]!;
}

/** Places to start from: the first at random, each next with a probability that grows with its squared distance. */
function plusPlus(gram: Float64Array, size: number, count: number, random: RandomStream): number[] {
  const seeds = [random.integer(size)];
  while (seeds.length < count) {
    const nearest = Array.from({ length: size }, (_, i) =>
      Math.max(0, Math.min(...seeds.map((seed) => between(gram, size, i, seed)))),
    );
    let left = random.uniform() * nearest.reduce((a, b) => a + b, 0);
    const drawn = nearest.findIndex((distance) => {
      left -= distance;
      return left < 0;
    });
    seeds.push(drawn < 0 ? random.integer(size) : drawn);
  }
  return seeds;
}

/** ‖x_i − m_c‖² = ‖x_i‖² − 2 mean_j ⟨x_i, x_j⟩ + mean_jl ⟨x_j, x_l⟩ over j, l in cluster c; infinite for an empty one. */
function toCentres(gram: Float64Array, clusters: readonly number[], count: number): Matrix {
  const size = clusters.length;
  const members = Array.from({ length: count }, (_, c) =>
    clusters.flatMap((one, i) => (one === c ? [i] : [])),
  );
  const distances = matrix(size, count);
  members.forEach((group, c) => {
    const towards = new Float64Array(size); // mean_j ⟨x_i, x_j⟩
    for (let i = 0; i < size; i++) {
      let sum = 0;
      for (const j of group) sum += gram[i * size + j]!;
      towards[i] = sum / group.length;
    }
    const centre = group.reduce((sum, i) => sum + towards[i]!, 0) / group.length;
    for (let i = 0; i < size; i++) {
      distances.data[i * count + c] =
        group.length === 0 ? Number.POSITIVE_INFINITY : gram[i * size + i]! - 2 * towards[i]! + centre;
    }
  });
  return distances;
}

function leastBy(count: number, value: (i: number) => number): number {
  let least = 0;
  for (let i = 1; i < count; i++) if (value(i) < value(least)) least = i;
  return least;
}

function renumbered(clusters: readonly number[]): number[] {
  const order = [...new Set(clusters)];
  return clusters.map((cluster) => order.indexOf(cluster));
}
