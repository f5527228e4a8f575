import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { decodeImage } from "../data/images/decode.node.ts";
import { imageSource } from "../data/images/pixels.ts";
import { type ImageProcessor, imageProcessor, processImage } from "../data/images/processor.ts";
import type { DataRecord } from "../data/record.ts";
import { TributaryError } from "../errors.ts";
import { describeModel } from "../models/load.ts";
import type { ImageSize } from "../models/model.ts";
import { localModel } from "./hub.node.ts";

/** Images that are decoded side by side. */
const CONCURRENT = 8;

/** The size of the images that the model of a folder reads; undefined where it reads none. */
export async function imageSizeOf(folder: string): Promise<ImageSize | undefined> {
  const text = await readFile(join(folder, "config.json"), "utf8").catch(() => undefined);
  return text === undefined ? undefined : describeModel(JSON.parse(text)).config.image;
}

/** How the model of a job wants its images, by `preprocessor_config.json` beside its config.json. */
export async function readImageProcessor(model: string): Promise<ImageProcessor> {
  const folder = await localModel(model);
  const image = await imageSizeOf(folder);
  if (image === undefined) {
    throw new TributaryError(
      "unsupported-model",
      `${folder}: the model reads no images; take a vision model, or another task`,
    );
  }
  const text = await readFile(join(folder, "preprocessor_config.json"), "utf8").catch(() => "{}");
  return imageProcessor(image, JSON.parse(text));
}

/**
 * The records with the images in a field as the model reads them; records at other indices are left as they are. A record
 * without an image keeps what it has, and is told of when examples are made.
 */
export async function preparedImages(
  records: readonly DataRecord[],
  indices: Iterable<number>,
  { field, processor }: { readonly field: string; readonly processor: ImageProcessor },
): Promise<DataRecord[]> {
  const prepared = [...records];
  const queue = [...indices].values();
  const work = async (): Promise<void> => {
    for (const i of queue) {
      const record = records[i];
      const source = imageSource(record?.[field]);
      if (record === undefined || source === undefined) continue;
      const pixels = await decodeImage(source, "file" in source ? source.file : `record ${i}, ${field}`);
      prepared[i] = { ...record, [field]: processImage(pixels, processor) };
    }
  };
  await Promise.all(Array.from({ length: CONCURRENT }, work));
  return prepared;
}
