import { select } from "../../tensor/params.ts";
import { placesBytes } from "../../tensor/places.ts";
import {
  besideScalars,
  type ClosedForm,
  changeScalars,
  closedForm,
  dealt,
  everything,
  largestPairs,
  nothing,
  overModules,
  ownPairs,
  pairScalars,
  pairs,
  type Sizes,
  sets,
  type Traffic,
  trainedScalars,
  wholePairs,
} from "./traffic.ts";

/** Nothing travels; the server keeps what everybody starts from. */
export const offline: Traffic = { down: nothing, up: nothing, kept: sets(1) };

/** All that is trained both ways, and `times` as much on the server. */
export function keptTimes(times: number): Traffic {
  return { ...everything, kept: sets(times) };
}

/** A control variate beside all that is trained, both ways and on the server. */
export const controlled: Traffic = { down: sets(2), up: sets(2), kept: sets(2) };

/** The server remembers as many earlier models as a client may be late. */
export function remembered(maxStaleness: number): Traffic {
  return {
    ...everything,
    kept: closedForm(
      maxStaleness === 0 ? "D" : `${1 + maxStaleness} D`,
      (sizes, round) => (1 + Math.min(maxStaleness, round)) * trainedScalars(sizes),
    ),
  };
}

/** The factors B alone, and what is trained beside them. */
export const onlyB: Traffic = onlyOf(
  "Σ r·out + H",
  (sizes) => overModules(sizes, (out) => sizes.rank * out) + besideScalars(sizes),
);

function onlyOf(text: string, of: ClosedForm["of"]): Traffic {
  const form = closedForm(text, of);
  return { down: form, up: form, kept: pairs };
}

/** The pairs at the client's own rank, both ways. */
export const unequal: Traffic = { down: ownPairs, up: ownPairs, kept: largestPairs };

/** The pairs at the client's own rank, which it tells in one number more. */
export const shrinking: Traffic = {
  ...unequal,
  up: closedForm("L(r_k) + H + 1", (sizes) => trainedScalars(sizes) + 1),
};

const besideOnly = (sizes: Sizes): number => besideScalars(sizes);

/** The mean pairs, and what their product misses: a base change of rank (K − 1) r, or of rank q at most. */
export function corrected(q: number | undefined): Traffic {
  const text = q === undefined ? "L(r) + H + C((K−1) r)" : `L(r) + H + C(min(${q}, (K−1) r))`;
  return {
    ...wholePairs,
    down: closedForm(text, (sizes, round) => {
      const rank = Math.min((sizes.ranks.length - 1) * sizes.rank, q ?? Number.POSITIVE_INFINITY);
      return trainedScalars(sizes) + (round > 1 ? changeScalars(sizes, rank) : 0);
    }),
    settles: 2,
  };
}

/** The mean product as a base change of rank K r; clients draw their new pair. */
export const restartedPairs: Traffic = {
  up: pairs,
  down: closedForm(
    "H + C(K r)",
    (sizes, round) =>
      besideOnly(sizes) + (round > 1 ? changeScalars(sizes, sizes.ranks.length * sizes.rank) : 0),
  ),
  kept: closedForm("L(r) + 2 H", (sizes) => trainedScalars(sizes) + besideOnly(sizes)),
  settles: 2,
};

/** The change of the mean product as a base change of rank 2 K r; clients keep their pairs, and the server theirs. */
export const keptPairs: Traffic = {
  up: pairs,
  down: closedForm("H + C(2 K r)", (sizes, round) => {
    // Before round 1 every B is 0.
    const terms = Math.min(round - 1, 2) * sizes.ranks.length;
    return besideOnly(sizes) + (round > 1 ? changeScalars(sizes, terms * sizes.rank) : 0);
  }),
  kept: closedForm("(N + 1) L(r) + 2 H", (sizes, round) => {
    const held = round > 0 ? sizes.seen : 0;
    return (held + 1) * pairScalars(sizes, sizes.rank) + 2 * besideOnly(sizes);
  }),
  settles: 3,
};

/** The stack of all pairs of the round as a base change; clients draw their new pair. */
export const stacked: Traffic = {
  up: ownPairs,
  down: closedForm("H + Σ_j L(r_j)", (sizes, round) => {
    const stack = round > 1 ? sizes.ranks.reduce((sum, rank) => sum + pairScalars(sizes, rank), 0) : 0;
    return besideOnly(sizes) + stack;
  }),
  kept: largestPairs,
  settles: 2,
};

/** Rounds in which the mean product goes to the base. */
export interface Merging {
  readonly mergeEvery: number;
  readonly reset: boolean;
}

/** The mean pair, in the round after a merge as a base change; without a reset as both. */
export function merged({ mergeEvery, reset }: Merging): Traffic {
  return {
    ...wholePairs,
    down: mergedDown({ mergeEvery, reset }),
    settles: mergeEvery + 1,
  };
}

