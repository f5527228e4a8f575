import { expect } from "vitest";
import { campaign, report } from "../../src/simulation/campaign.ts";
import { simulated } from "./strategies.ts";

/** Simulates 50 clients in 5 rounds under every seed of a range, and expects that all promises hold. */
export async function expectPromisesKept(first: number, count: number): Promise<void> {
  const size = { clients: 50, rounds: 5 };
  const seeds = Array.from({ length: count }, (_, i) => first + i);
  const failures: string[] = [];
  const used = new Set<string>();
  let coordinators = 0;
  let silos = 0;
  for await (const result of campaign({ ...size, seeds, strategies: simulated })) {
    if (result.problems.length > 0) failures.push(report(result, size));
    used.add(`${result.strategy}, ${result.all ? "all must count" : "some may be missing"}`);
    coordinators += result.counts.coordinators - 1;
    silos += result.counts.silos - size.clients;
  }
  expect(failures.join("\n\n")).toBe("");
  // The seeds reach what they are there for.
  expect(used.size).toBe(2 * simulated.length);
  expect(coordinators).toBeGreaterThan(count);
  expect(silos).toBeGreaterThan(3 * count);
}
