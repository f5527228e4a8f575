import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { gzipSync } from "node:zlib";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { readRecords } from "../../src/data/files.node.ts";
import { shared } from "../shared.ts";

const here = fileURLToPath(new URL(".", import.meta.url));
let folder: string;
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), "tributary-sources-"));
});
afterEach(() => rm(folder, { recursive: true }));

const put = async (name: string, bytes: Uint8Array | string): Promise<string> => {
  await writeFile(join(folder, name), bytes);
  return join(folder, name);
};
const idx = (kind: number, shape: readonly number[], data: readonly number[]): Uint8Array =>
  Uint8Array.from([0, 0, kind, shape.length, ...shape.flatMap((dim) => [0, 0, 0, dim]), ...data]);

describe("readRecords", () => {
  it("reads the rows under data of a JSON object", async () => {
    const path = await put("rows.json", '{"version":"1","data":[{"a":1},{"a":2}]}');
    expect((await readRecords(path)).rows).toEqual([{ a: 1 }, { a: 2 }]);
  });

  it("reads Parquet files, packed ones too", async () => {
    const { rows } = await readRecords(join(here, "parquet", "gzip.parquet"));
    expect(rows.length).toBe(300);
    expect(rows[1]).toMatchObject({ text: "row 1 ä", label: 1 });
  });

  it("reads NumPy archives with the parts that their names tell", async () => {
    const { rows } = await readRecords(join(here, "../formats/numpy/parts.npz"));
    expect(rows.map(({ split, label }) => [split, label])).toEqual([
      ["train", 0],
      ["train", 1],
      ["train", 1],
      ["val", 1],
      ["val", 0],
    ]);
    expect(rows[1]).toMatchObject({
      image: { height: 4, width: 5, channels: 1, data: Uint8Array.from({ length: 20 }, (_, i) => 20 + i) },
    });
    await expect(readRecords(join(here, "../formats/numpy/stored.npz"))).rejects.toThrow(
      /weights with 7, .* expected arrays of one length/,
    );
  });

  it("reads a NumPy file under its own name", async () => {
    const header = "{'descr': '<i2', 'fortran_order': False, 'shape': (2, 3), }".padEnd(117).concat("\n");
    const bytes = Uint8Array.from([
      0x93,
      ...new TextEncoder().encode("NUMPY"),
      1,
      0,
      118,
      0,
      ...new TextEncoder().encode(header),
    ]);
    const path = await put(
      "rows.npy.gz",
      gzipSync(Uint8Array.from([...bytes, 1, 0, 2, 0, 3, 0, 255, 255, 5, 0, 6, 0])),
    );
    expect((await readRecords(path)).rows).toEqual([{ rows: [1, 2, 3] }, { rows: [-1, 5, 6] }]);
  });

  it("reads the files of the MNIST family with the labels beside them", async () => {
    await put("train-images-idx3-ubyte.gz", gzipSync(idx(8, [2, 1, 2], [1, 2, 3, 4])));
    await put("train-labels-idx1-ubyte.gz", gzipSync(idx(8, [2], [7, 9])));
    await put("t10k-images-idx3-ubyte", idx(8, [1, 1, 2], [5, 6]));
    const labels = await put("t10k-labels-idx1-ubyte", idx(8, [1], [3]));
    const { rows } = await readRecords(folder);
    const image = (...data: number[]) => ({ height: 1, width: 2, channels: 1, data: Uint8Array.from(data) });
    expect(rows).toEqual([
      { image: image(5, 6), label: 3, split: "test" },
      { image: image(1, 2), label: 7, split: "train" },
      { image: image(3, 4), label: 9, split: "train" },
    ]);
    await rm(labels);
    await expect(readRecords(folder)).rejects.toThrow(
      /t10k-labels-idx1-ubyte: the labels of the images beside it/,
    );
  });

  it("reads the binary batches of CIFAR-10, colours side by side", async () => {
    const row = new Uint8Array(3073).fill(1, 1, 1025).fill(2, 1025, 2049).fill(3, 2049);
    row[0] = 4;
    await put("data_batch_1.bin", row);
    const { rows } = await readRecords(folder);
    expect(rows).toMatchObject([{ label: 4, split: "train", image: { height: 32, width: 32, channels: 3 } }]);
    const { image } = rows[0] as { readonly image: { readonly data: Uint8Array } };
    expect(Array.from(image.data.subarray(0, 6))).toEqual([1, 2, 3, 1, 2, 3]);
    await put("data_batch_1.bin", row.subarray(1));
    await expect(readRecords(folder)).rejects.toThrow(/3072 bytes, expected rows of 3073/);
  });

  it("reads bare gray images with their labels", async () => {
    await put("training.images.u8.gz", gzipSync(Uint8Array.from({ length: 8 }, (_, i) => i)));
    await put("training.labels.u8", Uint8Array.of(1, 0));
    const { rows } = await readRecords(join(folder, "training.images.u8.gz"));
    expect(rows[1]).toEqual({
      image: { height: 2, width: 2, channels: 1, data: Uint8Array.of(4, 5, 6, 7) },
      label: 0,
      split: "train",
    });
  });

  it("reads images in folders named by their class", async () => {
    const { rows } = await readRecords(join(here, "images", "folder"));
    expect(rows.length).toBe(8);
    expect(rows[0]).toEqual({
      image: { file: join(here, "images", "folder", "test", "cat", "color.png") },
      label: "cat",
      split: "test",
      file: "test/cat/color.png",
    });
  });

  it.skipIf(shared === undefined)("reads the brain images (needs the reference data)", async () => {
    const { rows } = await readRecords(`${shared}/data/brain-mri`);
    expect(rows.length).toBe(2870 + 394);
    expect(rows[0]).toMatchObject({ split: "test", image: { height: 64, width: 64, channels: 1 } });
  });

  it.skipIf(shared === undefined)("reads an archive of MedMNIST (needs the reference data)", async () => {
    const { rows } = await readRecords(`${shared}/data/pneumonia-mnist/pneumoniamnist.npz`);
    const parts = new Map<unknown, number>();
    for (const { split } of rows) parts.set(split, (parts.get(split) ?? 0) + 1);
    expect(Object.fromEntries(parts)).toEqual({ train: 3882, val: 524, test: 624 });
    expect(rows[0]).toMatchObject({
      label: expect.any(Number),
      image: { height: 28, width: 28, channels: 1 },
    });
  });
});
