import { createReadStream } from "node:fs";
import { readdir, readFile, stat } from "node:fs/promises";
import { join } from "node:path";
import { createGunzip } from "node:zlib";
import { TributaryError } from "../errors.ts";
import { readCsv } from "./csv.ts";
import { readJson } from "./json.ts";
import { readJsonl } from "./jsonl.ts";
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

type Reader = (source: Source, options: ReadOptions) => Promise<Records>;

const readers: ReadonlyMap<string, Reader> = new Map<string, Reader>([
  ["jsonl", readJsonl],
  ["ndjson", readJsonl],
  ["json", readJson],
  ["csv", readCsv],
  ["tsv", (source, options) => readCsv(source, { ...options, delimiter: "\t" })],
  ["txt", readText],
  ["md", readText],
]);

/** The file name endings that `readRecords` knows, each also followed by `.gz`. */
export const extensions: readonly string[] = [...readers.keys()];

/**
 * Reads a file by its extension, or every such file of a folder and its subfolders in the order of their names. Links are
 * not followed. Each row of a folder of plain text has its path below that folder as `file`.
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
  const files = await filesBelow(path);
  if (files.length === 0) {
    throw new TributaryError(
      "missing-file",
      `${path}: holds no file ending in ${extensions.map((e) => `.${e}`).join(", ")} (or with .gz)`,
    );
  }
  for (const file of files) {
    const name = join(path, file);
    const read = await readFileRecords(name, { ...options, name });
    for (const row of read.rows) rows.push(row.file === name ? { ...row, file } : row);
    for (const { index, reason } of read.dropped) dropped.push({ index, reason: `${file}: ${reason}` });
  }
  return { rows, dropped };
}

/** Loads the tokenizer of a folder in Hugging Face layout: `tokenizer.json`, `tokenizer_config.json`, `chat_template.jinja`. */
export async function readTokenizer(folder: string): Promise<Tokenizer> {
  const json = await readOptional(join(folder, "tokenizer.json"));
  if (json === undefined) {
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
    const known = extensions.map((e) => `.${e}`).join(", ");
    throw new TributaryError(
      "malformed-data",
      `${path}: unknown kind of data, expected a name ending in ${known}, or one of these and .gz`,
    );
  }
  return reader(path.endsWith(".gz") ? gunzipped(path) : createReadStream(path), options);
}

function readerOf(path: string): Reader | undefined {
  const extension = /\.([a-z]+)(?:\.gz)?$/i.exec(path)?.[1];
  return extension === undefined ? undefined : readers.get(extension.toLowerCase());
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

async function filesBelow(folder: string, below = ""): Promise<string[]> {
  const entries = await readdir(join(folder, below), { withFileTypes: true });
  const files: string[] = [];
  for (const entry of entries.sort((a, b) => (a.name < b.name ? -1 : 1))) {
    const path = below === "" ? entry.name : `${below}/${entry.name}`;
    if (entry.isDirectory()) files.push(...(await filesBelow(folder, path)));
    else if (entry.isFile() && readerOf(entry.name) !== undefined) files.push(path);
  }
  return files;
}

async function readOptional(path: string): Promise<string | undefined> {
  try {
    return await readFile(path, "utf8");
  } catch (cause) {
    if (cause instanceof Error && "code" in cause && cause.code === "ENOENT") return undefined;
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
