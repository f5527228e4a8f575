import { usageError } from "./exit.ts";

export interface NumberFlagOptions {
  readonly fallback: number;
  readonly minimum?: number;
  readonly maximum?: number;
  readonly whole?: boolean;
}

/** The number of a flag, or its default. */
export function numberFlag(
  flags: ReadonlyMap<string, string>,
  name: string,
  {
    fallback,
    minimum = Number.NEGATIVE_INFINITY,
    maximum = Number.POSITIVE_INFINITY,
    whole = false,
  }: NumberFlagOptions,
): number {
  const text = flags.get(name);
  if (text === undefined) return fallback;
  const value = text.trim() === "" ? Number.NaN : Number(text);
  if (Number.isFinite(value) && value >= minimum && value <= maximum && (!whole || Number.isInteger(value)))
    return value;
  const low = Number.isFinite(minimum) ? ` from ${minimum}` : "";
  const high = Number.isFinite(maximum) ? ` to ${maximum}` : "";
  throw usageError(
    `--${name}: got ${JSON.stringify(text)}, expected a ${whole ? "whole " : ""}number${low}${high}; correct it`,
  );
}
