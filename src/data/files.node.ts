import { createReadStream } from "node:fs";
import { readdir, readFile, stat } from "node:fs/promises";
import { basename, join } from "node:path";
import { createGunzip } from "node:zlib";
import { TributaryError } from "../errors.ts";
import { type ByteSource, bytesSource, readAll } from "../formats/byte-source.ts";
import { fileSource, openFolder } from "../formats/files.node.ts";
import { openGgufOf } from "../formats/gguf/folder.ts";
import { ggufTokenizer } from "../formats/gguf/tokenizer.ts";
import { parseIdx } from "../formats/idx.ts";
import { parseNpy } from "../formats/npy.ts";
import { readNpz } from "../formats/npz.ts";
import type { Tensor } from "../tensor/tensor.ts";
import { arrayRecords, cifarArrays, squareImages } from "./arrays.ts";
import { readCsv } from "./csv.ts";
import { imageExtensions } from "./images/decode.node.ts";
import { readJson } from "./json.ts";
import { readJsonl } from "./jsonl.ts";
import { readParquet } from "./parquet/parquet.ts";
import {
  type DataRecord,
  type Dropped,
  isRecord,
  malformed,
  type ReadOptions,
  type Records,
  type Source,
} from "./record.ts";
import { readText } from "./text.ts";
import { loadTokenizer, type Tokenizer } from "./tokenizer.ts";

type Reader = (path: string, options: ReadOptions) => Promise<Records>;

type TextReader = (source: Source, options: ReadOptions) => Promise<Records>;

const text =
  (read: TextReader): Reader =>
  (path, options) =>
    read(isPacked(path) ? gunzipped(path) : createReadStream(path), options);

const readers: ReadonlyMap<string, Reader> = new Map<string, Reader>([
  ["jsonl", text(readJsonl)],
  ["ndjson", text(readJsonl)],
  ["json", text(readJson)],
  ["csv", text(readCsv)],
  ["tsv", text((source, options) => readCsv(source, { ...options, delimiter: "\t" }))],
  ["txt", text(readText)],
  ["md", text(readText)],
  ["parquet", async (path, options) => readParquet(await sourceOf(path), options)],
  ["npz", async (path) => arrayRecords(await readNpz(await sourceOf(path), path), path)],
  [
    "npy",
    async (path) => arrayRecords(new Map([[stemOf(path), parseNpy(await wholeBytes(path), path)]]), path),
  ],
]);

/** Files that are told by their whole name, and what reads them. */
const named: readonly (readonly [pattern: RegExp, read: Reader])[] = [
  // The MNIST family: images and their labels in two files.
  [
    /[.-]images[.-]idx3[.-]ubyte(?:\.gz)?$/,
    async (path) => {
      const beside = path.replace(/images([.-])idx3/, "labels$1idx1");
      const images = parseIdx(await wholeBytes(path), path);
      const labels = parseIdx(await wholeBytes(await packedOrNot(beside)), beside);
      return arrayRecords(
        inSplit(
          path,
          new Map([
            ["images", images],
            ["labels", labels],
          ]),
        ),
        path,
      );
    },
  ],
  [
    /\.images\.u8(?:\.gz)?$/,
    async (path) => {
      const labels = await wholeBytes(await packedOrNot(path.replace(".images.", ".labels.")));
      return arrayRecords(inSplit(path, squareImages(await wholeBytes(path), labels, path)), path);
    },
  ],
  [
    /(?:^|[\\/])(?:data_batch_\d+|test_batch)\.bin(?:\.gz)?$/,
    async (path) => arrayRecords(inSplit(path, cifarArrays(await wholeBytes(path), path)), path),
  ],
];

const kinds = `${[...readers.keys()].map((e) => `.${e}`).join(", ")} (or with .gz), images in folders named by their class, IDX or CIFAR-10 files`;

/** Most bytes that a packed file may expand to. */
const MAX_EXPANDED = 2 ** 32;

