import { exp, ln } from "./elementary.ts";

/** What a stream of random numbers belongs to; equal keys give equal streams, different keys independent ones. */
export interface StreamKey {
  /** A safe integer >= 0. */
  readonly seed: number;
  /** A safe integer >= 0. */
  readonly round?: number;
  readonly client?: string;
  /** What the numbers are for, e.g. "init", "cohort", "batches". */
  readonly purpose: string;
}

/** A stream of random numbers. Each call takes the next numbers of the stream. */
export interface RandomStream {
  /** A uniform integer in [0, 2^32). */
  uint32(): number;
  /** A uniform multiple of 2^-53 in [0, 1). */
  uniform(): number;
  /** Uniform in [low, high). */
  uniformRange(low: number, high: number): number;
  /** Standard normal. */
  normal(): number;
  /** A uniform integer in [0, limit), without bias; limit is at most 2^53. */
  integer(limit: number): number;
  /** A copy of the items in random order. */
  shuffle<T>(items: readonly T[]): T[];
  /** The integers 0 to size - 1 in random order. */
  permutation(size: number): number[];
  /** `count` different integers of [0, size), in random order. */
  sample(size: number, count: number): number[];
  /** Gamma with the given shape > 0 and scale 1. */
  gamma(shape: number): number;
  /** A point of the simplex, Dirichlet with the given concentrations > 0. */
  dirichlet(concentrations: readonly number[]): number[];
  /** Fills the array with uniform numbers of [low, high). */
  fillUniform(target: Float32Array | Float64Array, low: number, high: number): void;
  /** Fills the array with normal numbers. */
  fillNormal(target: Float32Array | Float64Array, mean: number, deviation: number): void;
}

/** The first four words are the counter, the next two the key. */
type Words = Uint32Array;

/**
 * Philox4x32-10: four random words from a counter of four words and a key of two, both unchanged.
 *
 * Salmon et al., "Parallel Random Numbers: As Easy as 1, 2, 3", SC 2011, section 3.3.
 */
export function philox4x32(counter: ArrayLike<number>, key: ArrayLike<number>): Uint32Array {
  const out = new Uint32Array(4);
  block(Uint32Array.from([...Array.from(counter), ...Array.from(key)]), out);
  return out;
}

function block(input: Words, out: Uint32Array): void {
  let c0 = input[0]!;
  let c1 = input[1]!;
  let c2 = input[2]!;
  let c3 = input[3]!;
  let k0 = input[4]!;
  let k1 = input[5]!;
  for (let round = 0; round < 10; round++) {
    const high0 = multiplyHigh(0xd2511f53, c0);
    const high1 = multiplyHigh(0xcd9e8d57, c2);
    const low0 = Math.imul(0xd2511f53, c0);
    const low1 = Math.imul(0xcd9e8d57, c2);
    c0 = high1 ^ c1 ^ k0;
    c1 = low1;
    c2 = high0 ^ c3 ^ k1;
    c3 = low0;
    k0 = (k0 + 0x9e3779b9) | 0; // golden ratio
    k1 = (k1 + 0xbb67ae85) | 0; // sqrt(3) - 1
  }
  out[0] = c0;
  out[1] = c1;
  out[2] = c2;
  out[3] = c3;
}

/** The upper 32 bits of the product of two unsigned words, from four products of 16-bit halves. */
function multiplyHigh(a: number, b: number): number {
  const aLow = a & 0xffff;
  const aHigh = a >>> 16;
  const bLow = b & 0xffff;
  const bHigh = b >>> 16;
  const cross = (Math.imul(aHigh, bLow) >>> 0) + (Math.imul(aLow, bLow) >>> 16); // below 2^32
  const middle = (Math.imul(aLow, bHigh) >>> 0) + (cross & 0xffff); // below 2^32
  return (Math.imul(aHigh, bHigh) + (cross >>> 16) + (middle >>> 16)) | 0;
}

/**
 * The stream of a key. The key is hashed by Philox itself in the mode of Davies and Meyer: with H = 0 (four words) and
 * each pair of words m of the encoded key, H becomes H xor Philox(counter = H, key = m). The encoding is injective: the
 * seed and 1 + round (0 if absent) as 64-bit integers, then client and purpose, each as its length in UTF-8 bytes (plus
 * 1, 0 if absent) and those bytes padded to 8. Of the final H, two words are the Philox key of the stream and two
 * the upper half of its counter; the lower half counts blocks.
 */
