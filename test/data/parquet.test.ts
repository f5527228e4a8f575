import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { describe, expect, it } from "vitest";
import { readParquet } from "../../src/data/parquet/parquet.ts";
import { TributaryError } from "../../src/errors.ts";
import { bytesSource } from "../../src/formats/byte-source.ts";
import { fileSource } from "../../src/formats/files.node.ts";
import { mutations } from "../formats/mutate.ts";

const folder = fileURLToPath(new URL("parquet", import.meta.url));
const names = ["snappy", "zstd-v2", "gzip", "plain", "lz4", "brotli", "delta"];

/** What make.py wrote. */
const expected = Array.from({ length: 300 }, (_, i) => ({
  text: i % 7 === 3 ? null : `row ${i} ä`,
  label: i % 5,
  small: i - 100,
  score: i / 8,
  flag: i % 3 === 0,
  tags: Array.from({ length: i % 4 }, (_, j) => `t${j}`),
  image: { path: `${i}.png` },
}));

describe("readParquet", () => {
  it.each(names)("reads what pyarrow wrote: %s", async (name) => {
    const { rows } = await readParquet(await fileSource(`${folder}/${name}.parquet`), { name });
    expect(rows.length).toBe(300);
    expect(rows).toMatchObject(expected);
    const { image } = rows[9] as { readonly image: { readonly bytes: unknown } };
    expect(image.bytes).toEqual(Uint8Array.of(9, 255, 0));
  });

  it.each(names)("reads or refuses by name what is damaged: %s", async (name) => {
    const sound = new Uint8Array(readFileSync(`${folder}/${name}.parquet`));
    let refused = 0;
    const times = Number(process.env.FUZZ_TIMES ?? 420) / names.length;
    for (const bytes of mutations(sound, { seed: 3, times, last: 6000 })) {
      const start = performance.now();
      const found = await readParquet(bytesSource(bytes), { name }).catch((error: unknown) => error);
      if (found instanceof Error) {
        if (!(found instanceof TributaryError && found.code === "malformed-data")) throw found;
        refused++;
      }
      expect(performance.now() - start).toBeLessThan(5000);
    }
    expect(refused).toBeGreaterThan(times / 4);
  });

  it("refuses a file that says to hold more rows than its bytes can", async () => {
    const sound = new Uint8Array(readFileSync(`${folder}/plain.parquet`));
    const short = sound.subarray(0, sound.length - 1);
    await expect(readParquet(bytesSource(short), { name: "cut.parquet" })).rejects.toThrow(
      /^cut\.parquet: got other last bytes than PAR1, expected a whole Parquet file/,
    );
    await expect(readParquet(bytesSource(new Uint8Array(3)))).rejects.toMatchObject({
      code: "malformed-data",
    });
  });
});
