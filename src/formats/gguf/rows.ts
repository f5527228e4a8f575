/** Row of llama.cpp's order that holds row `j` of a head of `headDim` rows in Hugging Face's: pairs against halves. */
function rotaryRow(j: number, headDim: number): number {
  const half = headDim / 2;
  return j < half ? 2 * j : 2 * (j - half) + 1;
}

/** The rows of whole heads, as llama.cpp orders them, in the order of Hugging Face; rows of any element size. */
export function fromRotaryRows(bytes: Uint8Array, rowBytes: number, headDim: number): Uint8Array {
  const out = new Uint8Array(bytes.length);
  for (let row = 0; row * rowBytes < bytes.length; row++) {
    const j = row % headDim;
    const from = (row - j + rotaryRow(j, headDim)) * rowBytes;
    out.set(bytes.subarray(from, from + rowBytes), row * rowBytes);
  }
  return out;
}

/** The inverse of `fromRotaryRows`, on floats of `width` a row. */
export function toRotaryRows(values: Float32Array, width: number, headDim: number): Float32Array {
  const out = new Float32Array(values.length);
  for (let row = 0; row * width < values.length; row++) {
    const j = row % headDim;
    out.set(values.subarray(row * width, (row + 1) * width), (row - j + rotaryRow(j, headDim)) * width);
  }
  return out;
}

/** A matrix [rows, columns] as [columns, rows]. */
export function transposed(values: Float32Array, rows: number, columns: number): Float32Array {
  const out = new Float32Array(values.length);
  for (let i = 0; i < rows; i++) {
    for (let j = 0; j < columns; j++) out[j * rows + i] = values[i * columns + j]!;
  }
  return out;
}
