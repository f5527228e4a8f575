import { byteSize } from "../tensor/dtype.ts";
import { type Params, sortedNames } from "../tensor/params.ts";
import { sizeOf, type Tensor } from "../tensor/tensor.ts";
import type { BaseChange } from "./strategy.ts";

/** SHA-256 in hexadecimal, given by the platform. */
export type HashBytes = (bytes: Uint8Array) => string | Promise<string>;

/** What a set of changes made of the version before it. */
export interface BaseLink {
  readonly version: string;
  readonly changes: readonly BaseChange[];
}

/**
 * The history of a base: its version is the hash of the version before and of the changes since. Links older than what
 * a dense difference would cost are folded into `snapshot`, so that the chain stays O(model) over any number of rounds.
 */
export interface BaseChain {
  readonly root: string;
  readonly version: string;
  /** Everything up to `version` of the snapshot, as one offset of the pretrained weights. */
  readonly snapshot?: { readonly version: string; readonly offset: Params };
  readonly links: readonly BaseLink[];
}

/** What brings a client to the current version. */
export interface CatchUp {
  /** Where the changes start: at the version that the client holds, or at the pretrained weights (its offset is dropped). */
  readonly from: "held" | "pretrained";
  readonly changes: readonly BaseChange[];
  readonly version: string;
}

/** The chain of a base that nobody has changed; `root` names the pretrained weights. */
export function baseChain(root: string): BaseChain {
  return { root, version: root, links: [] };
}

/** The chain after further changes; the same chain where there are none. */
export async function extendChain(
  chain: BaseChain,
  changes: readonly BaseChange[],
  hash: HashBytes,
): Promise<BaseChain> {
  if (changes.length === 0) return chain;
  const version = await hash(canonicalBytes(chain.version, changes));
  return folded({ ...chain, version, links: [...chain.links, { version, changes }] });
}

/**
 * The changes that a client at version `held` misses, in order: applied one by one they give the same bits as on the
 * server. Where the dense offset from the pretrained weights is cheaper, or the link is gone, that offset.
 */
export function catchUp(chain: BaseChain, held: string): CatchUp {
  const { version, links, snapshot } = chain;
  if (held === version) return { from: "held", changes: [], version };
  const oldest = snapshot?.version ?? chain.root;
  const at = held === oldest ? 0 : links.findIndex((link) => link.version === held) + 1;
  const missed = held === oldest || at > 0 ? links.slice(at).flatMap((link) => link.changes) : undefined;
  if (missed && countScalars(missed) < denseScalars(links, snapshot?.offset))
    return { from: "held", changes: missed, version };
  return { from: "pretrained", changes: [{ kind: "dense", difference: offsetOf(chain) }], version };
}

/** The offset of the current version from the pretrained weights, by base weight name. */
export function offsetOf({ links, snapshot }: BaseChain): Params {
  return applyChanges(
    snapshot?.offset ?? new Map(),
    links.flatMap((link) => link.changes),
  );
}

/**
 * The offset after further changes. Sums run in float64, from the first column of `left` to the last, and each change
 * is rounded once, to float32 (float64 if its factors are): the server and every client get the same bits.
 */
export function applyChanges(offset: Params, changes: readonly BaseChange[]): Params {
  const next = new Map(offset);
  const owned = new Set<string>();
  const target = (name: string, shape: readonly number[], like: Tensor): Float32Array | Float64Array => {
    const held = next.get(name);
    if (owned.has(name) && held) return floatsOf(name, held);
    const data = held
      ? floatsOf(name, held).slice()
      : new (like.dtype === "float64" ? Float64Array : Float32Array)(sizeOf(shape));
    if (data instanceof Float64Array) next.set(name, { dtype: "float64", shape, data });
    else next.set(name, { dtype: "float32", shape, data });
    owned.add(name);
    return data;
  };
  for (const change of changes) {
    if (change.kind === "dense") {
      for (const [name, difference] of change.difference) {
        const values = floatsOf(name, difference);
        const data = target(name, difference.shape, difference);
        for (let i = 0; i < data.length; i++) data[i] = data[i]! + values[i]!;
      }
    } else {
      for (const [name, left] of change.left) {
        const right = change.right.get(name);
        if (!right) throw new RangeError(`applyChanges: ${name} has a left factor but no right one`);
        const [rows = 0, rank = 0] = left.shape;
        const columns = right.shape[1] ?? 0;
        if (right.shape[0] !== rank) {
          throw new RangeError(
            `applyChanges: factors of ${name} are [${left.shape}] and [${right.shape}], inner sizes differ`,
          );
        }
        const sum = target(name, [rows, columns], left);
        const [l, r] = [floatsOf(name, left), floatsOf(name, right)];
        const sizes = { rows, rank, columns, scale: change.scale };
        const [left0, right0] = [change.known?.left.get(name), change.known?.right.get(name)];
        if (left0 && right0) {
          // L R - L0 R0 = (L - L0) R + L0 (R - R0), which is exactly 0 where nothing moved.
          addProduct(sum, minus(l, floatsOf(name, left0)), r, sizes);
          addProduct(sum, floatsOf(name, left0), minus(r, floatsOf(name, right0)), sizes);
        } else addProduct(sum, l, r, sizes);
      }
    }
  }
  return next;
}

