import type {
  ClientRef,
  LocalResult,
  LocalRule,
  LocalStart,
  Payload,
  RoundContext,
  StateTree,
  Strategy,
  Update,
} from "../federation/strategy.ts";
import type { Params } from "../tensor/params.ts";
import { type Tensor, tensor } from "../tensor/tensor.ts";

/** How a tensor is written to the wire. The shapes of the parts follow from the tensor's shape alone. */
export interface Packing {
  pack(change: Tensor): Readonly<Record<string, Tensor>>;
  /** The tensor of this shape that parts stand for. */
  unpack(parts: Readonly<Record<string, Tensor>>, shape: readonly number[]): Float64Array;
  /** Whether a tensor that the client had not received, so that there is no change of it, is packed too. */
  readonly packsValues: boolean;
  /** How the parameters travel to the client, and what it reads of them. Default: as they are. */
  readonly down?: { pack(params: Params): Params; unpack(params: Params): Params };
}

/** Options of a strategy whose updates are packed. */
export interface PackedOptions {
  /** What names of parts and errors begin with, so that one packing may wrap another. */
  readonly tag: string;
  /** What the name of the strategy is followed by. */
  readonly suffix: string;
  /** Whether a client adds what packing lost to its next change. */
  readonly errorFeedback: boolean;
}

const SHAPE = "shape";
const partName = (tag: string, name: string, part: string): string => `${tag}/${name}/${part}`;
const errorName = (tag: string, name: string): string => `${tag}-error/${name}`;

/**
 * A strategy whose clients send their changes packed. The client packs Δ_k + e_k, Δ_k being what it changed of what it
 * received and e_k what packing has lost so far; the server adds the unpacked change to what it had sent, in its own
 * precision, and hands parameters to the inner strategy. The error belongs to the client and stays there.
 */
export function packed<State extends StateTree>(
  inner: Strategy<State>,
  packing: Packing,
  { tag, suffix, errorFeedback }: PackedOptions,
): Strategy<State> {
  if (errorFeedback) assertSteady(inner, tag);
  const { down } = packing;
  const wrap = (rule: LocalRule): LocalRule => packedRule(rule, packing, tag, errorFeedback);
  return {
    ...inner,
    name: `${inner.name}, ${suffix}`,
    declares: {
      ...inner.declares,
      // The parts of different clients have no sum.
      weightedSum: false,
      moduleWise: false,
      clientState: inner.declares.clientState === true || errorFeedback,
    },
    local: wrap(inner.local ?? {}),
    ...(inner.stages && {
      stages: Object.fromEntries(Object.entries(inner.stages).map(([name, rule]) => [name, wrap(rule)])),
    }),
    broadcast(state, client, context) {
      const payload = inner.broadcast(state, client, context);
      return down ? { ...payload, params: down.pack(payload.params) } : payload;
    },
    aggregate: (state, updates, context) =>
      inner.aggregate(
        state,
        updates.map((update) => unpackedUpdate(inner, packing, tag, state, update, context)),
        context,
      ),
  };
}

function packedRule(rule: LocalRule, packing: Packing, tag: string, errorFeedback: boolean): LocalRule {
  const read = (received: Payload): Payload =>
    packing.down ? { ...received, params: packing.down.unpack(received.params) } : received;
  /** What the inner rule sees: its own memory, and what was received as it reads it. */
  const seen = <Local extends LocalStart>(local: Local): Local => ({
    ...local,
    received: read(local.received),
    memory: pick(local.memory, (name) => !name.startsWith(errorName(tag, ""))),
  });
  const { remember, start, personalBase, upload } = rule;
  return {
    ...rule,
    ...(remember && { remember: (received, initial) => remember(read(received), initial) }),
    ...(personalBase && { personalBase: (local: LocalStart) => personalBase(seen(local)) }),
    start: (local) => start?.(seen(local)) ?? { params: read(local.received).params },
    upload(local: LocalResult) {
      const inside = seen(local);
      const { params, extra, memory = inside.memory } = upload?.(inside) ?? { params: local.params };
      const errors = errorFeedback ? local.memory : new Map<string, Tensor>();
      const { parts, lost } = pack(packing, tag, params, inside.received.params, errors);
      return {
        params: parts,
        ...(extra && { extra }),
        memory: errorFeedback ? new Map([...memory, ...lost]) : memory,
      };
    },
  };
}

