import { either } from "./problem.ts";

/** A node of a JSON Schema, as far as it is read here. */
export interface SchemaNode {
  readonly type?: string;
  readonly description?: string;
  readonly properties?: Readonly<Record<string, SchemaNode>>;
  readonly required?: readonly string[];
  readonly additionalProperties?: boolean | SchemaNode;
  readonly items?: SchemaNode;
  readonly prefixItems?: readonly SchemaNode[];
  readonly anyOf?: readonly SchemaNode[];
  readonly oneOf?: readonly SchemaNode[];
  readonly enum?: readonly unknown[];
  readonly const?: unknown;
  readonly default?: unknown;
  readonly minimum?: number;
  readonly maximum?: number;
  readonly exclusiveMinimum?: number;
  readonly exclusiveMaximum?: number;
  readonly minItems?: number;
  readonly pattern?: string;
}

/** A step of a path: a key, or an index of a list. */
export type PathKey = string | number;

/** The node itself, or what it lets one choose from. */
export function variants(node: SchemaNode): readonly SchemaNode[] {
  const choices = node.oneOf ?? node.anyOf;
  return choices === undefined ? [node] : choices.flatMap(variants);
}

/**
 * The nodes that a path may lead to in a value: where sections come in kinds, only the kind that the value has, or every
 * kind if it has none of them.
 */
export function nodesAt(root: SchemaNode, path: readonly PathKey[], value: unknown): readonly SchemaNode[] {
  const here = matching(root, value);
  const [key, ...rest] = path;
  if (key === undefined) return here;
  return here.flatMap((node) => {
    const next = child(node, key);
    return next === undefined ? [] : nodesAt(next, rest, memberOf(value, key));
  });
}

/** The keys of the section at a path. */
export function keysAt(root: SchemaNode, path: readonly PathKey[], value: unknown): string[] {
  return [...new Set(nodesAt(root, path, value).flatMap((node) => Object.keys(node.properties ?? {})))];
}

/** What the nodes let one write, in words. */
export function expectation(nodes: readonly SchemaNode[]): string {
  const words = nodes.flatMap(variants).map(inWords);
  const constants = nodes.flatMap(variants).flatMap(constantsOf);
  if (constants.length > 1 && constants.length === words.length) return `one of ${constants.join(", ")}`;
  return either([...new Set(words)]);
}

/** The fixed values that the nodes name. */
export function constantsOf(node: SchemaNode): string[] {
  if (node.const !== undefined) return [String(node.const)];
  return (node.enum ?? []).map(String);
}

/** The member of a value at a path. */
export function valueAt(value: unknown, path: readonly PathKey[]): unknown {
  return path.reduce(memberOf, value);
}

function memberOf(value: unknown, key: PathKey): unknown {
  if (typeof value !== "object" || value === null || !Object.hasOwn(value, key)) return undefined;
  return Object.entries(value).find(([name]) => name === String(key))?.[1];
}

function matching(node: SchemaNode, value: unknown): readonly SchemaNode[] {
  const all = variants(node);
  const fits = all.filter((variant) => {
    const fixed = Object.entries(variant.properties ?? {}).filter(
      ([, { const: constant }]) => constant !== undefined,
    );
    return fixed.length > 0 && fixed.every(([key, { const: constant }]) => memberOf(value, key) === constant);
  });
  return fits.length > 0 ? fits : all;
}

function child(node: SchemaNode, key: PathKey): SchemaNode | undefined {
  if (typeof key === "number") return node.prefixItems?.[key] ?? node.items;
  const named =
    node.properties !== undefined && Object.hasOwn(node.properties, key) ? node.properties[key] : undefined;
  if (named !== undefined) return named;
  return typeof node.additionalProperties === "object" ? node.additionalProperties : undefined;
}

function inWords(node: SchemaNode): string {
  const constants = constantsOf(node);
  if (constants.length > 1) return `one of ${constants.join(", ")}`;
  if (constants.length === 1) return constants.join();
  switch (node.type) {
    case "integer":
      return `a whole number${range(node)}`;
    case "number":
      return `a number${range(node)}`;
    case "boolean":
      return "true or false";
    case "string":
      return node.pattern === undefined ? "text" : `text like ${node.pattern}`;
    case "array":
      return node.prefixItems === undefined
        ? listOf(node)
        : `a list of ${node.prefixItems.map(inWords).join(" and ")}`;
    default:
      return "a section";
  }
}

function listOf({ items, minItems = 0 }: SchemaNode): string {
  const least = minItems > 1 ? `at least ${minItems} ` : "";
  const of = items === undefined ? "values" : items.type === "string" ? "texts" : "whole numbers";
  return `a list of ${least}${of}`;
}

function range({ minimum, maximum, exclusiveMinimum, exclusiveMaximum }: SchemaNode): string {
  const low =
    exclusiveMinimum !== undefined
      ? ` above ${exclusiveMinimum}`
      : minimum !== undefined
        ? ` from ${minimum}`
        : "";
  const bounded = maximum !== undefined && maximum < Number.MAX_SAFE_INTEGER;
  const high =
    exclusiveMaximum !== undefined ? ` below ${exclusiveMaximum}` : bounded ? ` to ${maximum}` : "";
  return low + high;
}