/** The weight with its offset: the sum is rounded once, in the wider float type of the two. */
export function effectiveWeight(weight: Tensor, offset: Tensor | undefined): Tensor {
  if (!offset) return weight;
  const values = floatsOf("base weight", weight);
  const added = floatsOf("offset", offset);
  if (values instanceof Float32Array && added instanceof Float32Array) {
    const data = values.slice();
    for (let i = 0; i < data.length; i++) data[i] = data[i]! + added[i]!;
    return { dtype: "float32", shape: weight.shape, data };
  }
  const data = new Float64Array(values);
  for (let i = 0; i < data.length; i++) data[i] = data[i]! + added[i]!;
  return { dtype: "float64", shape: weight.shape, data };
}

/** Number of scalars that some changes send. */
export function countScalars(changes: readonly BaseChange[]): number {
  return changes.flatMap((change) => sentOf(change)).reduce((sum, [, tensor]) => sum + tensor.data.length, 0);
}

function addProduct(
  sum: Float32Array | Float64Array,
  left: Float32Array | Float64Array,
  right: Float32Array | Float64Array,
  { rows, rank, columns, scale }: { rows: number; rank: number; columns: number; scale: number },
): void {
  const row = new Float64Array(columns);
  for (let i = 0; i < rows; i++) {
    row.fill(0);
    for (let k = 0; k < rank; k++) {
      const factor = left[i * rank + k]!;
      const from = k * columns;
      for (let j = 0; j < columns; j++) row[j] = row[j]! + factor * right[from + j]!;
    }
    const at = i * columns;
    for (let j = 0; j < columns; j++) sum[at + j] = sum[at + j]! + scale * row[j]!;
  }
}

function minus(x: Float32Array | Float64Array, y: Float32Array | Float64Array): Float64Array {
  const difference = new Float64Array(x);
  for (let i = 0; i < difference.length; i++) difference[i] = difference[i]! - y[i]!;
  return difference;
}

/** Drops the oldest links while the newer ones alone already cost as much as a dense offset. */
function folded(chain: BaseChain): BaseChain {
  const dense = denseScalars(chain.links, chain.snapshot?.offset);
  let kept = chain.links.length;
  let scalars = 0;
  while (kept > 0) {
    scalars += countScalars(chain.links[kept - 1]?.changes ?? []);
    if (scalars >= dense) break;
    kept--;
  }
  const [old, recent] = [chain.links.slice(0, kept), chain.links.slice(kept)];
  const last = old.at(-1);
  if (!last) return chain;
  const offset = applyChanges(
    chain.snapshot?.offset ?? new Map(),
    old.flatMap((link) => link.changes),
  );
  return { ...chain, snapshot: { version: last.version, offset }, links: recent };
}

function denseScalars(links: readonly BaseLink[], offset: Params = new Map()): number {
  const sizes = new Map<string, number>();
  for (const [name, tensor] of offset) sizes.set(name, tensor.data.length);
  for (const change of links.flatMap((link) => link.changes)) {
    if (change.kind === "dense") {
      for (const [name, tensor] of change.difference) sizes.set(name, tensor.data.length);
    } else {
      for (const [name, left] of change.left) {
        sizes.set(name, (left.shape[0] ?? 0) * (change.right.get(name)?.shape[1] ?? 0));
      }
    }
  }
  return [...sizes.values()].reduce((a, b) => a + b, 0);
}

/** All tensors of a change. */
function tensorsOf(change: BaseChange): [string, Tensor][] {
  const known = change.kind === "factors" ? change.known : undefined;
  return [
    ...sentOf(change),
    ...(known ? [...entriesOf("known left", known.left), ...entriesOf("known right", known.right)] : []),
  ];
}

/** The tensors of a change that clients cannot draw themselves. */
function sentOf(change: BaseChange): [string, Tensor][] {
  return change.kind === "dense"
    ? entriesOf("difference", change.difference)
    : [...entriesOf("left", change.left), ...entriesOf("right", change.right)];
}

function entriesOf(part: string, params: Params): [string, Tensor][] {
  return sortedNames(params).flatMap((name): [string, Tensor][] => {
    const tensor = params.get(name);
    return tensor ? [[`${part}/${name}`, tensor]] : [];
  });
}

/** A canonical JSON header, a line feed, then the tensors' little-endian bytes in the header's order. */
function canonicalBytes(previous: string, changes: readonly BaseChange[]): Uint8Array {
  const tensors = changes.map(tensorsOf);
  const header = JSON.stringify({
    previous,
    changes: changes.map((change, k) => ({
      kind: change.kind,
      ...(change.kind === "factors" && { scale: change.scale }),
      tensors: tensors[k]?.map(([name, { dtype, shape }]) => ({ name, dtype, shape })),
    })),
  });
  const head = new TextEncoder().encode(`${header}\n`);
  const all = tensors.flat().map(([, tensor]) => tensor);
  const bytes = new Uint8Array(
    all.reduce((sum, { dtype, data }) => sum + data.length * byteSize(dtype), head.length),
  );
  bytes.set(head);
  let at = head.length;
  for (const { data } of all) {
    bytes.set(new Uint8Array(data.buffer, data.byteOffset, data.byteLength), at);
    at += data.byteLength;
  }
  return bytes;
}

function floatsOf(name: string, { dtype, data }: Tensor): Float32Array | Float64Array {
  if (data instanceof Float32Array || data instanceof Float64Array) return data;
  throw new TypeError(`base change: ${name} is ${dtype}, expected float32 or float64; widen it first`);
}
