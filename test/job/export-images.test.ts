import { execFile, spawnSync } from "node:child_process";
import { mkdir, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import process from "node:process";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { adaptedScope, adapterBase } from "../../src/adapters/adapter.ts";
import { decodeImage } from "../../src/data/images/decode.node.ts";
import { processImage, writeValues } from "../../src/data/images/processor.ts";
import { openFolder } from "../../src/formats/files.node.ts";
import { writeSafetensors } from "../../src/formats/safetensors.ts";
import { exportMerged } from "../../src/job/export.node.ts";
import { readImageProcessor } from "../../src/job/images.node.ts";
import { loadModel } from "../../src/models/load.ts";
import { modelInputs, taskOutput } from "../../src/models/task.ts";
import { tensor } from "../../src/tensor/tensor.ts";
import { familyJsons, tinyModel } from "../models/tiny.ts";
import { evaluate, farthest } from "../nn/evaluate.ts";

const python = process.env.TRIBUTARY_PYTHON ?? "python3";
const modules = ["PIL", "torch", "transformers"];
const probe = `import importlib.util, sys; sys.exit(not all(importlib.util.find_spec(m) for m in ${JSON.stringify(modules)}))`;
const able = spawnSync(python, ["-c", probe]).status === 0;
const reason = able
  ? ""
  : ` (skipped: ${python} has not ${modules.join(", ")}; TRIBUTARY_PYTHON names another)`;

const pictures = fileURLToPath(new URL("../data/images/folder", import.meta.url));
const color = `${pictures}/train/cat/color.png`;
const gray = `${pictures}/test/dog/gray.png`;
const script = fileURLToPath(new URL("auto_image_processor.py", import.meta.url));
const square = { image_size: 12, patch_size: 4 };
let root = "";
beforeAll(async () => {
  root = await mkdtemp(join(tmpdir(), "export-images-"));
});
afterAll(() => rm(root, { recursive: true }));

/** The folder that an export makes of a random model, with or without a file on its images. */
async function exported(
  name: string,
  json: Readonly<Record<string, unknown>>,
  processor?: object,
): Promise<string> {
  const folder = join(root, name);
  await mkdir(folder);
  await writeFile(join(folder, "config.json"), JSON.stringify(json));
  await writeFile(join(folder, "model.safetensors"), writeSafetensors(tinyModel(json).weights));
  if (processor) await writeFile(join(folder, "preprocessor_config.json"), JSON.stringify(processor));
  const { files } = await exportMerged(folder, join(root, `${name}-exported`));
  expect(files).toContain("preprocessor_config.json");
  return join(root, `${name}-exported`);
}

interface Seen {
  readonly shape: readonly number[];
  readonly values: readonly number[];
  readonly logits: readonly number[];
}

/** What our own reading of a model folder makes of an image. */
async function ours(folder: string, picture: string): Promise<Seen> {
  const processor = await readImageProcessor(folder);
  const input = processImage(await decodeImage({ file: picture }), processor);
  const shape = [1, processor.channels, processor.height, processor.width];
  const pixels = new Float32Array(input.pixels.length);
  writeValues(input, pixels, 0);
  const loaded = await loadModel(await openFolder(folder));
  const inputs = modelInputs(loaded.model, { image: loaded.config.image });
  const { output } = taskOutput(loaded, adaptedScope(adapterBase(loaded), []), inputs);
  const feeds = new Map([...loaded.weights, ["pixel_values", tensor("float32", shape, pixels)] as const]);
  const { logits = [] } = await evaluate({ logits: output }, feeds);
  return { shape, values: Array.from(pixels), logits };
}

/** What Transformers makes of images, each with the model of a folder. */
async function theirs(cases: readonly (readonly [folder: string, picture: string])[]): Promise<Seen[]> {
  const { stdout } = await promisify(execFile)(python, [script, ...cases.flat()]);
  return JSON.parse(stdout);
}

describe("an exported image model", () => {
  it("says how its images are prepared, as its base does", async () => {
    const base = { do_rescale: true, size: { height: 12, width: 12 }, image_mean: [0.1], image_std: [0.7] };
    const folder = await exported("told", { ...familyJsons.vit, ...square }, base);
    expect(JSON.parse(await readFile(join(folder, "preprocessor_config.json"), "utf8"))).toEqual(base);
  });

  it("is read here with the pixels of its base, where that said nothing", async () => {
    const folder = await exported("silent", { ...familyJsons.vit, num_channels: 3 });
    expect((await ours(folder, gray)).values).toEqual((await ours(join(root, "silent"), gray)).values);
  });

  it.skipIf(!able)(
    `has the pixels and logits of Transformers${reason}`,
    async () => {
      const three = { ...square, num_channels: 3 };
      const shape: object = Object(familyJsons.siglip?.vision_config);
      const vision = { ...shape, ...three };
      const cases = [
        ["vit", { num_channels: 3 }, color],
        ["vit", three, gray],
        ["vit", { num_channels: 1 }, gray],
        ["deit", three, color],
        ["siglip", { vision_config: vision }, color],
      ] as const;
      const asked = await Promise.all(
        cases.map(async ([family, changes, picture], i) => {
          const folder = await exported(`${family}-${i}`, { ...familyJsons[family], ...changes });
          return [folder, picture] as const;
        }),
      );
      const there = await theirs(asked);
      for (const [i, [folder, picture]] of asked.entries()) {
        const here = await ours(folder, picture);
        expect(here.shape).toEqual(there[i]?.shape);
        expect(farthest(here.values, there[i]?.values ?? [])).toBeLessThan(1e-6);
        expect(farthest(here.logits, there[i]?.logits ?? [])).toBeLessThan(1e-4);
      }
    },
    240_000,
  );
});
