import { keysAt, nodesAt, type SchemaNode, valueAt, variants } from "../job/schema-node.ts";
import type { JobKeys } from "./sweep.ts";

/**
 * A job with keys laid over it, section by section. Null takes a key away; a section that becomes another kind keeps the
 * options that the new kind has; a strategy may be given by its name alone.
 */
export function laidOver(job: JobKeys, keys: JobKeys, root: SchemaNode): JobKeys {
  return merged(job, spelledOut(keys), { root, path: [], whole: job });
}

/** Keys whose strategy is a section, also where it was given by its name alone. */
export function spelledOut(keys: JobKeys): JobKeys {
  const { strategy } = keys;
  return typeof strategy === "string" ? { ...keys, strategy: { name: strategy } } : keys;
}

interface Place {
  readonly root: SchemaNode;
  readonly path: readonly string[];
  /** The job in which the section stands. */
  readonly whole: JobKeys;
}

function merged(base: JobKeys, over: JobKeys, { root, path, whole }: Place): JobKeys {
  const turned = path.length > 0 && ["kind", "name"].some((tag) => tag in over && over[tag] !== base[tag]);
  const known = turned ? keysAt(root, path, put(whole, path, { ...base, ...over })) : undefined;
  const result = new Map(Object.entries(base).filter(([key]) => known?.includes(key) ?? true));
  for (const [key, value] of Object.entries(over)) {
    const before = result.get(key);
    const at = [...path, key];
    if (value === null) result.delete(key);
    else if (isKeys(value) && isKeys(before) && hasKeys(root, at, whole))
      result.set(key, merged(before, value, { root, path: at, whole }));
    else result.set(key, value);
  }
  return Object.fromEntries(result);
}

/** Whether a mapping; a list and null are none. */
function isKeys(value: unknown): value is JobKeys {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

/** Whether the value at a path is a section with keys of its own, and no mapping with free names. */
function hasKeys(root: SchemaNode, path: readonly string[], whole: JobKeys): boolean {
  return nodesAt(root, path, whole)
    .flatMap(variants)
    .some(({ properties }) => properties !== undefined);
}

function put(keys: JobKeys, [key = "", ...rest]: readonly string[], value: JobKeys): JobKeys {
  if (rest.length === 0) return { ...keys, [key]: value };
  const inner = valueAt(keys, [key]);
  return { ...keys, [key]: put(isKeys(inner) ? inner : {}, rest, value) };
}
