import { expect, it } from "vitest";
import { kills } from "../../scripts/faults/kills.ts";
import { soak } from "../../scripts/faults/soak.ts";

it("small federations whose processes and network fail at random keep every promise: seeds 1 to 3", async () => {
  const lines: string[] = [];
  const campaign = await kills.open({ onTrace: (line) => lines.push(line) });
  for (let seed = 1; seed <= 3; seed++) expect(await campaign.run(seed)).toBeUndefined();
  await campaign.close();
  for (const fault of ["the coordinator is killed", "a client is killed", /the network (?:is down|swallows)/])
    expect(lines.join("\n")).toMatch(fault);
}, 120_000);

it("a run of many rounds that is killed again and again leaves nothing behind", async () => {
  const lines: string[] = [];
  expect(await soak({ rounds: 60, life: 20, seed: 1, say: (line) => lines.push(line) })).toEqual([]);
  expect(lines.filter((line) => line.startsWith("life ")).length).toBeGreaterThan(2);
});