export function stream({ seed, round, client, purpose }: StreamKey): RandomStream {
  const state = hashKey([
    ...integerWords("seed", seed),
    ...(round === undefined ? [0, 0] : integerWords("round", round + 1)),
    ...textWords(client),
    ...textWords(purpose),
  ]);
  const input = Uint32Array.of(0, 0, state[2]!, state[3]!, state[0]!, state[1]!);
  const words = new Uint32Array(4);
  let used = 4;
  let spare: number | undefined;

  function uint32(): number {
    if (used === 4) {
      block(input, words);
      input[0] = input[0]! + 1;
      if (input[0] === 0) input[1] = input[1]! + 1;
      used = 0;
    }
    return words[used++]!;
  }

  function bits53(): number {
    return (uint32() >>> 5) * 2 ** 26 + (uint32() >>> 6);
  }

  function uniform(): number {
    return bits53() * 2 ** -53;
  }

  // Marsaglia's polar method: two normals from a point of the unit disc.
  function normal(): number {
    if (spare !== undefined) {
      const value = spare;
      spare = undefined;
      return value;
    }
    for (;;) {
      const x = 2 * uniform() - 1;
      const y = 2 * uniform() - 1;
      const square = x * x + y * y;
      if (square >= 1 || square === 0) continue;
      const factor = Math.sqrt((-2 * ln(square)) / square);
      spare = y * factor;
      return x * factor;
    }
  }

  function integer(limit: number): number {
    if (!(Number.isInteger(limit) && limit >= 1 && limit <= 2 ** 53)) {
      throw new RangeError(`integer: limit ${limit}, expected an integer from 1 to 2^53`);
    }
    const range = limit <= 2 ** 32 ? 2 ** 32 : 2 ** 53;
    const accepted = range - (range % limit);
    for (;;) {
      const draw = limit <= 2 ** 32 ? uint32() : bits53();
      if (draw < accepted) return draw % limit;
    }
  }

  function sample(size: number, count: number): number[] {
    if (!(Number.isInteger(count) && count >= 0 && count <= size)) {
      throw new RangeError(`sample: ${count} of ${size}, expected an integer from 0 to ${size}`);
    }
    // Fisher and Yates from the front; the map holds only the places that differ from the identity.
    const moved = new Map<number, number>();
    const drawn: number[] = [];
    for (let i = 0; i < count; i++) {
      const j = i + integer(size - i);
      drawn.push(moved.get(j) ?? j);
      moved.set(j, moved.get(i) ?? i);
      moved.delete(i);
    }
    return drawn;
  }

  // Marsaglia and Tsang, "A simple method for generating gamma variables", 2000; the logarithm of the variable, since
  // small shapes give values below the range of float64.
  function lnGamma(shape: number): number {
    if (!(shape > 0 && shape < Number.POSITIVE_INFINITY)) {
      throw new RangeError(`gamma: shape ${shape}, expected a finite number > 0`);
    }
    const boost = shape < 1 ? ln(1 - uniform()) / shape : 0;
    const d = (shape < 1 ? shape + 1 : shape) - 1 / 3;
    const c = 1 / Math.sqrt(9 * d);
    for (;;) {
      const x = normal();
      const root = 1 + c * x;
      if (root <= 0) continue;
      const v = root * root * root;
      const lnV = ln(v);
      if (ln(1 - uniform()) < 0.5 * x * x + d - d * v + d * lnV) return ln(d) + lnV + boost;
    }
  }

  return {
    uint32,
    uniform,
    uniformRange: (low, high) => low + (high - low) * uniform(),
    normal,
    integer,
    shuffle: <T>(items: readonly T[]): T[] => sample(items.length, items.length).map((i) => items[i] as T),
    permutation: (size) => sample(size, size),
    sample,
    gamma: (shape) => exp(lnGamma(shape)),
    dirichlet(concentrations) {
      const logs = concentrations.map(lnGamma);
      const largest = logs.reduce((a, b) => Math.max(a, b), Number.NEGATIVE_INFINITY);
      const shares = logs.map((log) => exp(log - largest));
      const sum = shares.reduce((a, b) => a + b, 0);
      return shares.map((share) => share / sum);
    },
    fillUniform(target, low, high) {
      for (let i = 0; i < target.length; i++) target[i] = low + (high - low) * uniform();
    },
    fillNormal(target, mean, deviation) {
      for (let i = 0; i < target.length; i++) target[i] = mean + deviation * normal();
    },
  };
}

function hashKey(message: readonly number[]): Uint32Array {
  const input = new Uint32Array(6);
  const out = new Uint32Array(4);
  for (let i = 0; i < message.length; i += 2) {
    input[4] = message[i]!;
    input[5] = message[i + 1]!;
    block(input, out);
    for (let j = 0; j < 4; j++) input[j] = input[j]! ^ out[j]!;
  }
  return input.slice(0, 4);
}

function integerWords(what: string, value: number): [number, number] {
  if (!(Number.isSafeInteger(value) && value >= 0)) {
    throw new RangeError(`stream: ${what} ${value}, expected a safe integer >= 0`);
  }
  return [value % 2 ** 32, Math.floor(value / 2 ** 32)];
}

function textWords(text: string | undefined): number[] {
  if (text === undefined) return [0, 0];
  const bytes = new TextEncoder().encode(text);
  const words = [bytes.length + 1, 0];
  for (let i = 0; i < bytes.length; i += 8) {
    for (const start of [i, i + 4]) {
      let word = 0;
      for (let j = 3; j >= 0; j--) word = word * 256 + (bytes[start + j] ?? 0);
      words.push(word);
    }
  }
  return words;
}
