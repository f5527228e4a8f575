import type { Strategy, Values } from "../federation/strategy.ts";
import { add, mul, squaredNorm, sub } from "../graph/ops.ts";
import type { Value } from "../graph/value.ts";
import type { Params } from "../tensor/params.ts";
import { type FedAvgOptions, fedAvg } from "./fedavg.ts";

/** Options of FedProx. */
export interface FedProxOptions extends FedAvgOptions {
  /** Weight μ of the proximal term; 0 is FedAvg. Default: 0.01. */
  readonly mu?: number;
}

/**
 * FedProx: FedAvg whose clients minimize F_k(w) + (μ/2)‖w − wᵗ‖², wᵗ being what they received in this round.
 *
 * Li et al., MLSys 2020, Algorithm 2. https://arxiv.org/abs/1812.06127
 */
export function fedProx({ mu = 0.01, ...options }: FedProxOptions = {}): Strategy<Params> {
  if (!(mu >= 0)) throw new RangeError(`fedProx: mu is ${mu}, expected a number >= 0`);
  return {
    ...fedAvg(options),
    name: "FedProx",
    paper: "Li et al., MLSys 2020, Algorithm 2, https://arxiv.org/abs/1812.06127",
    local: mu === 0 ? {} : { penalty: (w, received) => mul(squaredDistance(w, received), mu / 2) },
  };
}

function squaredDistance(w: Values, received: Values): Value {
  const squares = [...w].map(([name, value]) => {
    const start = received.get(name);
    if (!start) throw new RangeError(`fedProx: the client trains ${name}, which it did not start from`);
    return squaredNorm(sub(value, start)); // ‖w − wᵗ‖²
  });
  return squares.reduce((sum, square) => add(sum, square));
}
