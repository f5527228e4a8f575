import { readFile } from "node:fs/promises";
import { TributaryError } from "../../errors.ts";
import type { ImageSource, Pixels } from "./pixels.ts";

/** File name endings of images that are decoded. */
export const imageExtensions: readonly string[] = ["png", "jpg", "jpeg", "webp", "gif", "tif", "tiff"];

/** First bytes of the formats that are decoded: others, such as SVG, are programs of their own. */
const signatures: readonly (readonly number[])[] = [
  [0x89, 0x50, 0x4e, 0x47],
  [0xff, 0xd8, 0xff],
  [0x52, 0x49, 0x46, 0x46],
  [0x47, 0x49, 0x46, 0x38],
  [0x49, 0x49, 0x2a, 0x00],
  [0x4d, 0x4d, 0x00, 0x2a],
];

/** 64 megapixels: beyond it an image is refused before it is decoded. */
const MAX_PIXELS = 2 ** 26;

/** The pixels of an image, decoded by the optional package sharp where they are packed; gray or red, green, blue. */
export async function decodeImage(source: ImageSource, name = "image"): Promise<Pixels> {
  if ("data" in source) return source;
  const bytes = "bytes" in source ? source.bytes : await readFile(source.file);
  if (!signatures.some((signature) => signature.every((byte, i) => bytes[i] === byte)))
    throw malformed(name, "bytes of no known format");
  const { default: sharp } = await import("sharp").catch((cause: unknown) => {
    throw new TributaryError(
      "missing-package",
      `${name}: decoding needs the package sharp, which is not installed; run npm install sharp`,
      { cause },
    );
  });
  try {
    const image = sharp(bytes, { limitInputPixels: MAX_PIXELS, failOn: "error" });
    const { space } = await image.metadata();
    const plain = image.removeAlpha().toColourspace(space === "b-w" ? "b-w" : "srgb");
    const { data, info } = await plain.raw({ depth: "uchar" }).toBuffer({ resolveWithObject: true });
    return { height: info.height, width: info.width, channels: info.channels, data: new Uint8Array(data) };
  } catch (cause) {
    throw malformed(name, "a damaged image, or one of too many pixels", cause);
  }
}

function malformed(name: string, got: string, cause?: unknown): TributaryError {
  return new TributaryError(
    "malformed-data",
    `${name}: got ${got}, expected a sound image (${imageExtensions.join(", ")}) of at most ${MAX_PIXELS} pixels`,
    cause === undefined ? {} : { cause },
  );
}
