/** A way to store a row of floats as blocks of equal size. */
export interface BlockFormat {
  /** Values in a block. */
  readonly values: number;
  /** Bytes of a block. */
  readonly bytes: number;
  /** Decodes whole blocks until `out` is full. */
  decode(bytes: Uint8Array, out: Float32Array): void;
  /** Encodes whole blocks; absent in formats that are only read. */
  encode?(values: Float32Array): Uint8Array;
}
