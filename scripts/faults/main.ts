/**
 * Runs federations under faults and compares what they come to with what they promise:
 *
 *     npm run faults -- [--campaign simulation|kills] [--seeds 1000] [--from 1] [--hours 8] [--clients 50] [--rounds 5]
 *     npm run faults -- --campaign kills --seed 1234 [--trace]
 *     npm run faults -- --soak 10000
 *
 * Without a campaign there are both: the simulation of every seed, and processes that are killed under one of fifty. With
 * `--hours` seeds follow one another until the time is over. `--soak` is one run of so many rounds that is watched for what
 * grows. Exit status 1 where a promise is broken, with the command that shows it again.
 */
import { parseArgs } from "node:util";
import type { CampaignOptions } from "./campaign.ts";
import { kills } from "./kills.ts";
import { simulation } from "./simulation.ts";
import { soak } from "./soak.ts";

const { values } = parseArgs({
  options: {
    campaign: { type: "string" },
    seeds: { type: "string" },
    from: { type: "string", default: "1" },
    hours: { type: "string" },
    clients: { type: "string" },
    rounds: { type: "string" },
    seed: { type: "string" },
    soak: { type: "string" },
    trace: { type: "boolean", default: false },
  },
});

function refuse(got: string, expected: string): never {
  console.error(`faults: got ${got}, expected ${expected}; for example: npm run faults -- --seeds 1000`);
  process.exit(2);
}

/** A number of the command line, where it is given. */
function numberOf(
  name: "seeds" | "from" | "hours" | "clients" | "rounds" | "seed" | "soak",
  least: number,
): number | undefined {
  const text = values[name];
  if (text === undefined) return undefined;
  const value = Number(text);
  if (value >= least && (name === "hours" || Number.isInteger(value))) return value;
  return refuse(
    `--${name} ${text}`,
    `a ${name === "hours" ? "number" : "whole number"} of at least ${least}`,
  );
}

const all = [simulation, kills];
const chosen = all.filter(({ name }) => values.campaign === undefined || values.campaign === name);
if (chosen.length === 0) refuse(`--campaign ${values.campaign}`, all.map(({ name }) => name).join(" or "));

const began = performance.now();
const clients = numberOf("clients", 1);
const rounds = numberOf("rounds", 1);
const hours = numberOf("hours", 0);
const only = numberOf("seed", 0);
const soaked = numberOf("soak", 20);
const from = only ?? numberOf("from", 0) ?? 1;
const usual = hours === undefined ? 1000 : Number.POSITIVE_INFINITY;
const count = only !== undefined ? 1 : (numberOf("seeds", 1) ?? usual);

const hoursSince = (): number => (performance.now() - began) / 3_600_000;

/** Share of the work that is done, by seeds or by time, whichever ends first. */
function share(done: number): number {
  return Math.max(done / count, hours === undefined ? 0 : hoursSince() / hours);
}

async function campaigns(): Promise<number> {
  const options: CampaignOptions = {
    ...(clients !== undefined && { clients }),
    ...(rounds !== undefined && { rounds }),
    ...(values.trace && only !== undefined && { onTrace: (line: string) => console.log(line) }),
  };
  const running = await Promise.all(
    chosen.map(async (campaign) => ({ ...campaign, open: await campaign.open(options), done: 0, failed: 0 })),
  );
  const told = (): string =>
    running.map(({ name, done, failed }) => `${name}: ${done} seeds, ${failed} failed`).join("; ");
  let shown = performance.now();
  for (let i = 0; i < count && hoursSince() < (hours ?? Number.POSITIVE_INFINITY); i++) {
    for (const campaign of running) {
      if (chosen.length > 1 && (from + i) % campaign.every !== 0) continue;
      const failure = await campaign.open.run(from + i);
      campaign.done++;
      if (failure === undefined) continue;
      campaign.failed++;
      console.error(failure);
    }
    if (performance.now() - shown < 5000) continue;
    shown = performance.now();
    const minutes = (hoursSince() * 60 * (1 - share(i + 1))) / share(i + 1);
    console.log(`${told()}; ${minutes.toFixed(1)} min left`);
  }
  for (const { open } of running) await open.close();
  console.log(told());
  return running.reduce((sum, { failed }) => sum + failed, 0);
}

const failures =
  soaked === undefined
    ? await campaigns()
    : (await soak({ rounds: soaked, seed: from, say: console.log })).length;
process.exitCode = failures > 0 ? 1 : 0;
