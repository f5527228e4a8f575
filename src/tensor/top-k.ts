/**
 * Positions of the `count` entries of largest magnitude, ascending; of equal magnitudes the ones that come first.
 */
export function topK(values: Float32Array | Float64Array, count: number): Uint32Array {
  const k = Math.max(0, Math.min(values.length, count));
  if (k === 0) return new Uint32Array(0);
  const sorted = values.map(Math.abs).sort();
  const threshold = sorted[values.length - k]!;
  let equals = k; // how many entries at the threshold still fit
  for (let i = values.length - 1; i >= 0 && sorted[i]! > threshold; i--) equals--;
  const kept = new Uint32Array(k);
  let at = 0;
  for (let i = 0; i < values.length && at < k; i++) {
    const magnitude = Math.abs(values[i]!);
    if (magnitude > threshold || (magnitude === threshold && equals-- > 0)) kept[at++] = i;
  }
  return kept;
}
