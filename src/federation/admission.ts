import type { Params } from "../tensor/params.ts";
import type { Tensor } from "../tensor/tensor.ts";
import type { RejectCode } from "./message.ts";
import type { PlanEntry } from "./plan.ts";

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

/** The verdict of the door: the norm of what the client changed, or the first check that failed. */
export type Verdict = { readonly norm: number } | { readonly code: RejectCode; readonly reason: string };

/** Checks an update before anything is stored or counted: cheap checks first, the first failure names its code. */
export function admit(
  update: { readonly tensors: Params; readonly numExamples: number; readonly loss: number },
  {
    plan,
    start,
    maxExamples,
    bound = Number.POSITIVE_INFINITY,
    maxNorm = Number.POSITIVE_INFINITY,
  }: AdmissionOptions,
): Verdict {
  const { tensors, numExamples, loss } = update;
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
  for (const { name, dtype, shape } of plan) {
    const tensor = tensors.get(name);
    if (!tensor) return { code: "missing-tensor", reason: `${name} is missing` };
    if (tensor.dtype !== dtype)
      return { code: "wrong-dtype", reason: `${name} is ${tensor.dtype}, expected ${dtype}` };
    if (tensor.shape.length !== shape.length || tensor.shape.some((dim, axis) => dim !== shape[axis])) {
      return { code: "wrong-shape", reason: `${name} is [${tensor.shape}], expected [${shape}]` };
    }
  }
  if (tensors.size > plan.length) {
    const planned = new Set(plan.map(({ name }) => name));
    const surplus = [...tensors.keys()].find((name) => !planned.has(name));
    return { code: "unknown-tensor", reason: `${surplus} is not in the plan` };
  }
  let squares = 0;
  for (const [name, tensor] of tensors) {
    const change = squaredChange(tensor, start.get(name), bound);
    if (change === undefined) return beyond(name, tensor, bound);
    squares += change;
  }
  const norm = Math.sqrt(squares);
  // Squares of float64 values beyond 1e154 overflow.
  if (!(norm <= Math.min(maxNorm, Number.MAX_VALUE))) {
    return { code: "norm-bound", reason: `the change has norm ${norm}, the bound is ${maxNorm}` };
  }
  return { norm };
}

/** Largest bits of a finite number, sign apart, in the storage types of 16 bits. */
const finiteBits: { readonly [dtype: string]: number } = { float16: 0x7bff, bfloat16: 0x7f7f };

/** Sum of squares of the difference from the start; undefined where a value is not finite or beyond the bound. */
function squaredChange(
  { dtype, data }: Tensor,
  start: Tensor | undefined,
  bound: number,
): number | undefined {
  if (data instanceof Float32Array || data instanceof Float64Array) {
    const from =
      start?.data.length === data.length &&
      (start.data instanceof Float32Array || start.data instanceof Float64Array)
        ? start.data
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
function beyond(name: string, { data }: Tensor, bound: number): Verdict {
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
