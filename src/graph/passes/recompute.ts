import { gradients } from "../gradients.ts";
import { after } from "../ops/after.ts";
import { factorsOf } from "../shape.ts";
import { applyOp, type Node, type OpType, topological, type Value } from "../value.ts";

/**
 * What the backward pass computes again: what is cheap, such as attention scores, from the results of linear layers, which
 * are kept (Korthikanti et al., 2022, https://arxiv.org/abs/2205.05198); or whole layers, from the few values that everything
 * passes through (Chen et al., 2016, https://arxiv.org/abs/1604.06174).
 */
export type RecomputeLevel = "cheap" | "layers";

/** Ops of linear layers. */
const products: ReadonlySet<OpType> = new Set<OpType>(["MatMul", "Gemm", "MatMulNBits"]);
/** Ops whose results take no room of their own. */
const views: ReadonlySet<OpType> = new Set<OpType>(["Reshape", "Identity", "After"]);

/** Lengths that stand for the symbols of shapes where sizes are compared. */
const TYPICAL: Readonly<Record<string, number>> = { batch: 4, sequence: 256 };
const TYPICAL_OTHER = 256;

function typicalSize({ shape }: Value): number {
  return shape
    .map(factorsOf)
    .reduce(
      (size, { coefficient, symbols }) =>
        symbols.reduce((product, symbol) => product * (TYPICAL[symbol] ?? TYPICAL_OTHER), size * coefficient),
      1,
    );
}

/** Products over at most this share of their columns, such as the second one of an adapter of low rank, are cheap. */
const SHORT = 1 / 8;

/** Whether a node is the product of a linear layer, which takes long for the room of its result. */
function isLinear({ op, inputs: [a, b], outputs: [y] }: Node, activations: ReadonlySet<Value>): boolean {
  if (!products.has(op) || !a || !b || !y || activations.has(b)) return false;
  return op === "MatMulNBits" || Number(a.shape.at(-1)) > SHORT * Number(y.shape.at(-1));
}

const hasSymbol = ({ shape }: Value): boolean => shape.some((dim) => typeof dim === "string");

/** Values that were computed from weights and a batch. Masks and positions, which know no weights, are none. */
function activationsOf(order: readonly Node[]): ReadonlySet<Value> {
  const weighty = new Set<Value>();
  const knowsWeights = (value: Value): boolean =>
    (value.name !== undefined && !hasSymbol(value)) || weighty.has(value);
  const found = new Set<Value>();
  for (const node of order) {
    if (!node.inputs.some(knowsWeights)) continue;
    for (const output of node.outputs) {
      weighty.add(output);
      if (hasSymbol(output)) found.add(output);
    }
  }
  return found;
}

/** A value that alone is read on the other side of the node that computes it. */
interface Cut {
  readonly value: Value;
  /** Place of its node in the order of computation. */
  readonly at: number;
}

/** The places of an order at which one activation alone is still to be read. */
function cutsOf(order: readonly Node[], activations: ReadonlySet<Value>): Cut[] {
  const lastUse = new Map<Value, number>();
  order.forEach((node, i) => {
    for (const value of node.inputs) if (activations.has(value)) lastUse.set(value, i);
  });
  const open = new Set<Value>();
  const cuts: Cut[] = [];
  order.forEach((node, at) => {
    for (const value of node.inputs) if (lastUse.get(value) === at) open.delete(value);
    for (const value of node.outputs) if (lastUse.has(value)) open.add(value);
    const [value] = node.outputs;
    if (value && open.size === 1 && open.has(value) && !views.has(node.op)) cuts.push({ value, at });
  });
  return cuts;
}

/**
 * The cuts whose values take the least room together with what the longest stretch between two of them computes. What
 * follows the last cut is kept: the backward pass begins there.
 */
function lightest(cuts: readonly Cut[], order: readonly Node[], activations: ReadonlySet<Value>): Cut[] {
  const sizes = order.map(({ op, outputs }) =>
    views.has(op)
      ? 0
      : outputs.reduce((sum, value) => sum + (activations.has(value) ? typicalSize(value) : 0), 0),
  );
  const upTo = [0];
  for (const size of sizes) upTo.push((upTo.at(-1) ?? 0) + size);
  const between = (from: number, to: number): number => (upTo[to + 1] ?? 0) - (upTo[from + 1] ?? 0);
  const end = order.length - 1;
  const chosenUnder = (limit: number): Cut[] => {
    const chosen: Cut[] = [];
    let right = end;
    cuts.forEach((_, i) => {
      const cut = cuts[cuts.length - 1 - i];
      const next = cuts[cuts.length - 2 - i];
      if (!cut || cut.at >= right) return;
      if (next && between(next.at, right) <= limit) return;
      chosen.unshift(cut);
      right = cut.at;
    });
    return chosen;
  };
  const roomOf = (chosen: readonly Cut[]): number => {
    const places = [-1, ...chosen.map(({ at }) => at), end];
    const longest = places.slice(1).map((right, i) => between(places[i] ?? -1, right));
    return Math.max(...longest) + chosen.reduce((sum, { value }) => sum + typicalSize(value), 0);
  };
  const limits = Array.from({ length: 48 }, (_, i) => (upTo.at(-1) ?? 0) * 0.85 ** i);
  const choices = limits.map(chosenUnder).map((chosen) => ({ chosen, room: roomOf(chosen) }));
  return choices.reduce((best, choice) => (choice.room < best.room ? choice : best)).chosen;
}

