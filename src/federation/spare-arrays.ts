/** Arrays that are used again: fresh memory costs more than what is written into it. */
export interface SpareArrays {
  /** An array of at least `bytes` bytes, with anything in it. */
  take(bytes: number): Uint8Array;
  /** Gives an array back that nobody reads any more. */
  give(array: Uint8Array): void;
}

/** Keeps up to `most` arrays that were given back. */
export function spareArrays(most: number): SpareArrays {
  const spare: Uint8Array[] = [];
  return {
    take(bytes) {
      const at = spare.findIndex(({ length }) => length >= bytes);
      return spare.splice(at, at < 0 ? 0 : 1)[0] ?? new Uint8Array(bytes);
    },
    give(array) {
      spare.push(array);
      if (spare.length > most) spare.shift();
    },
  };
}
