import type { BlockFormat } from "./block-format.ts";
import { halvesAt, putHalves } from "./halves.ts";

/** Values in a block of every format here. */
const SIZE = 32;

// Four-bit formats keep value i in the low nibble of byte i, and value i + 16 in its high nibble. Products of a float16
// scale with a small integer, and their sums with a float16 minimum, are exact in float64 and round once to float32.
// Encoders follow the reference in float32: the reciprocal is taken of the scale before that is rounded to float16.

/** Sixteen levels d (q - 8). */
export const q4_0: BlockFormat = {
  values: SIZE,
  bytes: 18,
  decode(bytes, out) {
    const d = halvesAt(bytes, 18, 0, out.length / SIZE);
    for (let block = 0, o = 0; o < out.length; block++, o += SIZE) {
      const scale = d[block]!;
      const at = block * 18 + 2;
      for (let i = 0; i < 16; i++) {
        const byte = bytes[at + i]!;
        out[o + i] = scale * ((byte & 15) - 8);
        out[o + 16 + i] = scale * ((byte >> 4) - 8);
      }
    }
  },
  encode(values) {
    const blocks = values.length / SIZE;
    const bytes = new Uint8Array(blocks * 18);
    const scales = new Float32Array(blocks);
    for (let block = 0; block < blocks; block++) {
      const v = values.subarray(block * SIZE, (block + 1) * SIZE);
      let extreme = 0; // the value of largest magnitude, which becomes level -8
      for (const value of v) if (Math.abs(value) > Math.abs(extreme)) extreme = value;
      scales[block] = extreme / -8;
      const inverse = reciprocal(scales[block]!);
      putNibbles(bytes, block * 18 + 2, (i) => Math.fround(Math.fround(v[i]! * inverse) + 8.5));
    }
    putHalves(bytes, 18, 0, scales);
    return bytes;
  },
};

/** Sixteen levels d q + m. */
export const q4_1: BlockFormat = {
  values: SIZE,
  bytes: 20,
  decode(bytes, out) {
    const d = halvesAt(bytes, 20, 0, out.length / SIZE);
    const m = halvesAt(bytes, 20, 2, out.length / SIZE);
    for (let block = 0, o = 0; o < out.length; block++, o += SIZE) {
      const scale = d[block]!;
      const least = m[block]!;
      const at = block * 20 + 4;
      for (let i = 0; i < 16; i++) {
        const byte = bytes[at + i]!;
        out[o + i] = scale * (byte & 15) + least;
        out[o + 16 + i] = scale * (byte >> 4) + least;
      }
    }
  },
  encode(values) {
    const blocks = values.length / SIZE;
    const bytes = new Uint8Array(blocks * 20);
    const scales = new Float32Array(blocks);
    const minima = new Float32Array(blocks);
    for (let block = 0; block < blocks; block++) {
      const v = values.subarray(block * SIZE, (block + 1) * SIZE);
      const least = v.reduce((a, b) => Math.min(a, b), Number.POSITIVE_INFINITY);
      const most = v.reduce((a, b) => Math.max(a, b), Number.NEGATIVE_INFINITY);
      minima[block] = least;
      scales[block] = Math.fround(most - least) / 15;
      const inverse = reciprocal(scales[block]!);
      putNibbles(bytes, block * 20 + 4, (i) =>
        Math.fround(Math.fround(Math.fround(v[i]! - least) * inverse) + 0.5),
      );
    }
    putHalves(bytes, 20, 0, scales);
    putHalves(bytes, 20, 2, minima);
    return bytes;
  },
};

/** 32 levels d (q - 16); the fifth bits of the block lie together in four bytes. */
export const q5_0: BlockFormat = {
  values: SIZE,
  bytes: 22,
  decode(bytes, out) {
    const d = halvesAt(bytes, 22, 0, out.length / SIZE);
    for (let block = 0, o = 0; o < out.length; block++, o += SIZE) {
      const scale = d[block]!;
      const at = block * 22 + 2;
      for (let i = 0; i < SIZE; i++) out[o + i] = scale * (fiveBits(bytes, at, i) - 16);
    }
  },
};

/** 32 levels d q + m. */
export const q5_1: BlockFormat = {
  values: SIZE,
  bytes: 24,
  decode(bytes, out) {
    const d = halvesAt(bytes, 24, 0, out.length / SIZE);
    const m = halvesAt(bytes, 24, 2, out.length / SIZE);
    for (let block = 0, o = 0; o < out.length; block++, o += SIZE) {
      const scale = d[block]!;
      const least = m[block]!;
      const at = block * 24 + 4;
      for (let i = 0; i < SIZE; i++) out[o + i] = scale * fiveBits(bytes, at, i) + least;
    }
  },
};

/** Signed bytes d q. */
export const q8_0: BlockFormat = {
  values: SIZE,
  bytes: 34,
  decode(bytes, out) {
    const d = halvesAt(bytes, 34, 0, out.length / SIZE);
    for (let block = 0, o = 0; o < out.length; block++, o += SIZE) {
      const scale = d[block]!;
      const at = block * 34 + 2;
      for (let i = 0; i < SIZE; i++) out[o + i] = scale * ((bytes[at + i]! << 24) >> 24);
    }
  },
  encode(values) {
    const blocks = values.length / SIZE;
    const bytes = new Uint8Array(blocks * 34);
    const scales = new Float32Array(blocks);
    for (let block = 0; block < blocks; block++) {
      let most = 0;
      for (let i = 0; i < SIZE; i++) most = Math.max(most, Math.abs(values[block * SIZE + i]!));
      scales[block] = most / 127;
      const inverse = reciprocal(scales[block]!);
      for (let i = 0; i < SIZE; i++) {
        const level = Math.fround(values[block * SIZE + i]! * inverse);
        const rounded = Math.floor(Math.abs(level) + 0.5); // ties away from zero
        bytes[block * 34 + 2 + i] = level < 0 ? -rounded : rounded;
      }
    }
    putHalves(bytes, 34, 0, scales);
    return bytes;
  },
};

function fiveBits(bytes: Uint8Array, at: number, i: number): number {
  const nibble = (bytes[at + 4 + (i & 15)]! >> (i < 16 ? 0 : 4)) & 15;
  return nibble | (((bytes[at + (i >> 3)]! >> (i & 7)) & 1) << 4);
}

function reciprocal(scale: number): number {
  return scale === 0 ? 0 : Math.fround(1 / scale);
}

/** Packs 32 levels, cut to integers from 0 to 15. */
function putNibbles(bytes: Uint8Array, at: number, level: (i: number) => number): void {
  const whole = (i: number): number => Math.min(15, Math.max(0, Math.trunc(level(i))));
  for (let i = 0; i < 16; i++) bytes[at + i] = whole(i) | (whole(i + 16) << 4);
}