function mergedDown({ mergeEvery, reset }: Merging, further = 0): ClosedForm {
  const more = further > 0 ? ` + ${further}` : "";
  const text = reset ? `L(r) + H${more}` : `L(r) + H${more}, + L(r) after a merge`;
  return closedForm(text, (sizes, round) => {
    const again = !reset && round > 1 && (round - 1) % mergeEvery === 0;
    return trainedScalars(sizes) + further + (again ? pairScalars(sizes, sizes.rank) : 0);
  });
}

/** As `merged`, with a private pair in the server's start. */
export function mergedBesidePrivate(merging: Merging): Traffic {
  return {
    ...merged(merging),
    kept: closedForm("2 L(r) + H", (sizes) => trainedScalars(sizes) + pairScalars(sizes, sizes.rank)),
  };
}

/** As `merged`, but inner factors of rank r_k go up, and their rank goes down. */
export function mergedFromInner(
  merging: Merging,
  innerRanks: readonly number[] | Readonly<Record<string, number>> | undefined,
): Traffic {
  return {
    ...merged(merging),
    down: mergedDown(merging, 1),
    up: closedForm("Σ r_k (out + in) + 2 r r_k + H", (sizes) => {
      const inner = dealt(innerRanks, sizes) ?? Math.ceil(sizes.rank / 2);
      return (
        overModules(sizes, (out, width) => inner * (out + width) + 2 * sizes.rank * inner) + besideOnly(sizes)
      );
    }),
  };
}

/** The change of the mean product against a start that everybody knows. */
export const fromKnownStart: Traffic = {
  ...wholePairs,
  down: closedForm("L(r) + H", (sizes, round) => (round > 1 ? trainedScalars(sizes) : besideOnly(sizes))),
  settles: 2,
};

/** Weights as products of width q = out / γ_k; matrices of the heads stay whole. */
export function factorizedWeights(
  ratios: readonly number[] | Readonly<Record<string, number>> | undefined,
  whole: readonly string[] = ["classifier.weight", "score.weight", "lm_head.weight"],
): Traffic {
  const scalars = (sizes: Sizes, ratio: number): number => {
    const pair = (out: number, width: number): number => {
      const share = out / ratio;
      const even = 2 * Math.round(share / 2);
      const rounded = Math.abs(share - even) === 0.5 ? even : Math.round(share);
      return Math.max(1, Math.min(rounded, out, width)) * (out + width);
    };
    const beside = [...sizes.beside].reduce((sum, [name, [out = 1, width = 1, ...more]]) => {
      const isCut =
        name.endsWith(".weight") &&
        sizes.beside.get(name)?.length === 2 &&
        !whole.some((ending) => name.endsWith(ending));
      return sum + (isCut ? pair(out, width) : [out, width, ...more].reduce((a, b) => a * b, 1));
    }, 0);
    return overModules(sizes, pair) + beside;
  };
  const held = closedForm("Σ q_k (out + in) + H", (sizes) => scalars(sizes, dealt(ratios, sizes) ?? 1));
  return {
    down: held,
    up: held,
    kept: closedForm("Σ min(out, in) (out + in) + H", (sizes) => scalars(sizes, 1)),
  };
}

/** Shares of the vector of all that is trained, down and up, of which clients and the server know the length. */
export interface Densities {
  readonly downDensity: number;
  readonly upDensity: number;
}

/**
 * Values and places of the largest ⌊d D⌋ numbers, both ways; down without those that are 0. The server keeps `times` sets of
 * all that is trained beside what it sends.
 */
export function sparseBothWays({ downDensity, upDensity }: Densities, times: number): Traffic {
  const sent = (sizes: Sizes, count: number): number => count + placesBytes(count, trainedScalars(sizes)) / 4; // in numbers of 4 bytes
  const share = (sizes: Sizes, density: number): number => Math.floor(density * trainedScalars(sizes));
  const down = (sizes: Sizes, nonzero = 0): number =>
    sent(sizes, Math.min(share(sizes, downDensity), nonzero));
  const all = times === 1 ? "D" : `${times} D`;
  return {
    down: closedForm(`⌊${downDensity} D⌋ + places`, (sizes, round) =>
      down(sizes, round === 1 ? sizes.drawn.nonzeroFirst : sizes.drawn.nonzero),
    ),
    up: closedForm(`⌊${upDensity} D⌋ + places`, (sizes) => sent(sizes, share(sizes, upDensity))),
    kept: closedForm(
      `${all} + ⌊${downDensity} D⌋ + places`,
      (sizes, round) =>
        times * trainedScalars(sizes) +
        down(sizes, round === 0 ? sizes.drawn.nonzeroFirst : sizes.drawn.nonzero),
    ),
    settles: 2,
    drawn: (states) => ({
      nonzeroFirst: nonzeros(property(states[0], "params")),
      nonzero: nonzeros(property(states.at(-1), "params")),
    }),
  };
}