/** The parts of all tensors of an update, and what packing lost of each change. */
function pack(
  { pack: packOne, unpack, packsValues }: Packing,
  tag: string,
  params: Params,
  received: Params,
  errors: Params,
): { readonly parts: Params; readonly lost: Params } {
  const parts = new Map<string, Tensor>();
  const lost = new Map<string, Tensor>();
  for (const [name, value] of params) {
    const { shape, data } = value;
    const reference = received.get(name);
    const from = reference && sameShape(reference, value) ? floats(reference) : undefined;
    const to = floats(value);
    if (!to || !(from || packsValues)) {
      parts.set(name, value);
      continue;
    }
    const error = errors.get(errorName(tag, name));
    const e = error && sameShape(error, value) ? floats(error) : undefined;
    const change = new Float64Array(data.length);
    for (let i = 0; i < change.length; i++) change[i] = to[i]! - (from?.[i] ?? 0) + (e?.[i] ?? 0); // Δ_k + e_k
    const written = packOne({ dtype: "float64", shape, data: change });
    for (const [part, held] of Object.entries(written)) parts.set(partName(tag, name, part), held);
    if (!from) {
      parts.set(partName(tag, name, SHAPE), tensor("int32", [shape.length], Int32Array.from(shape)));
      continue;
    }
    const read = unpack(written, shape);
    lost.set(errorName(tag, name), {
      dtype: "float32",
      shape,
      data: Float32Array.from(change, (x, i) => x - read[i]!),
    });
  }
  return { parts, lost };
}

/** An update with its parameters as they are. */
function unpackedUpdate<State extends StateTree>(
  inner: Strategy<State>,
  { unpack }: Packing,
  tag: string,
  state: State,
  update: Update,
  context: RoundContext,
): Update {
  const { client, params: wire } = update;
  const prefix = `${tag}/`;
  const params = new Map([...wire].filter(([name]) => !name.startsWith(prefix)));
  const packedParts = new Map<string, Record<string, Tensor>>();
  for (const [name, part] of wire) {
    if (!name.startsWith(prefix)) continue;
    const end = name.lastIndexOf("/");
    const of = name.slice(prefix.length, end);
    const group = packedParts.get(of) ?? {};
    group[name.slice(end + 1)] = part;
    packedParts.set(of, group);
  }
  const sent = update.received ?? sentTo(inner, state, client, context);
  for (const [name, { [SHAPE]: ownShape, ...parts }] of packedParts) {
    const reference = sent.get(name);
    const shape = ownShape ? [...ownShape.data].map(Number) : (reference?.shape ?? []);
    const change = unpack(parts, shape);
    const from = ownShape || !reference ? undefined : floats(reference);
    const to = from ? change.map((x, i) => from[i]! + x) : change;
    const wide = !ownShape && reference?.dtype === "float64";
    params.set(
      name,
      wide ? { dtype: "float64", shape, data: to } : { dtype: "float32", shape, data: Float32Array.from(to) },
    );
  }
  return { ...update, params };
}

function sentTo<State extends StateTree>(
  inner: Strategy<State>,
  state: State,
  client: ClientRef,
  context: RoundContext,
): Params {
  return inner.broadcast(state, client, context).params;
}

/** Throws RangeError where what was lost in one round means something else in the next. */
function assertSteady(
  { name, declares, stages }: Pick<Strategy, "name" | "declares" | "stages">,
  who: string,
): void {
  const reason = declares.unequalRanks
    ? "it cuts or turns its factors from round to round"
    : declares.changesBase
      ? "it moves what was trained into the base"
      : stages
        ? "its stages train different tensors"
        : undefined;
  if (reason === undefined) return;
  throw new RangeError(
    `${who}: ${name} has no use for what an earlier round lost, for ${reason}; set errorFeedback to false`,
  );
}

function pick(params: Params, keep: (name: string) => boolean): Params {
  return new Map([...params].filter(([name]) => keep(name)));
}

function sameShape(a: Tensor, b: Tensor): boolean {
  return a.shape.length === b.shape.length && a.shape.every((dim, axis) => dim === b.shape[axis]);
}

function floats({ data }: Tensor): Float32Array | Float64Array | undefined {
  return data instanceof Float32Array || data instanceof Float64Array ? data : undefined;
}
