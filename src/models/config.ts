import { TributaryError } from "../errors.ts";
import { gelu, quickGelu, relu, silu } from "../graph/ops.ts";
import type { Value } from "../graph/value.ts";

type Json = Readonly<Record<string, unknown>>;

/** Reads typed values from a config.json and collects what is wrong, so that all of it is reported at once. */
export interface ConfigReader {
  /** A number; without a default the key is required. null counts as absent. */
  number(key: string, otherwise?: number): number;
  /** A number, or undefined where the key is null; `otherwise` where it is absent. */
  nullable(key: string, otherwise?: number): number | undefined;
  boolean(key: string, otherwise: boolean): boolean;
  string(key: string, otherwise: string): string;
  /** A list of numbers; undefined where the key is absent or null. */
  numbers(key: string): readonly number[] | undefined;
  /** A list of the strings allowed; undefined where the key is absent or null. */
  strings(key: string, ...allowed: readonly string[]): readonly string[] | undefined;
  /** A nested object; undefined where the key is absent or null. */
  object(key: string): ConfigReader | undefined;
  has(key: string): boolean;
  isList(key: string): boolean;
  /** Reports the value of a key that this project does not support. */
  refuse(key: string, expected: string): void;
  /** Refuses any value other than those listed, where the key is present. */
  only(key: string, ...allowed: readonly unknown[]): void;
  /** Throws TributaryError `unsupported-model` with every problem found. */
  finish(): void;
}

/** A reader of the configuration of one family. */
export function configReader(family: string, json: Json, path = "", problems: string[] = []): ConfigReader {
  const present = (key: string): boolean =>
    Object.hasOwn(json, key) && json[key] !== null && json[key] !== undefined;
  const named = (key: string): string => `${path}${key}`;
  const wrong = (key: string, expected: string): void => {
    const got = present(key) ? JSON.stringify(json[key]) : "nothing";
    problems.push(`${named(key)}: got ${got}, expected ${expected}`);
  };
  return {
    has: present,
    isList: (key) => Array.isArray(json[key]),
    refuse: wrong,
    number(key, otherwise) {
      const value = present(key) ? json[key] : otherwise;
      if (typeof value === "number" && Number.isFinite(value)) return value;
      wrong(key, "a number");
      return 1;
    },
    nullable(key, otherwise) {
      if (!Object.hasOwn(json, key)) return otherwise;
      return json[key] === null ? undefined : this.number(key);
    },
    numbers(key) {
      if (!present(key)) return undefined;
      const value = json[key];
      if (Array.isArray(value) && value.every((one) => typeof one === "number")) return value;
      wrong(key, "a list of numbers");
      return undefined;
    },
    strings(key, ...allowed) {
      if (!present(key)) return undefined;
      const value = json[key];
      if (Array.isArray(value) && value.every((one) => allowed.includes(one))) return value;
      wrong(key, `a list of ${allowed.map((one) => JSON.stringify(one)).join(" or ")}`);
      return undefined;
    },
    boolean(key, otherwise) {
      const value = present(key) ? json[key] : otherwise;
      if (typeof value === "boolean") return value;
      wrong(key, "true or false");
      return otherwise;
    },
    string(key, otherwise) {
      const value = present(key) ? json[key] : otherwise;
      if (typeof value === "string") return value;
      wrong(key, "a string");
      return otherwise;
    },
    object(key) {
      if (!present(key)) return undefined;
      const value = json[key];
      if (isObject(value)) return configReader(family, value, `${named(key)}.`, problems);
      wrong(key, "an object");
      return undefined;
    },
    only(key, ...allowed) {
      if (present(key) && !allowed.includes(json[key]))
        wrong(key, allowed.map((value) => JSON.stringify(value)).join(" or "));
    },
    finish() {
      if (problems.length === 0) return;
      throw new TributaryError(
        "unsupported-model",
        `${family}: config.json asks for what is not supported:\n${problems.map((line) => `  ${line}`).join("\n")}`,
      );
    },
  };
}

/** Whether a value is a plain object. */
export function isObject(value: unknown): value is Json {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

/** Refuses a quantized checkpoint and an unknown activation, which no family supports. */
export function refuseForeign(read: ConfigReader, activationKey = "hidden_act"): void {
  read.only(activationKey, ...activationNames);
  if (read.has("quantization_config")) read.refuse("quantization_config", "no quantization");
}

/** Number of labels: `num_labels`, else the entries of `id2label`, else 2 as in Transformers. */
export function numLabels(json: Json): number {
  if (typeof json.num_labels === "number") return json.num_labels;
  return isObject(json.id2label) ? Object.keys(json.id2label).length : 2;
}

const activations: Readonly<Record<string, (x: Value) => Value>> = {
  silu,
  swish: silu,
  relu: (x) => relu(x),
  gelu: (x) => gelu(x),
  gelu_python: (x) => gelu(x),
  gelu_fast: (x) => gelu(x, "tanh"),
  gelu_new: (x) => gelu(x, "tanh"),
  gelu_pytorch_tanh: (x) => gelu(x, "tanh"),
  quick_gelu: (x) => quickGelu(x, 1.702),
};

/** Names that an activation may have in config.json. */
const activationNames: readonly string[] = Object.keys(activations);

/** The activation of a `hidden_act`. */
export function activation(name: string): (x: Value) => Value {
  const found = activations[name];
  if (!found)
    throw new RangeError(`activation: got "${name}", expected one of ${activationNames.join(", ")}`);
  return found;
}