/** The factors A alone. */
export const onlyA: Traffic = {
  ...onlyOf("Σ r·in", (sizes) => overModules(sizes, (_, width) => sizes.rank * width)),
  kept: closedForm(
    "L(r) + Σ r·in + H",
    (sizes) => trainedScalars(sizes) + overModules(sizes, (_, width) => sizes.rank * width),
  ),
};

/** One vector of r numbers a module; another of out numbers stays on the client. */
export const vectors: Traffic = {
  ...onlyOf("Σ r", (sizes) => overModules(sizes, () => sizes.rank)),
  kept: closedForm(
    "Σ (2 r + out) + H",
    (sizes) => overModules(sizes, (out) => 2 * sizes.rank + out) + besideOnly(sizes),
  ),
};

/** r × r cores; the server keeps one and a mixture for each client. */
export const cores: Traffic = {
  ...onlyOf("Σ r²", (sizes) => overModules(sizes, () => sizes.rank ** 2)),
  kept: closedForm("L(r) + H + (2 N + 1) Σ r²", (sizes, round) => {
    const held = round > 0 ? 2 * sizes.seen : 0;
    return trainedScalars(sizes) + (held + 1) * overModules(sizes, () => sizes.rank ** 2);
  }),
  settles: 2,
};

/** The masked entries of the weights for some rounds, then the pairs. */
export function maskedFirst(sparseRounds: number): Traffic {
  if (sparseRounds === 0) return wholePairs;
  const entries = ({ drawn: { masked = 0 } }: Sizes): number => masked;
  const text = `|M| + H, from round ${sparseRounds + 1} L(r) + H`;
  return {
    down: closedForm(text, (sizes, round) =>
      round > sparseRounds ? trainedScalars(sizes) : besideOnly(sizes) + (round > 1 ? entries(sizes) : 0),
    ),
    up: closedForm(text, (sizes, round) =>
      round > sparseRounds ? trainedScalars(sizes) : besideOnly(sizes) + entries(sizes),
    ),
    kept: closedForm(
      "L(r) + H, in sparse rounds + |M|",
      (sizes, round) => trainedScalars(sizes) + (round > 0 && round < sparseRounds ? entries(sizes) : 0),
    ),
    settles: sparseRounds + 1,
    drawn: (states, upload) => {
      // The state after the last of these rounds has nothing of the mask.
      const held = Math.max(...states.map((state) => scalarsOf(property(state, "difference"))));
      return { masked: held > 0 ? held : scalarsOf(select(upload, (name) => name.endsWith(".values"))) };
    },
  };
}

/** All that is trained, and a mean of each of as many clusters as there are tasks. */
export function clustered(tasks: number): Traffic {
  return {
    ...everything,
    kept: closedForm(`${1 + tasks} D`, (sizes, round) => {
      const means = round > 0 ? Math.min(tasks, sizes.seen) : 0;
      return (1 + means) * trainedScalars(sizes);
    }),
    settles: 2,
  };
}

/** Nothing for some rounds, then one upload, then the own expert and a router up, all M experts and the router down. */
export function experts(warmupRounds: number): Traffic {
  const count = ({ drawn: { experts: found = 1 } }: Sizes): number => found; // M
  const router = (sizes: Sizes): number => overModules(sizes, (_, width) => (2 * count(sizes) - 1) * width);
  return {
    down: closedForm("M L(r) + H + Σ (2M−1) in", (sizes, round) =>
      round > warmupRounds
        ? count(sizes) * pairScalars(sizes, sizes.rank) + besideOnly(sizes) + router(sizes)
        : 0,
    ),
    up: closedForm("L(r) + H + Σ (2M−1) in", (sizes, round) =>
      round < warmupRounds ? 0 : trainedScalars(sizes) + (round > warmupRounds ? router(sizes) : 0),
    ),
    kept: closedForm("(M + 1) (L(r) + H) + M Σ (2M−1) in", (sizes, round) =>
      round < warmupRounds
        ? trainedScalars(sizes)
        : (count(sizes) + 1) * trainedScalars(sizes) + count(sizes) * router(sizes),
    ),
    settles: warmupRounds + 1,
    drawn: (states) => {
      const found = property(states.at(-1), "experts");
      return { experts: Array.isArray(found) && found.length > 0 ? found.length : 1 };
    },
  };
}

function property(state: unknown, key: string): unknown {
  if (typeof state !== "object" || state === null) return undefined;
  return Object.entries(state).find(([name]) => name === key)?.[1];
}

/** Numbers in a set of tensors that are not 0. */
function nonzeros(params: unknown): number {
  if (!(params instanceof Map)) return 0;
  return [...params.values()].reduce(
    (sum: number, { data }: { data: Float32Array }) => sum + data.filter((x) => x !== 0).length,
    0,
  );
}

/** Numbers in a set of tensors. */
function scalarsOf(params: unknown): number {
  if (!(params instanceof Map)) return 0;
  return [...params.values()].reduce(
    (sum: number, { data }: { data: ArrayLike<number> }) => sum + data.length,
    0,
  );
}
