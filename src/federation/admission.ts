import { TributaryError } from "../errors.ts";
import type { ByteSource } from "../formats/byte-source.ts";
import { decode, openSafetensors } from "../formats/safetensors.ts";
import { byteSize } from "../tensor/dtype.ts";
import type { Params } from "../tensor/params.ts";
import type { Tensor } from "../tensor/tensor.ts";
import type { Manifest } from "./manifest.ts";
import type { RejectCode } from "./message.ts";
import { type PlanEntry, planBytes } from "./plan.ts";

/** What the door asks of an update. */
export interface AdmissionOptions {
  /** Names, dtypes and shapes that must arrive, all of them and no other. */
  readonly plan: readonly PlanEntry[];
  /** Values the client started from, by the same names; the norm is that of the difference. */
  readonly start: Params;
  /** Examples that the client holds. */
  readonly maxExamples: number;
  /** Largest magnitude of a value. Default: no bound. */
  readonly bound?: number;
  /** Largest norm of what the client changed. Default: no bound. */
  readonly maxNorm?: number;
}

/** The first check that an update failed. */
export interface Refusal {
  readonly code: RejectCode;
  readonly reason: string;
}

/** The verdict of the door: the norm of what the client changed, or why it was refused. */
export type Verdict = { readonly norm: number } | Refusal;

/** What an update says of itself beside its tensors. */
export interface UpdateClaims {
  readonly numExamples: number;
  readonly loss: number;
}

/** Checks an update before anything is stored or counted: cheap checks first, the first failure names its code. */
export function admit(
  { tensors, ...claims }: UpdateClaims & { readonly tensors: Params },
  options: AdmissionOptions,
): Verdict {
  const refused = refuseClaims(claims, options) ?? refuseShapes(tensors, options.plan);
  if (refused) return refused;
  const { start, bound = Number.POSITIVE_INFINITY } = options;
  let squares = 0;
  for (const [name, tensor] of tensors) {
    const change = squaredChange(tensor, start.get(name)?.data, bound);
    if (change === undefined) return beyond(name, tensor, bound);
    squares += change;
  }
  return withinNorm(squares, options);
}

/** Bytes of a stored update that are read at once. */
const PIECE = 4 * 2 ** 20;

/** Checks an update that lies in a store, a few megabytes at a time: the verdict of `admit`. */
export async function admitStored(
  source: ByteSource,
  claims: UpdateClaims,
  options: AdmissionOptions,
): Promise<Verdict> {
  const early = refuseClaims(claims, options);
  if (early) return early;
  const opened = await openSafetensors(source, "update").catch(refusedFile);
  if ("code" in opened) return opened;
  const refused = refuseShapes(new Map(opened.names.map((name) => [name, opened.info(name)])), options.plan);
  if (refused) return refused;
  const { start, bound = Number.POSITIVE_INFINITY } = options;
  let squares = 0;
  for (const name of opened.names) {
    const { dtype, start: first, end } = opened.info(name);
    const size = byteSize(dtype);
    for (let at = first; at < end; at += PIECE) {
      const bytes = await source.read(at, Math.min(at + PIECE, end));
      const piece = decode(dtype, [bytes.length / size], bytes);
      const from = (at - first) / size;
      const before = start.get(name)?.data.subarray(from, from + piece.data.length);
      const change = squaredChange(piece, before, bound);
      if (change === undefined) return beyond(name, piece, bound);
      squares += change;
    }
  }
  return withinNorm(squares, options);
}

/** The refusal of a stream that is no safetensors file. */
export function refusedFile(error: unknown): Refusal {
  if (error instanceof TributaryError && error.code.startsWith("safetensors"))
    return { code: "bad-manifest", reason: error.message };
  throw error;
}

/** Largest header that a stream of tensors may have. */
const MAX_HEADER = 16 * 2 ** 20;

/** Refuses the manifest of an update that is not of this assignment, or names other tensors or more bytes than the plan. */
export function refuseManifest(
  { kind, run, round, client, tensors, bytes, chunkSize, chunks }: Manifest,
  wanted: { readonly run: string; readonly round: number; readonly client: string },
  plan: readonly PlanEntry[],
): Refusal | undefined {
  const refuse = (reason: string): Refusal => ({ code: "bad-manifest", reason });
  if (kind !== "update") return refuse(`its kind is ${kind}, expected update`);
  if (run !== wanted.run || round !== wanted.round || client !== wanted.client) {
    return refuse(
      `it is of ${client} in round ${round} of run ${run}, the assignment is of ${wanted.client} in round ${wanted.round} of run ${wanted.run}`,
    );
  }
  const shapes = refuseShapes(new Map(tensors.map((entry) => [entry.name, entry])), plan);
  if (shapes) return shapes;
  const least = planBytes(plan);
  if (bytes < least || bytes > least + MAX_HEADER)
    return refuse(`it declares ${bytes} bytes, its tensors have ${least}`);
  if (chunks.length !== Math.ceil(bytes / chunkSize))
    return refuse(`it names ${chunks.length} chunks of ${chunkSize} bytes for ${bytes} bytes`);
  return undefined;
}

