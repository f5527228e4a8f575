import type { Params } from "../../tensor/params.ts";

/** What the closed forms of a method depend on: the shapes of a job, one client of it, and what the run has drawn. */
export interface Sizes {
  /** [out, in] of every adapted module; none where weights themselves are trained. */
  readonly modules: readonly (readonly [out: number, width: number])[];
  /** Shapes of what is trained beside the factors; of all that is trained where there are none. */
  readonly beside: ReadonlyMap<string, readonly number[]>;
  /** Every enrolled client, in the order in which options are dealt. */
  readonly clients: readonly string[];
  /** The client that is counted. */
  readonly client: string;
  /** Its rank r_k. */
  readonly rank: number;
  /** r, the largest rank of the run. */
  readonly largest: number;
  /** r_j of the K clients of a round. */
  readonly ranks: readonly number[];
  /** Clients that have trained so far. */
  readonly seen: number;
  /** Numbers that only the run knows, such as the size of a random mask. */
  readonly drawn: Readonly<Record<string, number>>;
}

/** A number of scalars as a formula in the symbols of docs/methods/README.md, and as a function of the sizes. */
export interface ClosedForm {
  readonly text: string;
  /** For a round, from 1; of what is kept: after that round, from 0. */
  of(sizes: Sizes, round: number): number;
}

/** What a method sends and keeps. */
export interface Traffic {
  /** To one client in one round, the base changes of the round before included. */
  readonly down: ClosedForm;
  readonly up: ClosedForm;
  /** On the server from round to round, apart from the changed base. */
  readonly kept: ClosedForm;
  /** The first round that costs as much as those after it. Default: 1. */
  readonly settles?: number;
  /** Reads `Sizes.drawn` off the server's states before round 1 and after each, and off the first upload. */
  readonly drawn?: (states: readonly unknown[], upload: Params) => Readonly<Record<string, number>>;
}

/** A closed form. */
export function closedForm(text: string, of: ClosedForm["of"]): ClosedForm {
  return { text, of };
}

/** Σ over the adapted modules. */
export function overModules(
  { modules }: Pick<Sizes, "modules">,
  of: (out: number, width: number) => number,
): number {
  return modules.reduce((sum, [out, width]) => sum + of(out, width), 0);
}

/** L(rank) = Σ rank (out + in), the scalars of the pairs at a rank. */
export function pairScalars(sizes: Pick<Sizes, "modules">, rank: number): number {
  return overModules(sizes, (out, width) => rank * (out + width));
}

/** H, the scalars that are trained beside the factors. */
export function besideScalars({ beside }: Pick<Sizes, "beside">): number {
  return [...beside.values()].reduce((sum, shape) => sum + shape.reduce((a, b) => a * b, 1), 0);
}

/** F = Σ out·in, the scalars of the adapted weights. */
export function weightScalars(sizes: Pick<Sizes, "modules">): number {
  return overModules(sizes, (out, width) => out * width);
}

/** D = L(r) + H at a rank, all that is trained. */
export function trainedScalars(sizes: Sizes, rank: number = sizes.rank): number {
  return pairScalars(sizes, rank) + besideScalars(sizes);
}

/** Nothing travels. */
export const nothing: ClosedForm = closedForm("0", () => 0);

/** All that is trained. */
export const trained: ClosedForm = closedForm("D", (sizes) => trainedScalars(sizes));

/** The pairs and what is trained beside them. */
export const pairs: ClosedForm = closedForm("L(r) + H", (sizes) => trainedScalars(sizes));

/** The pairs at the client's own rank, and what is trained beside them. */
export const ownPairs: ClosedForm = closedForm("L(r_k) + H", (sizes) => trainedScalars(sizes));

/** The pairs at the largest rank, and what is trained beside them. */
export const largestPairs: ClosedForm = closedForm("L(r) + H", (sizes) =>
  trainedScalars(sizes, sizes.largest),
);

/** `times` sets of all that is trained. */
export function sets(times: number): ClosedForm {
  return closedForm(
    times === 1 ? "D" : `${times} D`,
    (sizes) => times * trainedScalars(sizes, sizes.largest),
  );
}

/** All that is trained, both ways, and as much on the server. */
export const everything: Traffic = { down: trained, up: trained, kept: sets(1) };

/** The pairs both ways, and as much on the server. */
export const wholePairs: Traffic = { down: pairs, up: pairs, kept: pairs };

/** Scalars of a base change of some rank: its factors, or the dense difference where that is no longer. */
export function changeScalars(sizes: Sizes, rank: number): number {
  return overModules(sizes, (out, width) =>
    Math.min(Math.min(rank, out, width) * (out + width), out * width),
  );
}

/** Value of a client in a list that is dealt in turn, or by name. */
export function dealt(
  values: readonly number[] | Readonly<Record<string, number>> | undefined,
  { clients, client }: Pick<Sizes, "clients" | "client">,
): number | undefined {
  if (values === undefined) return undefined;
  return isList(values) ? values[clients.indexOf(client) % values.length] : values[client];
}

function isList(values: readonly number[] | Readonly<Record<string, number>>): values is readonly number[] {
  return Array.isArray(values);
}
