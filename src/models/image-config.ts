import { patchGrid, type Size } from "../nn/patches.ts";
import type { ConfigReader } from "./config.ts";
import type { ImageSize } from "./model.ts";

/** How a model cuts its images. */
export interface PatchConfig {
  readonly image: ImageSize;
  readonly patch: Size;
  /** Patches of an image. */
  readonly patches: number;
}

/** Reads `image_size`, `patch_size` and `num_channels`; sizes are numbers, or [height, width]. */
export function readPatches(read: ConfigReader): PatchConfig {
  const [height, width] = readSize(read, "image_size", 224);
  const patch = readSize(read, "patch_size", 16);
  const [rows, columns] = patchGrid([height, width], patch);
  if (rows * columns < 1) read.refuse("patch_size", `at most image_size ([${height}, ${width}])`);
  const image = { channels: read.number("num_channels", 3), height, width };
  return { image, patch, patches: rows * columns };
}

function readSize(read: ConfigReader, key: string, otherwise: number): Size {
  if (!read.isList(key)) {
    const side = read.number(key, otherwise);
    return [side, side];
  }
  const [height = 1, width = 1, ...more] = read.numbers(key) ?? [];
  if (more.length > 0) read.refuse(key, "a number, or [height, width]");
  return [height, width];
}
