import type { StateTree, Strategy } from "../federation/strategy.ts";
import { float32, type Tensor, tensor } from "../tensor/tensor.ts";
import { packed } from "./packed.ts";

/** Options of quantized updates. */
export interface QuantizedOptions {
  /** Bits of a number. Default: 8. */
  readonly bits?: 8 | 4;
  /** Numbers that share a scale, which takes 32 bits. Default: 64. */
  readonly block?: number;
  /** Whether a client adds what rounding lost to its next change. Default: true. */
  readonly errorFeedback?: boolean;
}

/**
 * Quantized updates: clients send their changes as whole numbers of 8 or 4 bits, times the largest magnitude of a block,
 * and keep what rounding lost for the next round. A client that is not asked again keeps it to itself.
 *
 * Blocks: Dettmers et al., ICLR 2022, section 2.1. https://arxiv.org/abs/2110.02861 Error feedback: Karimireddy et al.,
 * ICML 2019, Algorithm 2. https://arxiv.org/abs/1901.09847
 */
export function quantized<State extends StateTree>(
  inner: Strategy<State>,
  { bits = 8, block = 64, errorFeedback = true }: QuantizedOptions = {},
): Strategy<State> {
  if (bits !== 8 && bits !== 4) throw new RangeError(`quantized: bits is ${bits}, expected 8 or 4`);
  if (!(Number.isInteger(block) && block >= 1))
    throw new RangeError(`quantized: block is ${block}, expected an integer of at least 1`);
  return packed(
    inner,
    {
      packsValues: true,
      pack: (change) => quantize(change, bits, block),
      unpack: (parts, shape) => dequantize(parts, shape, bits, block),
    },
    { tag: "quantized", suffix: `quantized to ${bits} bits`, errorFeedback },
  );
}

/** x ≈ scale · q with q in ±127 or ±7 and scale the largest magnitude of the block over that. */
function quantize({ data }: Tensor, bits: 8 | 4, block: number): { codes: Tensor; scales: Tensor } {
  const values = Float64Array.from(data, Number);
  const largest = 2 ** (bits - 1) - 1;
  const scales = new Float32Array(Math.ceil(values.length / block));
  const whole = new Int8Array(values.length);
  for (let b = 0; b < scales.length; b++) {
    const [start, end] = [b * block, Math.min((b + 1) * block, values.length)];
    let magnitude = 0;
    for (let i = start; i < end; i++) magnitude = Math.max(magnitude, Math.abs(values[i]!)); // NaN stays NaN
    const scale = Math.fround(magnitude / largest);
    scales[b] = scale;
    if (!(scale > 0)) continue;
    for (let i = start; i < end; i++)
      whole[i] = Math.max(-largest, Math.min(largest, Math.round(values[i]! / scale)));
  }
  return {
    codes: bits === 8 ? tensor("int8", [whole.length], whole) : nibbles(whole),
    scales: float32([scales.length], scales),
  };
}

function dequantize(
  { codes, scales }: Readonly<Record<string, Tensor>>,
  shape: readonly number[],
  bits: 8 | 4,
  block: number,
): Float64Array {
  if (!codes || !scales) throw new RangeError("quantized: an update without codes or scales");
  const size = shape.reduce((a, b) => a * b, 1);
  return Float64Array.from({ length: size }, (_, i) => {
    const byte = Number(codes.data[bits === 8 ? i : i >> 1]);
    const whole = bits === 8 ? byte : ((byte >> (4 * (i & 1))) & 15) - 8;
    return whole * Number(scales.data[Math.floor(i / block)]);
  });
}

/** Two numbers of ±7 a byte, each plus 8, the first one low. */
function nibbles(whole: Int8Array): Tensor {
  const bytes = new Uint8Array(Math.ceil(whole.length / 2));
  for (let i = 0; i < whole.length; i++) bytes[i >> 1] = bytes[i >> 1]! | ((whole[i]! + 8) << (4 * (i & 1)));
  return tensor("uint8", [bytes.length], bytes);
}
