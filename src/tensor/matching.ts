import { TributaryError } from "../errors.ts";
import type { DType } from "./dtype.ts";

/** What two named sets must agree on. */
export interface Layout {
  readonly shape: readonly number[];
  readonly dtype: DType;
}

/**
 * Throws a TributaryError (code `params-mismatch`) unless `got` has the names, shapes and dtypes of `expected`.
 * The message lists every missing and surplus name, up to eight of each.
 */
export function assertMatching(
  who: string,
  expected: ReadonlyMap<string, Layout>,
  got: ReadonlyMap<string, Layout>,
): void {
  const missing = [...expected.keys()].filter((name) => !got.has(name));
  const surplus = [...got.keys()].filter((name) => !expected.has(name));
  if (missing.length > 0 || surplus.length > 0) {
    const parts: string[] = [];
    if (missing.length > 0) parts.push(`missing ${listNames(missing)}`);
    if (surplus.length > 0) parts.push(`surplus ${listNames(surplus)}`);
    throw new TributaryError("params-mismatch", `${who}: the names differ: ${parts.join("; ")}`);
  }
  for (const [name, want] of expected) {
    const have = got.get(name);
    if (have === undefined) continue;
    if (have.dtype !== want.dtype || !sameShape(have.shape, want.shape)) {
      throw new TributaryError(
        "params-mismatch",
        `${who}: ${name} is ${have.dtype} [${have.shape}], expected ${want.dtype} [${want.shape}]`,
      );
    }
  }
}

/** Whether two shapes have the same dimensions. */
export function sameShape(a: readonly number[], b: readonly number[]): boolean {
  return a.length === b.length && a.every((dim, axis) => dim === b[axis]);
}

/** Names for a message: the first eight, then how many more there are. */
export function listNames(names: readonly string[]): string {
  const shown = names.slice(0, 8).join(", ");
  return names.length > 8 ? `${shown} and ${names.length - 8} more` : shown;
}
