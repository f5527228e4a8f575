import { TributaryError } from "../../errors.ts";
import type { HostArray } from "../../tensor/dtype.ts";
import { quote } from "../json.ts";

/** Numbers as GGUF stores them, by the id that it gives each type; strings are 8, arrays 9. */
export const numberTypes = {
  uint8: 0,
  int8: 1,
  uint16: 2,
  int16: 3,
  uint32: 4,
  int32: 5,
  float32: 6,
  bool: 7,
  uint64: 10,
  int64: 11,
  float64: 12,
} as const;

export const STRING = 8;
export const ARRAY = 9;

export type NumberType = keyof typeof numberTypes;

/** Elements of one type; numbers lie in a typed array, truth values as 0 and 1. */
export type GgufArray =
  | { readonly type: "array"; readonly of: NumberType; readonly values: HostArray }
  | { readonly type: "array"; readonly of: "string"; readonly values: readonly string[] }
  | { readonly type: "array"; readonly of: "array"; readonly values: readonly GgufArray[] };

/** A value of the metadata. */
export type GgufValue =
  | { readonly type: Exclude<NumberType, "uint64" | "int64" | "bool">; readonly value: number }
  | { readonly type: "uint64" | "int64"; readonly value: bigint }
  | { readonly type: "bool"; readonly value: boolean }
  | { readonly type: "string"; readonly value: string }
  | GgufArray;

export type GgufMetadata = ReadonlyMap<string, GgufValue>;

/** Reads typed values from metadata; each returns undefined where the key is absent and refuses a value of another type. */
export interface MetadataReader {
  readonly file: string;
  number(key: string): number | undefined;
  text(key: string): string | undefined;
  flag(key: string): boolean | undefined;
  texts(key: string): readonly string[] | undefined;
  /** An array of so many numbers. */
  numbers(key: string, count: number): readonly number[] | undefined;
}

export function metadataReader(metadata: GgufMetadata, file: string): MetadataReader {
  const wrong = (key: string, expected: string): TributaryError => {
    const value = metadata.get(key);
    const got =
      value?.type === "array" ? `an array of ${value.values.length} ${value.of}` : `a ${value?.type}`;
    return new TributaryError("gguf-metadata", `${file}: ${quote(key)} is ${got}, expected ${expected}`);
  };
  return {
    file,
    number(key) {
      const value = metadata.get(key);
      if (value === undefined) return undefined;
      if (value.type === "array" || value.type === "string" || value.type === "bool")
        throw wrong(key, "a number");
      return Number(value.value);
    },
    text(key) {
      const value = metadata.get(key);
      if (value === undefined) return undefined;
      if (value.type !== "string") throw wrong(key, "a string");
      return value.value;
    },
    flag(key) {
      const value = metadata.get(key);
      if (value === undefined) return undefined;
      if (value.type !== "bool") throw wrong(key, "a truth value");
      return value.value;
    },
    texts(key) {
      const value = metadata.get(key);
      if (value === undefined) return undefined;
      if (value.type !== "array" || value.of !== "string") throw wrong(key, "an array of strings");
      return value.values;
    },
    numbers(key, count) {
      const value = metadata.get(key);
      if (value === undefined) return undefined;
      if (
        value.type !== "array" ||
        value.of === "string" ||
        value.of === "array" ||
        value.values.length !== count
      )
        throw wrong(key, `an array of ${count} numbers`);
      return Array.from<number | bigint, number>(value.values, Number);
    },
  };
}
