import type { Strategy } from "../federation/strategy.ts";
import type { Params } from "../tensor/params.ts";
import { fedAvg } from "./fedavg.ts";

/**
 * Centralized training: one client holds the pooled data of all, and the server keeps what it trained. The line that
 * every federated table draws on top; one seed and one learning rate, so not a bound.
 *
 * As in the tables of Singhal et al., ACL 2025, section 5. https://arxiv.org/abs/2410.09432
 */
export function centralized(): Strategy<Params> {
  return {
    ...fedAvg(),
    name: "Centralized",
    paper: "baseline; as in Singhal et al., ACL 2025, section 5, https://arxiv.org/abs/2410.09432",
    declares: { centralized: true },
  };
}
