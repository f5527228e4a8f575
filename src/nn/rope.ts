import { concat, rotaryEmbedding, slice } from "../graph/ops.ts";
import { dimAt } from "../graph/shape.ts";
import { constant, type Value } from "../graph/value.ts";
import { float32 } from "../tensor/tensor.ts";

/** How the rotation frequencies of a checkpoint were stretched for longer contexts. */
export type RopeScaling =
  | { readonly type: "default" }
  | { readonly type: "linear"; readonly factor: number }
  | {
      readonly type: "llama3";
      readonly factor: number;
      readonly lowFreqFactor: number;
      readonly highFreqFactor: number;
      readonly originalMaxPositionEmbeddings: number;
    }
  | {
      readonly type: "longrope";
      /** Divisors of the frequencies, one a pair. */
      readonly factors: readonly number[];
      /** Factor of cosines and sines. */
      readonly attentionFactor: number;
    };

export interface RopeOptions {
  /** Numbers of a head that turn: the first ones. */
  readonly headDim: number;
  readonly theta: number;
  readonly maxPositions: number;
  readonly scaling?: RopeScaling;
}

/** Cosines and sines of `position * frequency`, [maxPositions, headDim / 2] each. */
export interface RopeTables {
  readonly cosine: Value;
  readonly sine: Value;
}

/** Radians per position of each pair of a head: `theta^(-2i / headDim)`, scaled. */
export function ropeFrequencies({
  headDim,
  theta,
  scaling = { type: "default" },
}: RopeOptions): Float64Array {
  const frequencies = Float64Array.from({ length: headDim / 2 }, (_, i) => theta ** ((-2 * i) / headDim));
  switch (scaling.type) {
    case "default":
      return frequencies;
    case "linear":
      return frequencies.map((frequency) => frequency / scaling.factor);
    case "longrope":
      return frequencies.map((frequency, i) => frequency / (scaling.factors[i] ?? 1));
    case "llama3":
      return frequencies.map((frequency) => {
        // Turns within the original context decide: many turns stay, few are slowed by `factor`, between is blended.
        const turns = (scaling.originalMaxPositionEmbeddings * frequency) / (2 * Math.PI);
        const kept = (turns - scaling.lowFreqFactor) / (scaling.highFreqFactor - scaling.lowFreqFactor);
        const share = Math.min(1, Math.max(0, kept));
        return frequency * (share + (1 - share) / scaling.factor);
      });
  }
}

/** The tables of all positions, computed in float64. */
export function ropeTables(options: RopeOptions): RopeTables {
  const frequencies = ropeFrequencies(options);
  const size = options.scaling?.type === "longrope" ? options.scaling.attentionFactor : 1;
  const shape = [options.maxPositions, frequencies.length];
  const angle = (i: number): number =>
    Math.floor(i / frequencies.length) * (frequencies[i % frequencies.length] ?? 0);
  const table = (turn: (angle: number) => number): Value =>
    constant(
      float32(
        shape,
        Float32Array.from(
          { length: options.maxPositions * frequencies.length },
          (_, i) => size * turn(angle(i)),
        ),
      ),
    );
  return { cosine: table(Math.cos), sine: table(Math.sin) };
}

/**
 * Turns the heads of x [B, H, T, d] by their positions, [B, T] or the [1] position of the first token. Where the tables
 * are narrower than a head, the rest of it stays.
 */
export function rope(x: Value, positions: Value, { cosine, sine }: RopeTables): Value {
  const [turning, headDim] = [2 * Number(dimAt(cosine.shape, 1)), Number(dimAt(x.shape, 3))];
  if (turning === headDim) return rotaryEmbedding(x, positions, cosine, sine);
  const turned = rotaryEmbedding(slice(x, 3, 0, turning), positions, cosine, sine);
  return concat([turned, slice(x, 3, turning, headDim)], 3);
}
