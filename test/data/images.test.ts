import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { describe, expect, it } from "vitest";
import { decodeImage } from "../../src/data/images/decode.node.ts";
import { centerCrop, imageSource, type Pixels, withChannels } from "../../src/data/images/pixels.ts";
import {
  imageProcessor,
  plainProcessorConfig,
  processImage,
  writeValues,
} from "../../src/data/images/processor.ts";
import { type Resample, resize } from "../../src/data/images/resize.ts";

const folder = fileURLToPath(new URL("images", import.meta.url));
interface Case {
  readonly resample: Resample;
  readonly height: number;
  readonly width: number;
  readonly data: readonly number[];
}
const pillow: { readonly gray: readonly number[]; readonly cases: readonly Case[] } = JSON.parse(
  readFileSync(`${folder}/pillow.json`, "utf8"),
);

/** What make.py wrote. */
const color: Pixels = {
  height: 9,
  width: 7,
  channels: 3,
  data: Uint8Array.from({ length: 189 }, (_, i) => (i * 37 + ((i * i) % 91)) % 256),
};

describe("resize", () => {
  it.each(pillow.cases)(
    "is Pillow's byte for byte: $resample to $height x $width",
    ({ resample, height, width, data }) => {
      expect(Array.from(resize(color, height, width, resample).data)).toEqual(data);
    },
  );
});

describe("channels", () => {
  it("become gray as Pillow weighs colours, and gray becomes colours by repetition", () => {
    const gray = withChannels(color, 1);
    expect(Array.from(gray.data)).toEqual(pillow.gray);
    expect(Array.from(withChannels(gray, 3).data.subarray(0, 6))).toEqual(
      [0, 0, 0, 1, 1, 1].map((i) => pillow.gray[i]),
    );
    expect(() => withChannels({ ...color, channels: 2 }, 3)).toThrow(/2 channels cannot become 3/);
  });
});

describe("centerCrop", () => {
  it("takes the middle, and zeros where there is none", () => {
    const image = { height: 3, width: 3, channels: 1, data: Uint8Array.of(1, 2, 3, 4, 5, 6, 7, 8, 9) };
    expect(centerCrop(image, 1, 3).data).toEqual(Uint8Array.of(4, 5, 6));
    expect(centerCrop(image, 1, 5).data).toEqual(Uint8Array.of(0, 4, 5, 6, 0));
  });
});

describe("decodeImage", () => {
  it.each([
    ["folder/train/cat/color.png", color],
    ["alpha.png", color],
    ["folder/test/dog/gray.png", { ...color, channels: 1, data: color.data.filter((_, i) => i % 3 === 0) }],
  ])("reads %s", async (name, expected) => {
    expect(await decodeImage({ file: `${folder}/${name}` })).toEqual(expected);
  });

  it("reads colours of a palette", async () => {
    const { channels, data } = await decodeImage({ file: `${folder}/palette.png` });
    expect([channels, ...data.subarray(0, 6)]).toEqual([3, 0, 255, 7, 1, 254, 7]);
  });

  it("refuses what is no image, damaged or a program", async () => {
    const png = new Uint8Array(readFileSync(`${folder}/alpha.png`));
    const svg = new TextEncoder().encode("<svg xmlns='http://www.w3.org/2000/svg'/>");
    for (const bytes of [svg, png.subarray(0, 60), new Uint8Array(0)])
      await expect(decodeImage({ bytes }, "photo")).rejects.toMatchObject({ code: "malformed-data" });
  });
});

describe("imageSource", () => {
  it("knows pixels, bytes of a file and a place, and nothing else", () => {
    expect(imageSource(color)).toEqual(color);
    expect(imageSource({ bytes: Uint8Array.of(1), path: "1.png" })).toEqual({ bytes: Uint8Array.of(1) });
    expect(imageSource({ file: "/1.png" })).toEqual({ file: "/1.png" });
    for (const other of [undefined, "1.png", { path: "/etc/hosts", bytes: null }, { ...color, width: 8 }])
      expect(imageSource(other)).toBeUndefined();
  });
});

describe("imageProcessor", () => {
  const image = { channels: 3, height: 4, width: 5 };

  it("resizes, scales and normalises each channel as the file says", () => {
    const processor = imageProcessor(image, {
      do_resize: true,
      size: { height: 4, width: 5 },
      resample: 3,
      do_rescale: true,
      rescale_factor: 1 / 255,
      do_normalize: true,
      image_mean: [0.5, 0.4, 0.3],
      image_std: [0.5, 0.25, 0.2],
    });
    const values = new Float32Array(60);
    writeValues(processImage(color, processor), values, 0);
    const reference =
      pillow.cases.find(({ resample, height }) => resample === "bicubic" && height === 4)?.data ?? [];
    for (let c = 0; c < 3; c++)
      for (let i = 0; i < 20; i++) {
        const [mean = 0, std = 1] =
          [
            [0.5, 0.5],
            [0.4, 0.25],
            [0.3, 0.2],
          ][c] ?? [];
        expect(values[20 * c + i]).toBeCloseTo(((reference[3 * i + c] ?? 0) / 255 - mean) / std, 5);
      }
  });

  it("of the file that says what is done without one does the same", () => {
    for (const size of [image, { channels: 1, height: 7, width: 3 }])
      expect(imageProcessor(size, plainProcessorConfig(size))).toEqual(imageProcessor(size));
  });

  it("without a file scales to -1 to 1", () => {
    const gray = { height: 4, width: 5, channels: 1, data: new Uint8Array(20).fill(255) };
    const values = new Float32Array(60);
    writeValues(processImage(gray, imageProcessor(image)), values, 0);
    expect(new Set(values)).toEqual(new Set([1]));
  });

  it("cuts the centre out after resizing the shorter side", () => {
    const processor = imageProcessor(
      { channels: 1, height: 2, width: 2 },
      {
        size: { shortest_edge: 2 },
        do_center_crop: true,
        crop_size: 2,
        resample: 0,
        do_rescale: false,
        do_normalize: false,
      },
    );
    const wide = { height: 2, width: 4, channels: 1, data: Uint8Array.of(1, 2, 3, 4, 5, 6, 7, 8) };
    expect(processImage(wide, processor).pixels).toEqual(Uint8Array.of(2, 3, 6, 7));
  });

  it.each([
    [{ do_pad: true }, /do_pad: true/],
    [{ size: 384 }, /images of 384 x 384, expected the 4 x 5 of config\.json/],
    [{ size: { shortest_edge: 4 } }, /a shorter side of 4/],
    [{ image_mean: [0.5, 0.5] }, /2 numbers .* each of 3 channels/],
    [{ resample: 9 }, /resample: 9/],
  ])("refuses what it does not do: %j", (config, message) => {
    expect(() => imageProcessor(image, config)).toThrow(message);
  });
});
