import { TributaryError } from "../errors.ts";
import { type Params, sortedNames } from "../tensor/params.ts";
import type { Tensor } from "../tensor/tensor.ts";
import type { StateTree } from "./strategy.ts";

/** A JSON value. */
export type Json = null | boolean | number | string | readonly Json[] | { readonly [key: string]: Json };

/** A state tree as a safetensors file and a JSON document hold it. */
export interface PackedState {
  /** Every tensor of the tree, named `<index of its set>/<name>`. */
  readonly params: Params;
  /** The tree, with `{ $params: index, names }` where a set of tensors was and `{ $number: text }` for NaN, ±Infinity and -0. */
  readonly json: Json;
}

/** Takes a state apart into tensors and JSON; `unpackState` is its inverse. */
export function packState(tree: StateTree): PackedState {
  const params = new Map<string, Tensor>();
  let sets = 0;
  const pack = (node: StateTree): Json => {
    if (typeof node === "number")
      return finite(node) ? node : { $number: Object.is(node, -0) ? "-0" : String(node) };
    if (node === null || typeof node !== "object") return node;
    if (isParams(node)) {
      const index = sets++;
      for (const [name, tensor] of node) params.set(`${index}/${name}`, tensor);
      // The order of a set says nothing: sets from memory and from the store must pack alike.
      return { $params: index, names: sortedNames(node) };
    }
    if (isList(node)) return node.map(pack);
    // As sets, objects pack alike whatever the order of their keys.
    const entries = Object.entries(node).sort(([a], [b]) => (a < b ? -1 : 1));
    const reserved = entries.find(([key]) => key.startsWith("$"));
    if (reserved) throw new TypeError(`packState: the key "${reserved[0]}" is reserved, use one without "$"`);
    return Object.fromEntries(entries.map(([key, child]) => [key, pack(child)]));
  };
  return { json: pack(tree), params };
}

/** The state that `packState` took apart. Throws TributaryError (code `state-damaged`) where a tensor is missing. */
export function unpackState({ params, json }: PackedState): StateTree {
  const unpack = (node: Json): StateTree => {
    if (node === null || typeof node !== "object") return node;
    if (isList(node)) return node.map(unpack);
    const { $params: index, $number: text, names } = node;
    if (typeof text === "string") return Number(text);
    if (typeof index === "number" && Array.isArray(names)) {
      return new Map(names.map((name: Json) => [String(name), tensorOf(params, `${index}/${String(name)}`)]));
    }
    return Object.fromEntries(Object.entries(node).map(([key, child]) => [key, unpack(child)]));
  };
  return unpack(json);
}

function tensorOf(params: Params, name: string): Tensor {
  const tensor = params.get(name);
  if (!tensor)
    throw new TributaryError(
      "state-damaged",
      `unpackState: the state names the tensor ${name}, the file has none`,
    );
  return tensor;
}

function finite(x: number): boolean {
  return Number.isFinite(x) && !Object.is(x, -0);
}

function isParams(node: object): node is Params {
  return node instanceof Map;
}

function isList<T>(node: readonly T[] | object): node is readonly T[] {
  return Array.isArray(node);
}
