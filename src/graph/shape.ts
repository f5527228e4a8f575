/**
 * A dimension: a number, or a symbol that is bound when a session runs ("batch", "sequence"), or a product of both
 * in canonical form ("2*batch*sequence": coefficient first, symbols sorted).
 */
export type Dim = number | string;
export type Shape = readonly Dim[];

/** Product of dimensions in canonical form. */
export function timesDim(...dims: Dim[]): Dim {
  let coefficient = 1;
  const symbols: string[] = [];
  for (const dim of dims) {
    for (const factor of String(dim).split("*")) {
      if (/^\d+$/.test(factor)) coefficient *= Number(factor);
      else symbols.push(factor);
    }
  }
  if (symbols.length === 0) return coefficient;
  if (coefficient === 0) return 0;
  symbols.sort();
  return coefficient === 1 ? symbols.join("*") : [coefficient, ...symbols].join("*");
}

/** The coefficient and the symbols of a dimension. */
export function factorsOf(dim: Dim): { readonly coefficient: number; readonly symbols: readonly string[] } {
  const factors = String(dim).split("*");
  const first = factors[0] ?? "1";
  return /^\d+$/.test(first)
    ? { coefficient: Number(first), symbols: factors.slice(1) }
    : { coefficient: 1, symbols: factors };
}

/** Number of elements as a dimension. */
export function elements(shape: Shape): Dim {
  return timesDim(...shape);
}

export function sameShape(a: Shape, b: Shape): boolean {
  return a.length === b.length && a.every((dim, i) => dim === b[i]);
}

/** NumPy broadcasting of two shapes; a symbol meets only itself and 1. */
export function broadcastShapes(a: Shape, b: Shape, who: string): Dim[] {
  const rank = Math.max(a.length, b.length);
  return Array.from({ length: rank }, (_, i) => {
    const x = a[a.length - rank + i] ?? 1;
    const y = b[b.length - rank + i] ?? 1;
    if (x === y || y === 1) return x;
    if (x === 1) return y;
    throw new RangeError(`${who}: shapes [${a}] and [${b}] do not broadcast (${x} against ${y})`);
  });
}

/** Axis counted from the front; throws RangeError outside the rank. */
export function normalizeAxis(axis: number, rank: number, who: string): number {
  const positive = axis < 0 ? axis + rank : axis;
  if (positive < 0 || positive >= rank) throw new RangeError(`${who}: axis ${axis} is outside rank ${rank}`);
  return positive;
}

/** Element `axis` of a shape; throws RangeError outside the rank. */
export function dimAt(shape: Shape, axis: number): Dim {
  const dim = shape[axis < 0 ? axis + shape.length : axis];
  if (dim === undefined) throw new RangeError(`shape [${shape}] has no axis ${axis}`);
  return dim;
}
