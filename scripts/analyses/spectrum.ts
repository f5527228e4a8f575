import { applyChanges, offsetOf } from "../../src/federation/base-chain.ts";
import type { Committed } from "../../src/federation/federate.ts";
import { isFactor, loraModules, productChange } from "../../src/federation/low-rank.ts";
import { effectiveRank } from "../../src/report/ranks.ts";
import { svd } from "../../src/tensor/linalg.ts";
import { matrixOf } from "../../src/tensor/matrix.ts";
import { type Params, select } from "../../src/tensor/params.ts";

/** How many directions matter in a spectrum. */
export interface Ranks {
  /** Singular values above 10^-6 of the largest, the precision of float32 sums. */
  readonly numerical: number;
  /** As `effectiveRank` gives it. */
  readonly effective: number;
}

/** Both ranks of a spectrum. */
export function ranksOf(singularValues: Float64Array): Ranks {
  const largest = singularValues[0] ?? 0;
  return {
    numerical: singularValues.filter((sigma) => sigma > 1e-6 * largest).length,
    effective: effectiveRank(singularValues),
  };
}

/** Share of the squared sum that the first `rank` singular values hold. */
export function energyOf(singularValues: Float64Array, rank: number): number {
  const squares = (values: Float64Array): number => values.reduce((sum, sigma) => sum + sigma * sigma, 0);
  const all = squares(singularValues);
  return all === 0 ? 1 : squares(singularValues.slice(0, rank)) / all;
}

/** What a run has added so far to the pretrained weights of the chosen modules: changes of the base and s B A. */
export function accumulated(
  { chain, global }: Pick<Committed, "chain" | "global">,
  scaling: number,
  isChosen: (module: string) => boolean,
): ReadonlyMap<string, Float64Array> {
  const pairs = select(global(), (name) => isFactor(name) && isChosen(name.replace(/\.lora_.*$/, "")));
  const base = select(offsetOf(chain), (name) => isChosen(name.replace(/\.weight$/, "")));
  const changed: Params =
    loraModules(pairs).length > 0 ? applyChanges(base, [productChange(pairs, scaling)]) : base;
  return new Map(
    [...changed].map(([name, tensor]) => [
      name.replace(/\.weight$/, ""),
      svd(matrixOf(tensor)).singularValues,
    ]),
  );
}
