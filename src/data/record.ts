import { TributaryError } from "../errors.ts";

/** One row of a data set: its fields by name, as the file has them. */
export interface DataRecord {
  readonly [field: string]: unknown;
}

/** A sample left out, and why. Samples are never left out without one. */
export interface Dropped {
  /** Line of the file, or index of the record or example, as the maker says. */
  readonly index: number;
  readonly reason: string;
}

/** The rows of a source, in its order. */
export interface Records {
  readonly rows: readonly DataRecord[];
  readonly dropped: readonly Dropped[];
}

/** Bytes or text, whole or as a stream: the seam between readers and files, uploads or responses. */
export type Source = string | Uint8Array | AsyncIterable<string | Uint8Array>;

/** What the readers of all formats take. */
export interface ReadOptions {
  /** The name that errors quote. */
  readonly name?: string;
  /** Leave malformed rows out and list them, instead of refusing the source. */
  readonly dropMalformed?: boolean;
  /** Most characters of the source; more is refused. */
  readonly maxLength?: number;
}

/** Two thousand million characters: beyond it a source is refused unless the caller allows more. */
const defaultMaxLength = 2e9;

/** The text of a source, in the pieces it comes in; UTF-8 that is not well-formed is refused. */
export async function* textOf(
  source: Source,
  { name = "data", maxLength = defaultMaxLength }: ReadOptions = {},
): AsyncIterable<string> {
  const decoder = new TextDecoder("utf-8", { fatal: true });
  const decode = (piece: string | Uint8Array | undefined): string => {
    if (typeof piece === "string") return piece;
    try {
      return piece === undefined ? decoder.decode() : decoder.decode(piece, { stream: true });
    } catch (cause) {
      throw malformed(
        name,
        undefined,
        "bytes that are not UTF-8",
        "UTF-8 text; convert the file, or decompress it",
        cause,
      );
    }
  };
  let length = 0;
  let first = true;
  for await (const piece of pieces(source)) {
    let text = decode(piece);
    if (first && text.length > 0) {
      if (text.startsWith("\ufeff")) text = text.slice(1);
      first = false;
    }
    length += text.length;
    if (length > maxLength) {
      throw malformed(
        name,
        undefined,
        `more than ${maxLength} characters`,
        "fewer; split it, or raise maxLength",
      );
    }
    yield text;
  }
  yield decode(undefined);
}

/** A source as one string. */
export async function wholeText(source: Source, options: ReadOptions = {}): Promise<string> {
  const parts: string[] = [];
  for await (const part of textOf(source, options)) parts.push(part);
  return parts.join("");
}

/** An error about a place in a source; the code is `malformed-data`. */
export function malformed(
  name: string,
  line: number | undefined,
  got: string,
  expected: string,
  cause?: unknown,
): TributaryError {
  const place = line === undefined ? name : `${name}:${line}`;
  return new TributaryError(
    "malformed-data",
    `${place}: got ${got}, expected ${expected}`,
    cause === undefined ? {} : { cause },
  );
}

/** What a value is, in a few words, for errors: no text of the data leaves with them. */
export function kindOf(value: unknown): string {
  if (value === null) return "null";
  if (Array.isArray(value)) return "an array";
  if (value === undefined) return "nothing";
  return typeof value === "object" ? "an object" : `a ${typeof value}`;
}

/** Whether a value is an object with fields. */
export function isRecord(value: unknown): value is DataRecord {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

async function* pieces(source: Source): AsyncIterable<string | Uint8Array> {
  if (typeof source === "string" || source instanceof Uint8Array) yield source;
  else yield* source;
}
