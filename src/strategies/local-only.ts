import type { Strategy } from "../federation/strategy.ts";
import { weightsOf } from "../federation/weights.ts";
import type { Params } from "../tensor/params.ts";

/**
 * Local only: every client trains alone and goes on from its own parameters; nothing travels but the news that it has
 * trained. The line at the bottom of federated tables.
 *
 * As "local" in McMahan et al., AISTATS 2017, section 3. https://arxiv.org/abs/1602.05629
 */
export function localOnly(): Strategy<Params> {
  return {
    name: "Local only",
    paper: "baseline; as in McMahan et al., AISTATS 2017, section 3, https://arxiv.org/abs/1602.05629",
    declares: { isolated: true, personal: true, clientState: true },
    init: (initial) => initial,
    broadcast: () => ({ params: new Map() }),
    local: {
      remember: (_, initial) => initial,
      start: ({ memory }) => ({ params: memory }),
      upload: ({ params }) => ({ params: new Map(), memory: params }),
    },
    aggregate(state, updates) {
      weightsOf("Local only", updates, "uniform");
      return { state };
    },
    global: (initial) => initial,
  };
}
