import type { Strategy } from "../federation/strategy.ts";
import { strategyOf } from "../strategies/catalogue/entries.ts";
import { buffered } from "../wrappers/buffered.ts";
import { clipped } from "../wrappers/clipped.ts";
import { half } from "../wrappers/half.ts";
import { quantized } from "../wrappers/quantized.ts";
import { sparse } from "../wrappers/sparse.ts";
import type { Job, UpdatesJob } from "./job.ts";

/** The strategy of a job with what happens to its updates: what arrives is unpacked, brought up to date, then clipped. */
export function jobStrategy({ strategy, updates }: Pick<Job, "strategy" | "updates">): Strategy {
  const { clip, packing, precision, late } = updates;
  const inner = strategyOf(strategy);
  const current: Strategy = late === undefined ? inner : buffered(inner, late);
  const bounded = clip === undefined ? current : clipped(current, { norm: clip });
  const written = packedBy(bounded, packing);
  return precision === "float32" ? written : half(written, { format: precision });
}

function packedBy(inner: Strategy, packing: UpdatesJob["packing"]): Strategy {
  switch (packing.kind) {
    case "none":
      return inner;
    case "quantized":
      return quantized(inner, packing);
    case "sparse":
      return sparse(inner, packing);
  }
}