/**
 * Reads a file by its name, or every data file of a folder and its subfolders in the order of their names; a folder of
 * images gives a row with `image` and `label`, its folder's name, for each. Links are not followed. Each row of a folder of
 * plain text has its path below that folder as `file`.
 */
export async function readRecords(path: string, options: ReadOptions = {}): Promise<Records> {
  const found = await stat(path).catch((cause: unknown) => {
    throw new TributaryError("missing-file", `${path}: no such file or folder; give the path of the data`, {
      cause,
    });
  });
  if (!found.isDirectory()) return readFileRecords(path, { name: path, ...options });
  const rows: DataRecord[] = [];
  const dropped: Dropped[] = [];
  const files = await filesBelow(path, (name) => readerOf(name) !== undefined);
  if (files.length === 0) {
    const images = imageRows(path, await filesBelow(path, isImageName));
    if (images.length > 0) return { rows: images, dropped };
    throw new TributaryError("missing-file", `${path}: holds no file ending in ${kinds}`);
  }
  for (const file of files) {
    const name = join(path, file);
    const read = await readFileRecords(name, { ...options, name });
    for (const row of read.rows) rows.push(row.file === name ? { ...row, file } : row);
    for (const { index, reason } of read.dropped) dropped.push({ index, reason: `${file}: ${reason}` });
  }
  return { rows, dropped };
}

/** Whether a folder holds data that `readRecords` reads. */
export async function holdsRecords(folder: string): Promise<boolean> {
  const files = await filesBelow(folder, (name) => readerOf(name) !== undefined || isImageName(name));
  return files.length > 0;
}

/** `class/image`, or `train/class/image` and so on for other parts. */
function imageRows(folder: string, files: readonly string[]): DataRecord[] {
  const parts = /^(?:train|training|valid|validation|val|test|testing)$/i;
  return files.flatMap((file) => {
    const above = file.split("/").slice(0, -1);
    const label = above.at(-1);
    const split = above
      .slice(0, -1)
      .find((name) => parts.test(name))
      ?.toLowerCase();
    if (label === undefined || parts.test(label)) return [];
    const row = { image: { file: join(folder, file) }, label, file };
    return [split === undefined ? row : { ...row, split: split.replace(/ing$/, "") }];
  });
}

/**
 * Loads the tokenizer of a folder in Hugging Face layout: `tokenizer.json`, `tokenizer_config.json`,
 * `chat_template.jinja`; or that of a GGUF file.
 */
export async function readTokenizer(folder: string): Promise<Tokenizer> {
  const json = await readOptional(join(folder, "tokenizer.json"));
  if (json === undefined) {
    const gguf = await openGgufOf(await openFolder(folder));
    if (gguf !== undefined) {
      const stored = ggufTokenizer(gguf.metadata, gguf.file);
      return loadTokenizer(stored.json, stored.config);
    }
    throw new TributaryError(
      "missing-file",
      `${folder}: has no tokenizer.json; save the tokenizer in the fast format beside the model`,
    );
  }
  const config = parsed(
    join(folder, "tokenizer_config.json"),
    (await readOptional(join(folder, "tokenizer_config.json"))) ?? "{}",
  );
  const template = await readOptional(join(folder, "chat_template.jinja"));
  return loadTokenizer(
    parsed(join(folder, "tokenizer.json"), json),
    template === undefined ? config : { ...config, chat_template: template },
  );
}

function readFileRecords(path: string, options: ReadOptions): Promise<Records> {
  const reader = readerOf(path);
  if (reader === undefined) {
    throw new TributaryError(
      "malformed-data",
      `${path}: unknown kind of data, expected a name ending in ${kinds}`,
    );
  }
  return reader(path, options);
}

function readerOf(path: string): Reader | undefined {
  const byName = named.find(([pattern]) => pattern.test(path))?.[1];
  if (byName !== undefined) return byName;
  const extension = /\.([a-z]+)(?:\.gz)?$/i.exec(path)?.[1];
  return extension === undefined ? undefined : readers.get(extension.toLowerCase());
}

