import type { BlockFormat } from "./block-format.ts";
import { halvesAt } from "./halves.ts";

/** Values in a super-block: 8 parts of 32, or 16 of 16, each with a small integer scale of its own. */
const SIZE = 256;

// Two-bit planes: bits 2p and 2p + 1 of byte 32 h + l hold value 128 h + 32 p + l.

/** Levels d s q - dmin m with two-bit q, four-bit s and m. */
export const q2_k: BlockFormat = {
  values: SIZE,
  bytes: 84, // s and m [16], q [64], d, dmin
  decode(bytes, out) {
    const d = halvesAt(bytes, 84, 80, out.length / SIZE);
    const dmin = halvesAt(bytes, 84, 82, out.length / SIZE);
    for (let block = 0, o = 0; o < out.length; block++, o += SIZE) {
      const at = block * 84;
      for (let part = 0; part < 16; part++) {
        const packed = bytes[at + part]!;
        const scale = d[block]! * (packed & 15);
        const least = dmin[block]! * (packed >> 4);
        const from = at + 16 + twoBitByte(part);
        const shift = twoBitShift(part);
        for (let i = 0; i < 16; i++) {
          out[o + part * 16 + i] = scale * ((bytes[from + i]! >> shift) & 3) - least;
        }
      }
    }
  },
};

/** Levels d s q with q from -4 to 3 and six-bit s; a mask holds which q are not negative. */
export const q3_k: BlockFormat = {
  values: SIZE,
  bytes: 110, // mask [32], low bits of q [64], s [12], d
  decode(bytes, out) {
    const d = halvesAt(bytes, 110, 108, out.length / SIZE);
    for (let block = 0, o = 0; o < out.length; block++, o += SIZE) {
      const at = block * 110;
      const scales = at + 96;
      for (let part = 0; part < 16; part++) {
        const low = (bytes[scales + (part & 7)]! >> (part < 8 ? 0 : 4)) & 15;
        const high = (bytes[scales + 8 + (part & 3)]! >> (2 * (part >> 2))) & 3;
        const scale = d[block]! * ((low | (high << 4)) - 32);
        const from = at + 32 + twoBitByte(part);
        const shift = twoBitShift(part);
        const mask = at + (part & 1) * 16;
        for (let i = 0; i < 16; i++) {
          const negative = ((bytes[mask + i]! >> (part >> 1)) & 1) === 0 ? 4 : 0;
          out[o + part * 16 + i] = scale * (((bytes[from + i]! >> shift) & 3) - negative);
        }
      }
    }
  },
};

/** Levels d s q - dmin m with four-bit q, six-bit s and m. */
export const q4_k: BlockFormat = {
  values: SIZE,
  bytes: 144, // d, dmin, s and m [12], q [128]
  decode(bytes, out) {
    const d = halvesAt(bytes, 144, 0, out.length / SIZE);
    const dmin = halvesAt(bytes, 144, 2, out.length / SIZE);
    for (let block = 0, o = 0; o < out.length; block++, o += SIZE) {
      const at = block * 144;
      for (let part = 0; part < 8; part++) {
        const scale = d[block]! * sixBitScale(bytes, at + 4, part);
        const least = dmin[block]! * sixBitMinimum(bytes, at + 4, part);
        const from = at + 16 + (part >> 1) * 32;
        const shift = (part & 1) * 4;
        for (let i = 0; i < 32; i++) {
          out[o + part * 32 + i] = scale * ((bytes[from + i]! >> shift) & 15) - least;
        }
      }
    }
  },
};

/** Levels d s q - dmin m with five-bit q, six-bit s and m. */
export const q5_k: BlockFormat = {
  values: SIZE,
  bytes: 176, // d, dmin, s and m [12], fifth bits [32], low bits of q [128]
  decode(bytes, out) {
    const d = halvesAt(bytes, 176, 0, out.length / SIZE);
    const dmin = halvesAt(bytes, 176, 2, out.length / SIZE);
    for (let block = 0, o = 0; o < out.length; block++, o += SIZE) {
      const at = block * 176;
      for (let part = 0; part < 8; part++) {
        const scale = d[block]! * sixBitScale(bytes, at + 4, part);
        const least = dmin[block]! * sixBitMinimum(bytes, at + 4, part);
        const from = at + 48 + (part >> 1) * 32;
        const shift = (part & 1) * 4;
        for (let i = 0; i < 32; i++) {
          const fifth = (bytes[at + 16 + i]! >> part) & 1;
          out[o + part * 32 + i] = scale * (((bytes[from + i]! >> shift) & 15) | (fifth << 4)) - least;
        }
      }
    }
  },
};

/** Levels d s (q - 32) with six-bit q and signed bytes s. */
export const q6_k: BlockFormat = {
  values: SIZE,
  bytes: 210, // low bits of q [128], high bits [64], s [16], d
  decode(bytes, out) {
    const d = halvesAt(bytes, 210, 208, out.length / SIZE);
    for (let block = 0, o = 0; o < out.length; block++, o += SIZE) {
      const at = block * 210;
      for (let part = 0; part < 16; part++) {
        const scale = d[block]! * ((bytes[at + 192 + part]! << 24) >> 24);
        const half = part >> 3;
        const quarter = (part >> 1) & 3;
        const low = at + half * 64 + (quarter & 1) * 32 + (part & 1) * 16;
        const high = at + 128 + half * 32 + (part & 1) * 16;
        const lowShift = (quarter >> 1) * 4;
        for (let i = 0; i < 16; i++) {
          const q = ((bytes[low + i]! >> lowShift) & 15) | (((bytes[high + i]! >> (2 * quarter)) & 3) << 4);
          out[o + part * 16 + i] = scale * (q - 32);
        }
      }
    }
  },
};

/** Signed bytes d q with a float32 scale; sums of 16 values follow, which decoding has no use for. */
export const q8_k: BlockFormat = {
  values: SIZE,
  bytes: 292,
  decode(bytes, out) {
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    for (let block = 0, o = 0; o < out.length; block++, o += SIZE) {
      const scale = view.getFloat32(block * 292, true);
      for (let i = 0; i < SIZE; i++) out[o + i] = scale * view.getInt8(block * 292 + 4 + i);
    }
  },
};

/** First byte of a part of 16 values among two-bit planes. */
function twoBitByte(part: number): number {
  return (part >> 3) * 32 + (part & 1) * 16;
}

function twoBitShift(part: number): number {
  return 2 * ((part >> 1) & 3);
}

// Eight scales and eight minima of six bits in 12 bytes: those of parts 0 to 3 fill the low six bits of bytes 0 to 3 and
// 4 to 7; the others have four bits in bytes 8 to 11 and two at the top of the former.

function sixBitScale(bytes: Uint8Array, at: number, part: number): number {
  if (part < 4) return bytes[at + part]! & 63;
  return (bytes[at + 4 + part]! & 15) | ((bytes[at + part - 4]! >> 6) << 4);
}

function sixBitMinimum(bytes: Uint8Array, at: number, part: number): number {
  if (part < 4) return bytes[at + 4 + part]! & 63;
  return (bytes[at + 4 + part]! >> 4) | ((bytes[at + part]! >> 6) << 4);
}
