import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { describe, expect, it } from "vitest";
import { TributaryError } from "../../src/errors.ts";
import { bytesSource } from "../../src/formats/byte-source.ts";
import { fileSource } from "../../src/formats/files.node.ts";
import { parseNpy } from "../../src/formats/npy.ts";
import { readNpz } from "../../src/formats/npz.ts";
import { shared } from "../shared.ts";
import { mutations } from "./mutate.ts";

const folder = fileURLToPath(new URL("numpy", import.meta.url));
const bytesOf = (name: string): Uint8Array => new Uint8Array(readFileSync(`${folder}/${name}`));

describe("readNpz", () => {
  it.each(["stored.npz", "deflated.npz"])("reads what numpy wrote: %s", async (name) => {
    const arrays = await readNpz(await fileSource(`${folder}/${name}`), name);
    expect(arrays.get("train_images")).toEqual({
      dtype: "uint8",
      shape: [3, 4, 5],
      data: Uint8Array.from({ length: 60 }, (_, i) => i),
    });
    expect(arrays.get("train_labels")?.shape).toEqual([3, 1]);
    expect(Array.from(arrays.get("weights")?.data ?? [], Number).at(1)).toBeCloseTo(-2 / 3, 6);
    expect(arrays.get("ids")?.data).toEqual(BigInt64Array.of(-5n, 2n ** 40n));
    expect(arrays.get("half")).toMatchObject({ dtype: "float16", data: Uint16Array.of(0x3800, 0xc000) });
    expect(arrays.get("flags")).toMatchObject({ dtype: "bool", data: Uint8Array.of(1, 0) });
    expect(arrays.get("scalar")).toMatchObject({ shape: [], data: Float64Array.of(2.5) });
  });

  it.each(["stored.npz", "deflated.npz"])("reads or refuses by name what is damaged: %s", async (name) => {
    const times = Number(process.env.FUZZ_TIMES ?? 600) / 2;
    let refused = 0;
    for (const bytes of mutations(bytesOf(name), { seed: 5, times })) {
      const start = performance.now();
      const found = await readNpz(bytesSource(bytes), name).catch((error: unknown) => error);
      if (found instanceof Error) {
        if (!(found instanceof TributaryError && /^(?:npz|npy)-invalid$/.test(found.code))) throw found;
        refused++;
      }
      expect(performance.now() - start).toBeLessThan(5000);
    }
    expect(refused).toBeGreaterThan(times / 4);
  });

  it("refuses a member that says to expand beyond what its bytes can hold, before it makes room", async () => {
    const bytes = bytesOf("deflated.npz");
    const view = new DataView(bytes.buffer);
    const entry = [...bytes.keys()].find(
      (at) => at + 4 <= bytes.length && view.getUint32(at, true) === 0x02014b50,
    );
    view.setUint32((entry ?? 0) + 24, 0xf0000000, true);
    await expect(readNpz(bytesSource(bytes), "bomb.npz")).rejects.toThrow(
      /^bomb\.npz: got "train_images\.npy" of 4026531840/,
    );
  });

  it.skipIf(shared === undefined)("reads the archives of MedMNIST (needs the reference data)", async () => {
    const arrays = await readNpz(await fileSource(`${shared}/data/pneumonia-mnist/pneumoniamnist.npz`));
    const sizes = ["train", "val", "test"].map((part) => arrays.get(`${part}_images`)?.shape);
    expect(sizes).toEqual([
      [3882, 28, 28],
      [524, 28, 28],
      [624, 28, 28],
    ]);
  });
});

describe("parseNpy", () => {
  it.each([
    ["big-endian.npy", /the type ">i4", expected .* little-endian/],
    ["columns-first.npy", /columns first, expected rows first/],
    ["objects.npy", /arrays of objects are pickles/],
  ])("refuses what it does not read: %s", (name, message) => {
    expect(() => parseNpy(bytesOf(name), name)).toThrow(message);
  });
});
