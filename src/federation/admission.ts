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
    const measured = measure(tensor, start.get(name));
    if (!measured.finite) return { code: "not-finite", reason: `${name} holds NaN or an infinity` };
    if (measured.largest > bound) {
      return {
        code: "out-of-bounds",
        reason: `${name} holds the magnitude ${measured.largest}, the round's bound is ${bound}`,
      };
    }
    squares += measured.squares;
  }
  const norm = Math.sqrt(squares);
  if (norm > maxNorm) {
    return { code: "norm-bound", reason: `the change has norm ${norm}, the bound is ${maxNorm}` };
  }
  return { norm };
}

interface Measured {
  readonly finite: boolean;
  readonly largest: number;
  /** Sum of squares of the difference from the start. */
  readonly squares: number;
}

/** Largest bits of a finite number, sign apart, in the storage types of 16 bits. */
const finiteBits: { readonly [dtype: string]: number } = { float16: 0x7bff, bfloat16: 0x7f7f };

function measure({ dtype, data }: Tensor, start: Tensor | undefined): Measured {
  if (data instanceof Float32Array || data instanceof Float64Array) {
    const from =
      start?.data.length === data.length &&
      (start.data instanceof Float32Array || start.data instanceof Float64Array)
        ? start.data
        : undefined;
    return from ? measureChange(data, from) : measureChange(data, new Float32Array(data.length));
  }
  const limit = finiteBits[dtype];
  const finite =
    limit === undefined || !(data instanceof Uint16Array) || data.every((bits) => (bits & 0x7fff) <= limit);
  return { finite, largest: 0, squares: 0 };
}

/** One pass, two entries at a time. Without NaN and infinities every square is finite, except for float64 beyond 1e154. */
function measureChange(values: Float32Array | Float64Array, start: Float32Array | Float64Array): Measured {
  let largest = 0;
  let even = 0;
  let odd = 0;
  for (let i = 0; i + 1 < values.length; i += 2) {
    const a = values[i]!;
    const b = values[i + 1]!;
    const p = a - start[i]!;
    const q = b - start[i + 1]!;
    even += p * p;
    odd += q * q;
    if (a > largest) largest = a;
    else if (-a > largest) largest = -a;
    if (b > largest) largest = b;
    else if (-b > largest) largest = -b;
  }
  if (values.length % 2 === 1) {
    const last = values[values.length - 1]!;
    even += (last - start[values.length - 1]!) ** 2;
    largest = Math.max(largest, Math.abs(last));
  }
  const squares = even + odd;
  return { finite: Number.isFinite(squares), largest, squares };
}
