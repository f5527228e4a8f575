import { exp, ln } from "./elementary.ts";
import { type Matrix, matrix } from "./matrix.ts";
import { transportCost } from "./optimal-transport.ts";
import type { RandomStream } from "./random.ts";

/** A normal distribution with independent coordinates, as a part of a mixture. */
export interface Component {
  /** Share of the mixture. */
  readonly weight: number;
  readonly mean: ArrayLike<number>;
  readonly variance: ArrayLike<number>;
}

/** Options of `fitMixture`. */
export interface MixtureOptions {
  /** Default: 3, or the number of points where that is less. */
  readonly components?: number;
  /** Added to every variance. Default: 1e-5. */
  readonly regularization?: number;
  /** Most passes. Default: 200. */
  readonly iterations?: number;
  /** Gain of the mean log-likelihood below which passes end. Default: 1e-3. */
  readonly tolerance?: number;
}

/**
 * A mixture of diagonal normal distributions by expectation maximization, begun from the clusters of a few passes of
 * K-means. Rows of `points` are the samples.
 */
export function fitMixture(
  points: Matrix,
  random: RandomStream,
  { components = 3, regularization = 1e-5, iterations = 200, tolerance = 1e-3 }: MixtureOptions = {},
): Component[] {
  const { rows, cols } = points;
  const count = Math.min(components, rows);
  let shares = hardShares(points, count, random); // [rows, count]
  let fitted = maximized(points, shares, regularization);
  let before = Number.NEGATIVE_INFINITY;
  for (let pass = 0; pass < iterations; pass++) {
    const next = matrix(rows, count);
    let likelihood = 0;
    for (let i = 0; i < rows; i++) {
      const logs = fitted.map((component) =>
        logDensity(points.data.subarray(i * cols, (i + 1) * cols), component),
      );
      const largest = Math.max(...logs);
      const total = logs.reduce((sum, log) => sum + exp(log - largest), 0);
      likelihood += (largest + ln(total)) / rows;
      logs.forEach((log, c) => {
        next.data[i * count + c] = exp(log - largest) / total;
      });
    }
    shares = next;
    fitted = maximized(points, shares, regularization);
    if (likelihood - before < tolerance) break;
    before = likelihood;
  }
  return fitted;
}

/** The squared 2-Wasserstein distance of two diagonal normals: ‖μ − μ'‖² + Σ (σ − σ')². */
export function wassersteinSquared(a: Component, b: Component): number {
  let sum = 0;
  for (let d = 0; d < a.mean.length; d++) {
    const spread = Math.sqrt(a.variance[d] ?? 0) - Math.sqrt(b.variance[d] ?? 0);
    sum += ((a.mean[d] ?? 0) - (b.mean[d] ?? 0)) ** 2 + spread ** 2;
  }
  return sum;
}

/** Least cost of moving one mixture onto another, component by component, at their squared distances. */
export function mixtureDistance(a: readonly Component[], b: readonly Component[]): number {
  const cost = matrix(
    a.length,
    b.length,
    a.flatMap((one) => b.map((other) => wassersteinSquared(one, other))),
  );
  return transportCost(
    cost,
    a.map(({ weight }) => weight),
    b.map(({ weight }) => weight),
  );
}

/** Membership in the nearest of `count` centres after ten passes of K-means from different samples. */
function hardShares({ rows, cols, data }: Matrix, count: number, random: RandomStream): Matrix {
  let centres = random.sample(rows, count).map((i) => data.slice(i * cols, (i + 1) * cols));
  let shares = matrix(rows, count);
  for (let pass = 0; pass < 10; pass++) {
    shares = matrix(rows, count);
    const sums = centres.map(() => new Float64Array(cols));
    const sizes = centres.map(() => 0);
    for (let i = 0; i < rows; i++) {
      const distances = centres.map((centre) =>
        centre.reduce((sum, x, d) => sum + (data[i * cols + d]! - x) ** 2, 0),
      );
      const nearest = distances.indexOf(Math.min(...distances));
      shares.data[i * count + nearest] = 1;
      sizes[nearest] = (sizes[nearest] ?? 0) + 1;
      sums[nearest]?.forEach((x, d, sum) => {
        sum[d] = x + data[i * cols + d]!;
      });
    }
    centres = centres.map((centre, c) =>
      sizes[c] ? (sums[c] ?? centre).map((x) => x / (sizes[c] ?? 1)) : centre,
    );
  }
  return shares;
}

function maximized({ rows, cols, data }: Matrix, shares: Matrix, regularization: number): Component[] {
  const count = shares.cols;
  return Array.from({ length: count }, (_, c): Component => {
    let total = 0;
    const mean = new Float64Array(cols);
    for (let i = 0; i < rows; i++) {
      const share = shares.data[i * count + c]!;
      total += share;
      for (let d = 0; d < cols; d++) mean[d] = mean[d]! + share * data[i * cols + d]!;
    }
    const mass = Math.max(total, Number.MIN_VALUE);
    for (let d = 0; d < cols; d++) mean[d] = mean[d]! / mass;
    const variance = new Float64Array(cols);
    for (let i = 0; i < rows; i++) {
      const share = shares.data[i * count + c]!;
      for (let d = 0; d < cols; d++)
        variance[d] = variance[d]! + share * (data[i * cols + d]! - mean[d]!) ** 2;
    }
    return { weight: total / rows, mean, variance: variance.map((x) => x / mass + regularization) };
  });
}

function logDensity(x: Float64Array, { weight, mean, variance }: Component): number {
  let sum = ln(Math.max(weight, Number.MIN_VALUE));
  for (let d = 0; d < x.length; d++) {
    const v = variance[d] ?? 1;
    sum -= 0.5 * (ln(2 * Math.PI * v) + (x[d]! - (mean[d] ?? 0)) ** 2 / v);
  }
  return sum;
}
