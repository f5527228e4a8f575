import { campaign } from "../../src/simulation/campaign.ts";
import { simulated } from "../../test/simulation/strategies.ts";
import { type Campaign, reportOf } from "./campaign.ts";

/** Simulated federations on a virtual clock, with faults of network, disks and processes. */
export const simulation: Campaign = {
  name: "simulation",
  every: 1,
  async open(options) {
    const { clients = 50, rounds = 5, onTrace } = options;
    const size = { clients, rounds, strategies: simulated, ...(onTrace && { onTrace }) };
    return {
      async run(seed) {
        const problems: string[] = [];
        for await (const result of campaign({ ...size, seeds: [seed] }))
          problems.push(...result.problems.map((problem) => `${result.strategy}: ${problem}`));
        return reportOf("simulation", seed, problems, options);
      },
      close: async () => undefined,
    };
  },
};
