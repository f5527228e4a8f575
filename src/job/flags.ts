import { nearest } from "./nearest.ts";
import { either } from "./problem.ts";
import { renamedTo } from "./renamed.ts";
import { jobJsonSchema } from "./schema.ts";
import {
  constantsOf,
  expectation,
  keysAt,
  nodesAt,
  type SchemaNode,
  valueAt,
  variants,
} from "./schema-node.ts";

/** A job key as a flag. */
export interface JobFlag {
  /** The key, such as `local.optimizer.learningRate`. */
  readonly path: string;
  readonly description: string;
  /** What may be written, in words. */
  readonly expects: string;
  readonly boolean: boolean;
}

/** Short names of frequent flags. */
export const flagAliases: ReadonlyMap<string, string> = new Map([
  ["data", "data.path"],
  ["partition", "partition.kind"],
  ["clients", "partition.clients"],
  ["adapter", "adapter.kind"],
  ["rank", "adapter.rank"],
  ["alpha", "adapter.alpha"],
  ["target", "adapter.target"],
  ["strategy", "strategy.name"],
  ["optimizer", "local.optimizer.name"],
  ["learningRate", "local.optimizer.learningRate"],
  ["epochs", "local.epochs"],
  ["steps", "local.steps"],
  ["batchSize", "local.batchSize"],
  ["maxLength", "data.maxLength"],
  ["prompt", "generate.prompt"],
]);

/** Every key of a job that takes a value, in the order of the schema. */
export function jobFlags(root: SchemaNode = jobJsonSchema()): JobFlag[] {
  const found = new Map<string, { description: string; nodes: SchemaNode[] }>();
  const visit = (node: SchemaNode, path: string, description: string): void => {
    for (const variant of variants(node)) {
      const inner = variant.description ?? description;
      if (variant.properties === undefined) {
        const leaf = found.get(path) ?? { description: node.description ?? inner, nodes: [] };
        leaf.nodes.push(variant);
        found.set(path, leaf);
      }
      for (const [key, next] of Object.entries(variant.properties ?? {})) {
        visit(next, path === "" ? key : `${path}.${key}`, next.description ?? inner);
      }
    }
  };
  visit(root, "", "");
  return [...found].map(([path, { description, nodes }]) => ({
    path,
    description,
    expects: expectation(nodes),
    boolean: nodes.every(({ type }) => type === "boolean"),
  }));
}

/** The key that a flag means: its path, an alias, or either in kebab-case; undefined for no key. */
export function flagPath(flag: string, flags: readonly JobFlag[]): string | undefined {
  const camel = flag.replaceAll(/-([a-z])/g, (_, letter: string) => letter.toUpperCase());
  const path = [flag, camel].map((name) => flagAliases.get(name) ?? name);
  return path.find((name) => flags.some((known) => known.path === name));
}

/** What a person may have meant by an unknown flag. */
export function flagHint(flag: string, known: readonly string[]): string {
  const renamed = renamedTo(flag) ?? renamedTo(flag.split(".").at(-1) ?? flag);
  if (renamed !== undefined) return `it is called --${renamed} here`;
  const meant =
    nearest(flag, known) ??
    nearest(
      flag,
      known.map((name) => name.split(".").at(-1) ?? name),
    );
  const full = known.find((name) => name === meant) ?? known.find((name) => name.endsWith(`.${meant}`));
  return full === undefined ? "see --help" : `did you mean --${full}?`;
}

/** A flag as it was typed: a key and its texts, more than one where it was repeated. */
export interface TypedFlag {
  readonly path: string;
  readonly texts: readonly string[];
}

/**
 * The job with the flags laid over it. A flag that chooses another kind of a section drops those options of the file
 * that the new kind does not have.
 */
export function withFlags(raw: unknown, typed: readonly TypedFlag[]): unknown {
  const root = jobJsonSchema();
  let value = isSection(raw) ? raw : {};
  // Kinds first, so that the values after them are read as that kind has them.
  const kindsFirst = [...typed].sort((a, b) => Number(isKind(b.path)) - Number(isKind(a.path)));
  for (const { path, texts } of kindsFirst) {
    const keys = path.split(".");
    const before = valueAt(value, keys);
    value = put(value, keys, parsed(nodesAt(root, keys, value), texts));
    if (isKind(path) && before !== undefined) value = pruned(root, value, keys.slice(0, -1));
  }
  return value;
}

function isKind(path: string): boolean {
  return /\.(?:kind|name)$/.test(path);
}

type Section = Readonly<Record<string, unknown>>;

function isSection(value: unknown): value is Section {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function put(section: Section, [key = "", ...rest]: readonly string[], value: unknown): Section {
  if (rest.length === 0) return { ...section, [key]: value };
  const inner = valueAt(section, [key]);
  return { ...section, [key]: put(isSection(inner) ? inner : {}, rest, value) };
}

function pruned(root: SchemaNode, value: Section, path: readonly string[]): Section {
  const section = valueAt(value, path);
  const known = keysAt(root, path, value);
  if (!isSection(section)) return value;
  return put(value, path, Object.fromEntries(Object.entries(section).filter(([key]) => known.includes(key))));
}

/** Text as the type that its place has; text that fits no type stays text, for the check to refuse. */
function parsed(nodes: readonly SchemaNode[], texts: readonly string[]): unknown {
  const all = nodes.flatMap(variants);
  const [text = ""] = texts;
  if (texts.length === 1) {
    if (
      all.some(
        (node) => constantsOf(node).includes(text) || node.type === "number" || node.type === "integer",
      )
    ) {
      const number = Number(text);
      if (text.trim() !== "" && Number.isFinite(number)) return number;
    }
    if (all.some(({ type }) => type === "boolean") && /^(?:true|false)$/.test(text)) return text === "true";
  }
  const list = all.find(({ type }) => type === "array");
  const pieces = texts.length > 1 ? texts : text.split(",");
  if (list !== undefined && (pieces.length > 1 || !all.some(({ type }) => type === "string"))) {
    const items = list.prefixItems ?? (list.items === undefined ? [] : [list.items]);
    return pieces.map((piece) => parsed(items, [piece]));
  }
  const free = all.find(({ additionalProperties }) => typeof additionalProperties === "object");
  if (free !== undefined && pieces.every((piece) => piece.includes("="))) {
    return Object.fromEntries(
      pieces.map((piece) => [
        piece.slice(0, piece.indexOf("=")),
        parsed([{ type: "number" }], [piece.slice(piece.indexOf("=") + 1)]),
      ]),
    );
  }
  return texts.length > 1 ? texts : text;
}

/** The aliases and paths of all flags, for hints. */
export function flagNames(flags: readonly JobFlag[]): string[] {
  return [...flagAliases.keys(), ...flags.map(({ path }) => path)];
}

/** `--rank, --adapter.rank`. */
export function flagSpelling(path: string): string {
  const aliases = [...flagAliases].filter(([, target]) => target === path).map(([alias]) => alias);
  return either([...aliases, path].map((name) => `--${name}`)).replaceAll(" or ", ", ");
}
