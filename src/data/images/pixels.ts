/** An image, 8 bits a channel: row by row, the channels of a pixel side by side. */
export interface Pixels {
  readonly height: number;
  readonly width: number;
  readonly channels: number;
  readonly data: Uint8Array; // [height, width, channels]
}

/** An image in a record: its pixels, or a file of an image format, by its bytes or its place. */
export type ImageSource = Pixels | { readonly bytes: Uint8Array } | { readonly file: string };

/** The image in a field of a record, or undefined where it holds none. */
export function imageSource(value: unknown): ImageSource | undefined {
  if (typeof value !== "object" || value === null) return undefined;
  if (value instanceof Uint8Array) return { bytes: value };
  if ("data" in value && value.data instanceof Uint8Array && "height" in value && "width" in value) {
    const { data, height, width } = value;
    const channels = "channels" in value ? value.channels : 1;
    if (typeof height === "number" && typeof width === "number" && typeof channels === "number")
      return data.length === height * width * channels ? { height, width, channels, data } : undefined;
  }
  if ("bytes" in value && value.bytes instanceof Uint8Array) return { bytes: value.bytes };
  return "file" in value && typeof value.file === "string" ? { file: value.file } : undefined;
}

/** An image with another number of channels: gray repeated, or colours weighed to gray as ITU-R 601-2 does. */
export function withChannels(pixels: Pixels, channels: number): Pixels {
  if (pixels.channels === channels) return pixels;
  const { height, width, data } = pixels;
  const size = height * width;
  const changed = new Uint8Array(size * channels);
  if (pixels.channels === 1) {
    for (let i = 0; i < size; i++) changed.fill(data[i]!, i * channels, (i + 1) * channels);
  } else if (pixels.channels === 3 && channels === 1) {
    for (let i = 0; i < size; i++) {
      // 0.299 R + 0.587 G + 0.114 B in 16 bits.
      changed[i] = (data[3 * i]! * 19595 + data[3 * i + 1]! * 38470 + data[3 * i + 2]! * 7471 + 0x8000) >> 16;
    }
  } else {
    throw new RangeError(`images: ${pixels.channels} channels cannot become ${channels}; expected 1 or 3`);
  }
  return { height, width, channels, data: changed };
}

/** The part of an image around its centre; zeros where it is smaller. */
export function centerCrop(pixels: Pixels, height: number, width: number): Pixels {
  if (pixels.height === height && pixels.width === width) return pixels;
  const { channels, data } = pixels;
  const cropped = new Uint8Array(height * width * channels);
  const top = Math.floor((pixels.height - height) / 2);
  const left = Math.floor((pixels.width - width) / 2);
  const from = Math.max(0, -left);
  const to = Math.min(width, pixels.width - left);
  for (let y = 0; y < height; y++) {
    const row = top + y;
    if (row < 0 || row >= pixels.height || to <= from) continue;
    const start = (row * pixels.width + left + from) * channels;
    cropped.set(data.subarray(start, start + (to - from) * channels), (y * width + from) * channels);
  }
  return { height, width, channels, data: cropped };
}

/** An image in a few words; undefined for other values. */
export function imageText(value: unknown): string | undefined {
  const source = imageSource(value);
  if (source === undefined) return undefined;
  if ("data" in source) return `image ${source.height} x ${source.width} x ${source.channels}`;
  return "bytes" in source ? `image of ${source.bytes.length} bytes` : `image ${source.file}`;
}
