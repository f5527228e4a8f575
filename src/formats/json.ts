import { TributaryError } from "../errors.ts";

/** A JSON value whose objects have passed the check for duplicate keys. */
export type Json = null | boolean | number | string | readonly Json[] | { readonly [key: string]: Json };

export type JsonObject = { readonly [key: string]: Json };

/** Decodes UTF-8 and parses JSON, refusing bad UTF-8 and objects with duplicate keys, which JSON.parse would hide. */
export function parseJson(bytes: Uint8Array, file: string): Json {
  let text: string;
  let value: Json;
  try {
    text = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes);
    value = JSON.parse(text);
  } catch (cause) {
    const reason = cause instanceof Error ? cause.message : String(cause);
    throw new TributaryError("json-invalid", `${file}: not valid JSON: ${reason}`, { cause });
  }
  const duplicate = duplicateKey(text);
  if (duplicate !== undefined) {
    throw new TributaryError(
      "json-duplicate-key",
      `${file}: the key ${quote(duplicate)} appears twice in one object`,
    );
  }
  return value;
}

/** As parseJson, and refuses what is not an object. */
export function parseJsonObject(bytes: Uint8Array, file: string): JsonObject {
  const value = parseJson(bytes, file);
  if (!isObject(value)) throw new TributaryError("json-invalid", `${file}: expected a JSON object`);
  return value;
}

/** Whether a JSON value is an object, not an array. */
export function isObject(value: Json | undefined): value is JsonObject {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

/** Text from a file for a message: quoted, escaped, at most 80 characters. */
export function quote(text: string): string {
  return JSON.stringify(text.length > 80 ? `${text.slice(0, 80)}…` : text);
}

/** The first key that stands twice in one object of a valid JSON text. */
function duplicateKey(text: string): string | undefined {
  const keys: (Set<string> | undefined)[] = []; // per open bracket; undefined for an array
  let expectKey = false;
  for (let i = 0; i < text.length; i++) {
    const character = text[i];
    if (character === "{") {
      keys.push(new Set());
      expectKey = true;
    } else if (character === "[") {
      keys.push(undefined);
      expectKey = false;
    } else if (character === "}" || character === "]") {
      keys.pop();
      expectKey = false;
    } else if (character === ",") {
      expectKey = keys.at(-1) !== undefined;
    } else if (character === '"') {
      const start = i++;
      while (text[i] !== '"') i += text[i] === "\\" ? 2 : 1;
      if (!expectKey) continue;
      const key: string = JSON.parse(text.slice(start, i + 1)); // escapes may spell one key in two ways
      if (keys.at(-1)?.has(key)) return key;
      keys.at(-1)?.add(key);
      expectKey = false;
    }
  }
  return undefined;
}
