import { campaign, report } from "../../src/simulation/campaign.ts";
import { simulated } from "../../test/simulation/strategies.ts";
import type { Campaign } from "./campaign.ts";

/** Simulated federations on a virtual clock, with faults of network, disks and processes. */
export const simulation: Campaign = {
  name: "simulation",
  async *run({ seeds, clients, rounds, onTrace }) {
    const size = { clients, rounds };
    const results = campaign({ ...size, seeds, strategies: simulated, ...(onTrace && { onTrace }) });
    for await (const result of results)
      yield { done: 1, ...(result.problems.length > 0 && { failure: report(result, size) }) };
  },
};