function isImageName(name: string): boolean {
  return imageExtensions.some((extension) => name.toLowerCase().endsWith(`.${extension}`));
}

function isPacked(path: string): boolean {
  return path.endsWith(".gz");
}

function stemOf(path: string): string {
  return basename(path).replace(/\..*$/, "");
}

/** A file by ranges; a packed one is expanded first. */
async function sourceOf(path: string): Promise<ByteSource> {
  return isPacked(path) ? bytesSource(await wholeBytes(path)) : fileSource(path);
}

async function wholeBytes(path: string): Promise<Uint8Array> {
  if (!isPacked(path)) return readAll(await fileSource(path));
  const chunks: Uint8Array[] = [];
  let length = 0;
  for await (const chunk of gunzipped(path)) {
    length += chunk.length;
    if (length > MAX_EXPANDED)
      throw malformed(
        path,
        undefined,
        `more than ${MAX_EXPANDED} bytes once expanded`,
        "fewer; expand and split it",
      );
    chunks.push(chunk);
  }
  const whole = Buffer.concat(chunks);
  return new Uint8Array(whole.buffer, whole.byteOffset, whole.length);
}

/** The file of a name, or the packed or unpacked one of that name. */
async function packedOrNot(path: string): Promise<string> {
  const plain = path.replace(/\.gz$/, "");
  for (const name of [path, plain, `${plain}.gz`])
    if ((await stat(name).catch(() => undefined))?.isFile()) return name;
  throw new TributaryError(
    "missing-file",
    `${plain}: the labels of the images beside it are not there; fetch them too`,
  );
}

/** Arrays under the name of the part that the name of their file begins with. */
function inSplit(path: string, arrays: ReadonlyMap<string, Tensor>): ReadonlyMap<string, Tensor> {
  const name = basename(path);
  const split = /^(?:train|data_batch)/.test(name)
    ? "train"
    : /^(?:test|t10k)/.test(name)
      ? "test"
      : undefined;
  return split === undefined
    ? arrays
    : new Map([...arrays].map(([key, array]) => [`${split}_${key}`, array]));
}

async function* gunzipped(path: string): AsyncIterable<Uint8Array> {
  const file = createReadStream(path);
  const gunzip = createGunzip();
  file.on("error", (cause) => gunzip.destroy(cause));
  try {
    yield* file.pipe(gunzip);
  } catch (cause) {
    throw malformed(
      path,
      undefined,
      "bytes that gzip cannot expand",
      "a whole gzip file; fetch it again",
      cause,
    );
  } finally {
    file.destroy();
  }
}

async function filesBelow(
  folder: string,
  isWanted: (name: string) => boolean,
  below = "",
): Promise<string[]> {
  const entries = await readdir(join(folder, below), { withFileTypes: true });
  const files: string[] = [];
  for (const entry of entries.sort((a, b) => (a.name < b.name ? -1 : 1))) {
    const path = below === "" ? entry.name : `${below}/${entry.name}`;
    if (entry.isDirectory()) files.push(...(await filesBelow(folder, isWanted, path)));
    else if (entry.isFile() && isWanted(entry.name)) files.push(path);
  }
  return files;
}

async function readOptional(path: string): Promise<string | undefined> {
  try {
    return await readFile(path, "utf8");
  } catch (cause) {
    const code = cause instanceof Error && "code" in cause ? cause.code : undefined;
    if (code === "ENOENT" || code === "ENOTDIR") return undefined;
    throw cause;
  }
}

function parsed(path: string, text: string): DataRecord {
  try {
    const value: unknown = JSON.parse(text);
    if (isRecord(value)) return value;
  } catch (cause) {
    throw malformed(path, undefined, "text that is not JSON", "an object; fetch the file again", cause);
  }
  throw malformed(path, undefined, "JSON that is no object", "an object; fetch the file again");
}
