import type { Pixels } from "./pixels.ts";

/** The filters of Pillow that images are resized by. */
export type Resample = "nearest" | "box" | "bilinear" | "hamming" | "bicubic" | "lanczos";

interface Filter {
  /** Distance beyond which it is 0. */
  readonly support: number;
  at(x: number): number;
}

const sinc = (x: number): number => (x === 0 ? 1 : Math.sin(Math.PI * x) / (Math.PI * x));

const filters: Readonly<Record<Exclude<Resample, "nearest">, Filter>> = {
  box: { support: 0.5, at: (x) => (x > -0.5 && x <= 0.5 ? 1 : 0) },
  bilinear: { support: 1, at: (x) => Math.max(0, 1 - Math.abs(x)) },
  hamming: {
    support: 1,
    at(x) {
      const t = Math.abs(x);
      return t >= 1 ? 0 : sinc(t) * (0.54 + 0.46 * Math.cos(Math.PI * t));
    },
  },
  bicubic: {
    support: 2,
    at(x) {
      const a = -0.5;
      const t = Math.abs(x);
      if (t < 1) return ((a + 2) * t - (a + 3)) * t * t + 1;
      return t < 2 ? (((t - 5) * t + 8) * t - 4) * a : 0;
    },
  },
  lanczos: { support: 3, at: (x) => (x >= -3 && x < 3 ? sinc(x) * sinc(x / 3) : 0) },
};

/** Bits of a weight behind the point. */
const PRECISION = 22;

/**
 * Resizes as Pillow 11 does, byte for byte: along rows, then along columns, each with the filter stretched where the image
 * shrinks, weights in whole numbers and a rounded byte after each direction.
 */
export function resize(pixels: Pixels, height: number, width: number, resample: Resample): Pixels {
  if (pixels.height === height && pixels.width === width) return pixels;
  if (resample === "nearest") return nearest(pixels, height, width);
  const filter = filters[resample];
  const { channels } = pixels;
  const across =
    pixels.width === width
      ? pixels.data
      : along(pixels.data, {
          outer: pixels.height,
          from: pixels.width,
          to: width,
          inner: channels,
          filter,
        });
  const data =
    pixels.height === height
      ? across
      : along(across, { outer: 1, from: pixels.height, to: height, inner: width * channels, filter });
  return { height, width, channels, data };
}

interface Direction {
  /** Lines that are resized one after the other. */
  readonly outer: number;
  readonly from: number;
  readonly to: number;
  /** Bytes from one place of a line to the next. */
  readonly inner: number;
  readonly filter: Filter;
}

/** Resizes the middle axis of [outer, from, inner]. */
function along(data: Uint8Array, { outer, from, to, inner, filter }: Direction): Uint8Array {
  const result = new Uint8Array(outer * to * inner);
  const windows = Array.from({ length: to }, (_, place) => weightsAt(place, from, to, filter));
  for (let o = 0; o < outer; o++) {
    for (const [place, { first, weights }] of windows.entries()) {
      const target = (o * to + place) * inner;
      for (let i = 0; i < inner; i++) {
        let sum = 1 << (PRECISION - 1);
        for (let k = 0; k < weights.length; k++)
          sum += weights[k]! * data[(o * from + first + k) * inner + i]!;
        result[target + i] = Math.min(255, Math.max(0, Math.floor(sum / (1 << PRECISION))));
      }
    }
  }
  return result;
}

interface Window {
  readonly first: number;
  readonly weights: Float64Array;
}

function weightsAt(place: number, from: number, to: number, { support, at }: Filter): Window {
  const scale = from / to;
  const stretch = Math.max(1, scale);
  const center = (place + 0.5) * scale;
  const first = Math.max(0, Math.trunc(center - support * stretch + 0.5));
  const last = Math.min(from, Math.trunc(center + support * stretch + 0.5));
  const weights = Float64Array.from({ length: last - first }, (_, k) =>
    at((k + first - center + 0.5) / stretch),
  );
  const total = weights.reduce((sum, weight) => sum + weight, 0);
  return {
    first,
    weights: weights.map((weight) => {
      const scaled = (total === 0 ? weight : weight / total) * (1 << PRECISION);
      return Math.trunc(scaled + (scaled < 0 ? -0.5 : 0.5));
    }),
  };
}

function nearest(
  { height: rows, width: columns, channels, data }: Pixels,
  height: number,
  width: number,
): Pixels {
  const result = new Uint8Array(height * width * channels);
  for (let y = 0; y < height; y++) {
    const row = Math.floor(((y + 0.5) * rows) / height);
    for (let x = 0; x < width; x++) {
      const column = Math.floor(((x + 0.5) * columns) / width);
      const start = (row * columns + column) * channels;
      result.set(data.subarray(start, start + channels), (y * width + x) * channels);
    }
  }
  return { height, width, channels, data: result };
}
