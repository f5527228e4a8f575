import { type Params, select } from "../tensor/params.ts";
import { isFactor } from "./low-rank.ts";
import type { Aggregate, BaseChange, RoundContext, StateTree, Strategy, Update } from "./strategy.ts";

/** A round whose updates are read piece by piece. */
export interface ModularRound<State extends StateTree> {
  readonly state: State;
  readonly context: RoundContext;
  /** The updates of all clients, sorted by client, with the tensors of the given names only. */
  read(names: ReadonlySet<string>): readonly Update[] | Promise<readonly Update[]>;
}

/** What belongs together in an aggregation that takes one module at a time: both factors of a module, or one other tensor. */
function moduleOf(name: string): string {
  return name.replace(/\.lora_[AB]\.weight$/, "");
}

/** The part of a state that concerns one module: its sets of tensors cut to it, everything else as it is. */
export function partOfState<State extends StateTree>(state: State, module: string): State {
  return mapSets(state, (set) => select(set, (name) => moduleOf(name) === module)) as State;
}

/** The modules of a state, in order of their first appearance, with the names of their tensors. */
export function modulesOf(state: StateTree): ReadonlyMap<string, ReadonlySet<string>> {
  const modules = new Map<string, Set<string>>();
  mapSets(state, (set) => {
    for (const name of set.keys()) {
      const module = moduleOf(name);
      modules.set(module, (modules.get(module) ?? new Set()).add(name));
    }
    return set;
  });
  return modules;
}

/**
 * The aggregation of a strategy that treats modules apart, one module after the other: the same result as of all at
 * once, while no more than one module of the clients' updates is held.
 */
export async function aggregateByModule<State extends StateTree>(
  strategy: Strategy<State>,
  { state, context, read }: ModularRound<State>,
): Promise<Aggregate<State>> {
  const parts: Aggregate<State>[] = [];
  const modules = modulesOf(state);
  const lowRank = [...modules.values()].some(hasFactor);
  for (const [module, names] of modules) {
    const part = strategy.aggregate(partOfState(state, module), await read(names), context);
    // Beside adapters, what is trained in full is not measured.
    parts.push(lowRank && !hasFactor(names) ? { ...part, measurements: {} } : part);
  }
  return joinParts(state, parts);
}

function hasFactor(names: ReadonlySet<string>): boolean {
  return [...names].some(isFactor);
}

/** One aggregate from those of the modules of a state. */
function joinParts<State extends StateTree>(
  state: State,
  parts: readonly Aggregate<State>[],
): Aggregate<State> {
  if (parts.length === 0) return { state };
  const base = joinChanges(parts.flatMap(({ base = [] }) => base));
  return {
    state: joinTrees(
      state,
      parts.map((part) => part.state),
    ) as State,
    ...(base.length > 0 && { base }),
    measurements: Object.assign({}, ...parts.map(({ measurements }) => measurements)),
  };
}

/** The tree with every set of tensors changed. */
function mapSets(tree: StateTree, change: (set: Params) => Params): StateTree {
  if (tree === null || typeof tree !== "object") return tree;
  if (isSet(tree)) return change(tree);
  if (isList(tree)) return tree.map((node) => mapSets(node, change));
  return Object.fromEntries(Object.entries(tree).map(([key, node]) => [key, mapSets(node, change)]));
}

/** Sets are united, in the order of names that `like` has; whatever is no set must be the same in all parts. */
function joinTrees(like: StateTree, parts: readonly StateTree[]): StateTree {
  const [first = null] = parts;
  if (first === null || typeof first !== "object") return first;
  if (isSet(first)) {
    const united = new Map(parts.flatMap((part) => (part !== null && isSet(part) ? [...part] : [])));
    if (like === null || !isSet(like)) return united;
    const ordered = [...like.keys()].flatMap((name) => {
      const tensor = united.get(name);
      return tensor ? [[name, tensor] as const] : [];
    });
    return new Map([...ordered, ...united]);
  }
  if (isList(first)) {
    return first.map((_, i) =>
      joinTrees(
        isList(like) ? (like[i] ?? null) : null,
        parts.map((part) => (isList(part) ? (part[i] ?? null) : null)),
      ),
    );
  }
  return Object.fromEntries(
    Object.keys(first).map((key) => [
      key,
      joinTrees(
        child(like, key),
        parts.map((part) => child(part, key)),
      ),
    ]),
  );
}

function child(tree: StateTree, key: string): StateTree {
  if (tree === null || typeof tree !== "object" || isSet(tree) || isList(tree)) return null;
  return tree[key] ?? null;
}

/** Changes of one kind and scale become one: modules are different weights, so the order among them says nothing. */
function joinChanges(changes: readonly BaseChange[]): BaseChange[] {
  const joined = new Map<string, BaseChange>();
  for (const change of changes) {
    const key = change.kind === "dense" ? "dense" : `${change.scale} ${change.known !== undefined}`;
    joined.set(key, joinTwo(joined.get(key), change));
  }
  return [...joined.values()].sort((a, b) => Number(a.kind === "dense") - Number(b.kind === "dense"));
}

function joinTwo(first: BaseChange | undefined, second: BaseChange): BaseChange {
  if (first?.kind === "dense" && second.kind === "dense") {
    return { kind: "dense", difference: new Map([...first.difference, ...second.difference]) };
  }
  if (first?.kind !== "factors" || second.kind !== "factors") return second;
  return {
    kind: "factors",
    left: new Map([...first.left, ...second.left]),
    right: new Map([...first.right, ...second.right]),
    scale: first.scale,
    ...(first.known &&
      second.known && {
        known: {
          ...first.known,
          left: new Map([...first.known.left, ...second.known.left]),
          right: new Map([...first.known.right, ...second.known.right]),
        },
      }),
  };
}

function isSet(tree: StateTree): tree is Params {
  return tree instanceof Map;
}

function isList(tree: StateTree): tree is readonly StateTree[] {
  return Array.isArray(tree);
}
