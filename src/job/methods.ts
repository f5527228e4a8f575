import type { Declarations } from "../federation/strategy.ts";
import { type NamedStrategy, type StrategyEntry, strategyEntries } from "../strategies/catalogue/entries.ts";
import { nearest } from "./nearest.ts";
import { jobJsonSchema } from "./schema.ts";
import { expectation, nodesAt, type SchemaNode, variants } from "./schema-node.ts";

/** An option of a method, as a job writes it. */
export interface MethodOption {
  /** The key below `strategy`; keys of a section in it are joined by dots. */
  readonly name: string;
  readonly meaning: string;
  /** What may be written. */
  readonly expects: string;
  /** Absent where there is none. */
  readonly default?: unknown;
  readonly required: boolean;
}

/** What the program knows of a method. */
export interface Method {
  /** What a job writes at `strategy.name`. */
  readonly name: string;
  readonly title: string;
  /** One sentence. */
  readonly summary: string;
  readonly paper: string;
  /** Its page below docs/methods. */
  readonly page: string;
  readonly trains: string;
  readonly exact: string;
  /** Scalars to and from one client in one round, and on the server, in the symbols of docs/methods/README.md. */
  readonly down: string;
  readonly up: string;
  readonly kept: string;
  readonly unequalRanks: boolean;
  readonly personal: boolean;
  readonly changesBase: boolean;
  /** Whether a sum of the updates is enough, so that they may be streamed or hidden in it. */
  readonly weightedSum: boolean;
  readonly declares: Declarations;
  readonly options: readonly MethodOption[];
}

/** Every method that a job can name. */
export function methods(): Method[] {
  const root = jobJsonSchema();
  return strategyEntries.map((entry) => methodOf(entry, root));
}

/** The method of a name; undefined where there is none. */
export function methodNamed(name: string): Method | undefined {
  const entry = strategyEntries.find((one) => one.name === name);
  return entry && methodOf(entry, jobJsonSchema());
}

/** The name that somebody most likely meant. */
export function nearestMethod(name: string): string | undefined {
  return nearest(
    name,
    strategyEntries.map((entry) => entry.name),
  );
}

/** What a job writes for a method with its defaults. */
export function exampleOf({ name, example }: Pick<StrategyEntry, "name" | "example">): NamedStrategy {
  return { name, ...example };
}

/** The part of a job that asks for a method, as YAML: the strategy, and what else it needs. */
export function exampleJob({ name, declares, options }: Method): string {
  const entry = strategyEntries.find((one) => one.name === name);
  const asked = Object.entries(entry?.example ?? {});
  const written = asked.length > 0 ? asked : options.slice(0, 1).flatMap(writtenDefault);
  const { optimizer = "adamw" } = entry ?? {};
  return [
    `strategy: { ${[["name", name] as const, ...written].map(([key, value]) => `${key}: ${String(value)}`).join(", ")} }`,
    declares.needsDense
      ? "adapter: { kind: dense, target: [up_proj.weight] }"
      : "adapter: { kind: lora, rank: 8, alpha: 16, target: [q_proj, v_proj] }",
    `local: { optimizer: { name: ${optimizer}, learningRate: ${optimizer === "sgd" ? "0.1" : "1e-3"} } }`,
  ].join("\n");
}

function writtenDefault(option: MethodOption): [string, unknown][] {
  const plain = typeof option.default === "number" || typeof option.default === "string";
  return plain ? [[option.name, option.default]] : [];
}

function methodOf(entry: StrategyEntry, root: SchemaNode): Method {
  const job = exampleOf(entry);
  const { name: title, paper, declares } = entry.make(job);
  const { down, up, kept } = entry.traffic(job);
  const { name, page, trains, exact } = entry;
  const [node] = nodesAt(root, ["strategy"], { strategy: job });
  return {
    name,
    title,
    summary: node?.description ?? "",
    paper,
    page: `${page}.md`,
    trains,
    exact,
    down: down.text,
    up: up.text,
    kept: kept.text,
    unequalRanks: declares.unequalRanks === true,
    personal: declares.personal === true,
    changesBase: declares.changesBase === true,
    weightedSum: declares.weightedSum === true,
    declares,
    options: node === undefined ? [] : optionsOf(node),
  };
}

function optionsOf({ properties = {}, required = [] }: SchemaNode, at = ""): MethodOption[] {
  return Object.entries(properties).flatMap(([key, node]): MethodOption[] => {
    if (node.const !== undefined) return [];
    const name = at === "" ? key : `${at}.${key}`;
    const option: MethodOption = {
      name,
      meaning: node.description ?? "",
      expects: expectation([node]),
      ...(node.default === undefined ? {} : { default: node.default }),
      required: required.includes(key),
    };
    return [option, ...variants(node).flatMap((inner) => optionsOf(inner, name))];
  });
}
