import { existsSync } from "node:fs";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { openFolder } from "../../src/formats/files.node.ts";
import { type Gguf, isGgufName, openGguf } from "../../src/formats/gguf/gguf.ts";
import { parseSafetensors } from "../../src/formats/safetensors.ts";
import { type BlockType, blockFormats, decodeBlocks, encodeBlocks } from "../../src/tensor/quant/blocks.ts";
import type { Tensor } from "../../src/tensor/tensor.ts";
import type { ParityLine } from "./line.ts";

/** Types whose encoding is one definite rule; others leave the choice of scales to whoever encodes. */
const exactEncoders: ReadonlySet<string> = new Set(["F16", "BF16", "Q4_0", "Q4_1", "Q8_0"]);

/**
 * Compares the block formats of `quant/` with the recorded bytes and values: decoding and encoding bit for bit, and the
 * tensors of the GGUF files there with the same blocks.
 */
export async function* quantCases(dir: string): AsyncIterable<ParityLine> {
  const folder = join(dir, "quant");
  if (!existsSync(join(folder, "blocks.safetensors"))) return;
  const { params } = parseSafetensors(await readFile(join(folder, "blocks.safetensors")));
  const types = [...params.keys()].flatMap((name) => /^(.+)\.blocks$/.exec(name)?.[1] ?? []);
  const files: Gguf[] = [];
  for (const [name, source] of await openFolder(folder)) {
    if (isGgufName(name)) files.push(await openGguf(source, name));
  }
  for (const type of types) {
    const name = `quant/${type}`;
    const blocks = params.get(`${type}.blocks`);
    const values = params.get(`${type}.values`);
    if (!isType(type) || blocks === undefined) {
      const note = `${type} is not one of ${Object.keys(blockFormats).join(" ")}`;
      yield { name, what: "all", maxAbs: 0, maxRel: 0, tolerance: 0, verdict: "unsupported", note };
      continue;
    }
    const bytes = bytesOf(blocks);
    if (values !== undefined) yield compared(name, "decoded", decodeBlocks(type, bytes), numbersOf(values));
    const matrix = params.get("matrix");
    if (matrix !== undefined && exactEncoders.has(type)) {
      yield compared(name, "encoded", encodeBlocks(type, numbersOf(matrix)), bytes);
    }
    for (const file of files) {
      const place = file.names.find(
        (each) => file.info(each).type === type && each.toUpperCase().endsWith(`.${type}`),
      );
      if (place === undefined) continue;
      yield compared(name, `blocks in ${file.file}`, await file.blocks(place), bytes);
      const tensor = await file.tensor(place);
      const shape = file.info(place).shape.join() === (values?.shape ?? tensor.shape).join();
      const line = compared(
        name,
        `tensor in ${file.file}`,
        tensor.data,
        values === undefined ? tensor.data : numbersOf(values),
      );
      yield shape ? line : { ...line, verdict: "failed", note: `shape [${tensor.shape}]` };
    }
  }
  for (const file of files) {
    const matrix = params.get("matrix");
    const place = file.names.find((each) => file.info(each).type === "F32");
    if (place === undefined || matrix === undefined) continue;
    const { data } = await file.tensor(place);
    yield compared("quant/F32", `tensor in ${file.file}`, data, numbersOf(matrix).subarray(0, data.length));
  }
}

function isType(name: string): name is BlockType {
  return Object.hasOwn(blockFormats, name);
}

function bytesOf({ data }: Tensor): Uint8Array {
  return new Uint8Array(data.buffer, data.byteOffset, data.byteLength);
}

function numbersOf({ data }: Tensor): Float32Array {
  return Float32Array.from(Array.from<number | bigint, number>(data, Number));
}

/** Every number must be equal. */
function compared(
  name: string,
  what: string,
  got: Float32Array | Uint8Array,
  expected: Float32Array | Uint8Array,
): ParityLine {
  let maxAbs = got.length === expected.length ? 0 : Number.POSITIVE_INFINITY;
  let largest = 0;
  expected.forEach((value, i) => {
    maxAbs = Math.max(maxAbs, Math.abs((got[i] ?? Number.NaN) - value));
    largest = Math.max(largest, Math.abs(value));
  });
  return {
    name,
    what,
    maxAbs,
    maxRel: largest === 0 ? maxAbs : maxAbs / largest,
    tolerance: 0,
    verdict: maxAbs === 0 ? "passed" : "failed",
  };
}
