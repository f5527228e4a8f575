/** The scaling of Llama 3.1 and later: pairs of a head that turn slowly are slowed further by `factor`. */
export interface Llama3Scaling {
  readonly factor: number;
  readonly lowFreqFactor: number;
  readonly highFreqFactor: number;
  readonly originalMaxPositionEmbeddings: number;
}

interface Heads {
  readonly headDim: number;
  readonly theta: number;
}

/** What the frequency of each pair of a head is divided by, as GGUF stores it in `rope_freqs`. */
export function ropeFactors(scaling: Llama3Scaling, heads: Heads): Float32Array {
  const { factor, lowFreqFactor, highFreqFactor, originalMaxPositionEmbeddings } = scaling;
  return turnsPerPosition(heads).map((perPosition) => {
    const turns = originalMaxPositionEmbeddings * perPosition;
    const kept = (turns - lowFreqFactor) / (highFreqFactor - lowFreqFactor);
    const share = Math.min(1, Math.max(0, kept));
    return 1 / (share + (1 - share) / factor);
  });
}

/**
 * The scaling behind stored factors, or undefined where they follow another rule. Between the two ends the share of a
 * frequency that is kept, (1/f - 1/factor) / (1 - 1/factor), is a straight line over turns per position; the scale of
 * its two constants is free, and takes low_freq_factor 1 as every released model does.
 */
export function scalingOfFactors(factors: Float32Array, heads: Heads): Llama3Scaling | undefined {
  const factor = factors.reduce((a, b) => Math.max(a, b), 1);
  if (factor === 1) return undefined;
  const turns = turnsPerPosition(heads);
  const blended = [...factors.keys()].filter((i) => between(factors[i] ?? 1, 1, factor));
  const share = (i: number): number => (1 / (factors[i] ?? 1) - 1 / factor) / (1 - 1 / factor);
  const [first, last] = [blended[0], blended.at(-1)];
  const candidates: [number, number][] = [[4, 8192]];
  if (first !== undefined && last !== undefined && first !== last) {
    const slope = (share(first) - share(last)) / ((turns[first] ?? 0) - (turns[last] ?? 0)); // original / (high - low)
    const zero = (turns[first] ?? 0) - share(first) / slope; // low / original
    const original = Math.round(1 / zero);
    candidates.push([1 + Math.round((original / slope) * 1e4) / 1e4, original]);
  }
  for (const [highFreqFactor, originalMaxPositionEmbeddings] of candidates) {
    const scaling = { factor, lowFreqFactor: 1, highFreqFactor, originalMaxPositionEmbeddings };
    const again = ropeFactors(scaling, heads);
    if (again.every((value, i) => Math.abs(value - (factors[i] ?? 0)) <= 1e-4 * value)) return scaling;
  }
  return undefined;
}

function between(value: number, low: number, high: number): boolean {
  return value > low * 1.0001 && value < high / 1.0001;
}

function turnsPerPosition({ headDim, theta }: Heads): Float32Array {
  return Float32Array.from({ length: headDim / 2 }, (_, i) => theta ** ((-2 * i) / headDim) / (2 * Math.PI));
}