function refuseClaims(
  { numExamples, loss }: UpdateClaims,
  { maxExamples }: AdmissionOptions,
): Refusal | undefined {
  if (!(Number.isInteger(numExamples) && numExamples >= 1)) {
    return {
      code: "no-examples",
      reason: `numExamples is ${numExamples}, expected an integer of at least 1`,
    };
  }
  if (numExamples > maxExamples) {
    return {
      code: "too-many-examples",
      reason: `numExamples is ${numExamples}, the client enrolled with ${maxExamples}`,
    };
  }
  if (!Number.isFinite(loss)) return { code: "loss-not-finite", reason: `the training loss is ${loss}` };
  return undefined;
}

/** Refuses tensors that are not exactly those of a plan. */
function refuseShapes(
  tensors: ReadonlyMap<string, Pick<Tensor, "dtype" | "shape">>,
  plan: readonly PlanEntry[],
): Refusal | undefined {
  for (const { name, dtype, shape } of plan) {
    const tensor = tensors.get(name);
    if (!tensor) return { code: "missing-tensor", reason: `${name} is missing` };
    if (tensor.dtype !== dtype)
      return { code: "wrong-dtype", reason: `${name} is ${tensor.dtype}, expected ${dtype}` };
    if (tensor.shape.length !== shape.length || tensor.shape.some((dim, axis) => dim !== shape[axis])) {
      return { code: "wrong-shape", reason: `${name} is [${tensor.shape}], expected [${shape}]` };
    }
  }
  if (tensors.size === plan.length) return undefined;
  const planned = new Set(plan.map(({ name }) => name));
  const surplus = [...tensors.keys()].find((name) => !planned.has(name));
  return { code: "unknown-tensor", reason: `${surplus} is not in the plan` };
}

function withinNorm(squares: number, { maxNorm = Number.POSITIVE_INFINITY }: AdmissionOptions): Verdict {
  const norm = Math.sqrt(squares);
  // Squares of float64 values beyond 1e154 overflow.
  if (norm <= Math.min(maxNorm, Number.MAX_VALUE)) return { norm };
  return { code: "norm-bound", reason: `the change has norm ${norm}, the bound is ${maxNorm}` };
}

/** Largest bits of a finite number, sign apart, in the storage types of 16 bits. */
const finiteBits: { readonly [dtype: string]: number } = { float16: 0x7bff, bfloat16: 0x7f7f };

/** Sum of squares of the difference from the start; undefined where a value is not finite or beyond the bound. */
function squaredChange(
  { dtype, data }: Tensor,
  start: Tensor["data"] | undefined,
  bound: number,
): number | undefined {
  if (data instanceof Float32Array || data instanceof Float64Array) {
    const from =
      start?.length === data.length && (start instanceof Float32Array || start instanceof Float64Array)
        ? start
        : new Float32Array(data.length);
    return squaresWithin(data, from, Math.min(bound, Number.MAX_VALUE));
  }
  const limit = finiteBits[dtype];
  const finite =
    limit === undefined || !(data instanceof Uint16Array) || data.every((bits) => (bits & 0x7fff) <= limit);
  return finite ? 0 : undefined;
}

/** One pass, four entries at a time. */
function squaresWithin(
  values: Float32Array | Float64Array,
  start: Float32Array | Float64Array,
  bound: number,
): number | undefined {
  let first = 0;
  let second = 0;
  let third = 0;
  let fourth = 0;
  const whole = values.length - (values.length % 4);
  for (let i = 0; i < whole; i += 4) {
    const a = values[i]!;
    const b = values[i + 1]!;
    const c = values[i + 2]!;
    const d = values[i + 3]!;
    if (!(Math.abs(a) <= bound && Math.abs(b) <= bound && Math.abs(c) <= bound && Math.abs(d) <= bound))
      return undefined;
    const p = a - start[i]!;
    const q = b - start[i + 1]!;
    const r = c - start[i + 2]!;
    const s = d - start[i + 3]!;
    first += p * p;
    second += q * q;
    third += r * r;
    fourth += s * s;
  }
  for (let i = whole; i < values.length; i++) {
    const value = values[i]!;
    if (!(Math.abs(value) <= bound)) return undefined;
    first += (value - start[i]!) ** 2;
  }
  return first + second + third + fourth;
}

/** What is wrong with a tensor that has a value that is not finite or beyond the bound. */
function beyond(name: string, { data }: Tensor, bound: number): Refusal {
  let largest = 0;
  if (data instanceof Float32Array || data instanceof Float64Array) {
    // NaN stays NaN.
    for (const value of data) largest = Math.max(largest, Math.abs(value));
    if (Number.isFinite(largest)) {
      return {
        code: "out-of-bounds",
        reason: `${name} holds the magnitude ${largest}, the round's bound is ${bound}`,
      };
    }
  }
  return { code: "not-finite", reason: `${name} holds NaN or an infinity` };
}
