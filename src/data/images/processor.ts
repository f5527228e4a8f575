import { TributaryError } from "../../errors.ts";
import { isRecord } from "../record.ts";
import { centerCrop, type Pixels, withChannels } from "./pixels.ts";
import { type Resample, resize } from "./resize.ts";

/** How a model wants its images: `preprocessor_config.json`. */
export interface ImageProcessor {
  readonly channels: number;
  /** What the model reads. */
  readonly height: number;
  readonly width: number;
  /** What an image is resized to before its centre is cut out; a number is the shorter side, absent is no resizing. */
  readonly size?: number | { readonly height: number; readonly width: number };
  readonly resample: Resample;
  /** Per channel the values that the bytes 0 to 255 become. */
  readonly values: readonly Float32Array[];
}

/** An image as a model reads it, in bytes until it is in a batch. */
export interface ImageInput {
  readonly pixels: Uint8Array; // [channels, height, width]
  readonly processor: ImageProcessor;
}

/** What the model's configuration says of its images. */
interface ModelImage {
  readonly channels: number;
  readonly height: number;
  readonly width: number;
}

/** Pillow's numbers of its filters. */
const resamples: readonly Resample[] = ["nearest", "lanczos", "bilinear", "bicubic", "box", "hamming"];

/**
 * Reads a `preprocessor_config.json` for a model. Absent, images are resized to the model's size and scaled to -1 to 1, as
 * Transformers does for ViT and SigLIP.
 */
export function imageProcessor(image: ModelImage, config: unknown = {}): ImageProcessor {
  if (!isRecord(config))
    throw refuse("a file that is no object", "the content of a preprocessor_config.json");
  const { channels, height, width } = image;
  for (const name of ["do_pad", "do_thumbnail", "do_align_long_axis", "do_reduce_labels"])
    if (config[name] === true) throw refuse(`${name}: true`, "false, or another model");
  const resample = typeof config.resample === "number" ? resamples[config.resample] : "bilinear";
  if (resample === undefined) throw refuse(`resample: ${config.resample}`, `0 to ${resamples.length - 1}`);
  const size = config.do_resize === false ? undefined : sizeOf(config.size, image);
  const crop = config.do_center_crop === true ? sizeOf(config.crop_size ?? config.size, image) : size;
  const final = crop ?? { height, width };
  if (typeof final === "number" || final.height !== height || final.width !== width) {
    const got = typeof final === "number" ? `a shorter side of ${final}` : `${final.height} x ${final.width}`;
    throw refuse(`images of ${got}`, `the ${height} x ${width} of config.json; correct size or crop_size`);
  }
  const rescale = config.do_rescale === false ? 1 : numberOf(config.rescale_factor, 1 / 255);
  const normalize = config.do_normalize !== false;
  const mean = perChannel(config.image_mean, channels, normalize, 0);
  const std = perChannel(config.image_std, channels, normalize, 1);
  return {
    channels,
    height,
    width,
    ...(size === undefined ? {} : { size }),
    resample,
    values: mean.map((m, c) =>
      Float32Array.from({ length: 256 }, (_, byte) => (byte * rescale - m) / (std[c] ?? 1)),
    ),
  };
}

/** The `preprocessor_config.json` that prepares images of a model as they are prepared where it is absent. */
export function plainProcessorConfig({
  channels,
  height,
  width,
}: ModelImage): Readonly<Record<string, unknown>> {
  const halves = Array.from({ length: channels }, () => 0.5);
  return {
    image_processor_type: "ViTImageProcessor",
    ...(channels === 3 && { do_convert_rgb: true }),
    do_resize: true,
    size: { height, width },
    resample: resamples.indexOf("bilinear"),
    do_rescale: true,
    rescale_factor: 1 / 255,
    do_normalize: true,
    image_mean: halves,
    image_std: halves,
  };
}

/** Whether a value is an image as a model reads it. */
export function isImageInput(value: unknown): value is ImageInput {
  return typeof value === "object" && value !== null && "pixels" in value && "processor" in value;
}

/** Resizes, cuts and orders the bytes of an image. */
export function processImage(image: Pixels, processor: ImageProcessor): ImageInput {
  const { channels, height, width, size, resample } = processor;
  const coloured = withChannels(image, channels);
  const resized = size === undefined ? coloured : withSize(coloured, size, resample);
  if (size === undefined && (image.height !== height || image.width !== width))
    throw refuse(
      `an image of ${image.height} x ${image.width}`,
      `${height} x ${width}, since do_resize is false`,
    );
  const { data } = centerCrop(resized, height, width);
  const area = height * width;
  const pixels = new Uint8Array(channels * area);
  for (let c = 0; c < channels; c++)
    for (let i = 0; i < area; i++) pixels[c * area + i] = data[i * channels + c]!;
  return { pixels, processor };
}

/** Writes the values of an image into `target` from `offset` on; [channels, height, width]. */
export function writeValues(
  { pixels, processor: { channels, values } }: ImageInput,
  target: Float32Array,
  offset: number,
): void {
  const area = pixels.length / channels;
  for (const [c, table] of values.entries())
    for (let i = c * area; i < (c + 1) * area; i++) target[offset + i] = table[pixels[i]!]!;
}

function withSize(image: Pixels, size: NonNullable<ImageProcessor["size"]>, resample: Resample): Pixels {
  if (typeof size !== "number") return resize(image, size.height, size.width, resample);
  const { height, width } = image;
  const longer = Math.trunc((size * Math.max(height, width)) / Math.min(height, width));
  return height <= width ? resize(image, size, longer, resample) : resize(image, longer, size, resample);
}

function sizeOf(value: unknown, { height, width }: ModelImage): NonNullable<ImageProcessor["size"]> {
  if (value === undefined) return { height, width };
  if (typeof value === "number") return { height: value, width: value };
  if (isRecord(value)) {
    if (typeof value.height === "number" && typeof value.width === "number")
      return { height: value.height, width: value.width };
    if (typeof value.shortest_edge === "number" && value.longest_edge === undefined)
      return value.shortest_edge;
  }
  throw refuse(
    `the size ${JSON.stringify(value).slice(0, 80)}`,
    "a number, height and width, or shortest_edge",
  );
}

function perChannel(value: unknown, channels: number, wanted: boolean, neutral: number): number[] {
  if (!wanted) return Array.from({ length: channels }, () => neutral);
  if (value === undefined) return Array.from({ length: channels }, () => 0.5);
  const list: readonly unknown[] = Array.isArray(value) ? value : [value];
  const numbers = list.filter((each) => typeof each === "number");
  if (numbers.length === list.length && (numbers.length === channels || numbers.length === 1))
    return Array.from({ length: channels }, (_, c) => numbers[c] ?? numbers[0] ?? neutral);
  throw refuse(
    `${list.length} numbers for the mean or the deviation`,
    `one for each of ${channels} channels`,
  );
}

function numberOf(value: unknown, fallback: number): number {
  if (value === undefined) return fallback;
  if (typeof value === "number") return value;
  throw refuse(`rescale_factor: ${JSON.stringify(value)}`, "a number");
}

function refuse(got: string, expected: string): TributaryError {
  return new TributaryError(
    "unsupported-processor",
    `preprocessor_config.json: got ${got}, expected ${expected}`,
  );
}