/**
 * `gradients(scalar, wrt)`, whose graphs compute activations again instead of keeping them. What is computed again waits
 * for the gradient that needs it: its operands come `after` that. A gradient goes on to the layers before once those of
 * the weights that it has passed are there, so that nothing is held for them. The numbers are the same.
 */
export function recomputedGradients(
  scalar: Value,
  wrt: readonly Value[],
  level: RecomputeLevel,
): readonly Value[] {
  const order = topological([scalar]);
  const activations = activationsOf(order);
  const all = cutsOf(order, activations);
  const cuts = level === "layers" ? lightest(all, order, activations) : all;
  const found = gradients(scalar, [...wrt, ...cuts.map(({ value }) => value)]);
  const ofCuts = found.slice(wrt.length);
  const rewriter = rewriterOf(order, activations, { cuts, gradients: ofCuts, level });
  const homes = firstUses(order, activations, wrt).map((at) => stretchAt(cuts, at));
  const results: Value[] = [];
  for (let stretch = cuts.length; stretch >= 0; stretch--) {
    const own: Value[] = [];
    for (const [i, home] of homes.entries()) {
      const gradient = found[i];
      if (home !== stretch || !gradient) continue;
      results[i] = rewriter.rewrite(gradient);
      own.push(results[i]);
    }
    const before = ofCuts[stretch - 1];
    if (before?.node) rewriter.rewrite(before, own);
  }
  return results;
}

/** The stretch between two cuts, counted by the cut at its end, that a place of the order belongs to. */
function stretchAt(cuts: readonly Cut[], at: number): number {
  const following = cuts.findIndex((cut) => cut.at >= at);
  return following < 0 ? cuts.length : following;
}

/** The place of the first node that makes an activation with each of some weights. */
function firstUses(
  order: readonly Node[],
  activations: ReadonlySet<Value>,
  wrt: readonly Value[],
): readonly number[] {
  const sources = new Map<Value, ReadonlySet<string>>();
  const namesIn = (value: Value): ReadonlySet<string> =>
    value.name === undefined ? (sources.get(value) ?? new Set()) : new Set([value.name]);
  const first = new Map<string, number>();
  order.forEach((node, at) => {
    const statics = node.inputs.filter((value) => !activations.has(value));
    const names = new Set(statics.flatMap((value) => [...namesIn(value)]));
    if (!node.outputs.some((value) => activations.has(value)))
      for (const value of node.outputs) sources.set(value, names);
    else for (const name of names) first.set(name, Math.min(at, first.get(name) ?? at));
  });
  return wrt.map(({ name = "" }) => first.get(name) ?? 0);
}

interface Stretches {
  readonly cuts: readonly Cut[];
  /** Gradients of the values of the cuts. */
  readonly gradients: readonly Value[];
  readonly level: RecomputeLevel;
}

/** Rewrites graphs of the backward pass, whose gradients are to come from the last stretch to the first. */
function rewriterOf(
  order: readonly Node[],
  activations: ReadonlySet<Value>,
  { cuts, gradients: ofCuts, level }: Stretches,
): {
  /** The gradient computed with what is made again; what reads it later waits for the gradients of `own` too. */
  rewrite(gradient: Value, own?: readonly Value[]): Value;
} {
  const places = new Map(order.map((node, i) => [node, i] as const));
  const cutAt = new Map(cuts.map(({ value }, i) => [value, i] as const));
  const renewed = new Map<Value, Value>();
  const copies = new Map<Node, readonly Value[]>();
  const waiting = new Map<Value, Value>();
  const now = (value: Value): Value => renewed.get(value) ?? value;

  /** The stretch that a value is computed in; a cut is where the next one begins. */
  const stretchOf = (value: Value): number => {
    const own = cutAt.get(value);
    if (own !== undefined) return own + 1;
    return stretchAt(cuts, value.node ? (places.get(value.node) ?? -1) : -1);
  };
  const isKept = (value: Value): boolean =>
    cutAt.has(value) || (level === "cheap" && value.node !== undefined && isLinear(value.node, activations));

  /** What a backward pass reads in place of a value of the forward pass. */
  const remade = (value: Value): Value => {
    const { node } = value;
    if (!node || !activations.has(value)) return value;
    const cause = ofCuts[stretchOf(value)];
    if (!cause || !hasSymbol(cause)) return value;
    if (isKept(value)) {
      const later = waiting.get(value) ?? after(value, now(cause));
      waiting.set(value, later);
      return later;
    }
    const copy = copies.get(node) ?? applyOp(node.op, node.attributes, node.inputs.map(remade), node.outputs);
    copies.set(node, copy);
    return copy[node.outputs.indexOf(value)] ?? value;
  };

  return {
    rewrite(gradient, own = []) {
      for (const node of topological([gradient])) {
        if (places.has(node) || node.outputs.some((value) => renewed.has(value))) continue;
        const inputs = node.inputs.map((value) =>
          value.node && places.has(value.node) ? remade(value) : now(value),
        );
        if (inputs.every((value, i) => value === node.inputs[i])) continue;
        const outputs = applyOp(node.op, node.attributes, inputs, node.outputs);
        node.outputs.forEach((value, i) => {
          const to = outputs[i];
          if (to) renewed.set(value, to);
        });
      }
      if (own.length > 0) renewed.set(gradient, own.reduce(after, now(gradient)));
      return now(gradient);
    },
  };
}
