import { type Tensor, tensor } from "./tensor.ts";

/**
 * Ascending places in a vector of `size` entries: 16 or 32 bits each, or one bit an entry where that is shorter. Dtype and
 * shape follow from the two numbers alone.
 */
export function packPlaces(places: ArrayLike<number>, size: number): Tensor {
  const whole = wholeBytes(size);
  if (placesBytes(places.length, size) < whole * places.length) {
    const bits = new Uint8Array(Math.ceil(size / 8));
    for (let n = 0; n < places.length; n++) bits[places[n]! >> 3]! |= 1 << (places[n]! & 7);
    return tensor("uint8", [bits.length], bits);
  }
  return whole === 2
    ? tensor("uint16", [places.length], Uint16Array.from(places))
    : tensor("uint32", [places.length], Uint32Array.from(places));
}

/** Bytes of `count` places in a vector of `size` entries. */
export function placesBytes(count: number, size: number): number {
  return Math.min(Math.ceil(size / 8), wholeBytes(size) * count);
}

/** Values at their packed places, 0 elsewhere. A place beyond the vector, or without a value, counts for nothing. */
export function scatter(values: ArrayLike<number>, places: Tensor, size: number): Float64Array {
  const { dtype, data } = places;
  const spread = new Float64Array(size);
  if (dtype !== "uint8") {
    const count = Math.min(values.length, data.length);
    for (let n = 0; n < count; n++) {
      const place = Number(data[n]);
      if (place < size) spread[place] = values[n]!;
    }
    return spread;
  }
  let n = 0;
  for (let i = 0; i < size && n < values.length; i++)
    if ((Number(data[i >> 3]) >> (i & 7)) & 1) spread[i] = values[n++]!;
  return spread;
}

/** Bytes of one place as a whole number. */
const wholeBytes = (size: number): number => (size <= 2 ** 16 ? 2 : 4);
