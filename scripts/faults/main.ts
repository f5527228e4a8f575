/**
 * Runs federations under faults and compares what they come to with what they promise:
 *
 *     npm run faults -- [--seeds 1000] [--from 1] [--hours 8] [--clients 50] [--rounds 5]
 *     npm run faults -- --seed 1234 [--trace]
 *
 * With `--hours` seeds follow one another until the time is over. Exit status 1 where a promise is broken, with the command
 * that shows it again.
 */
import { parseArgs } from "node:util";
import type { Campaign } from "./campaign.ts";
import { simulation } from "./simulation.ts";

const campaigns: readonly Campaign[] = [simulation];

const { values } = parseArgs({
  options: {
    seeds: { type: "string" },
    from: { type: "string", default: "1" },
    hours: { type: "string" },
    clients: { type: "string", default: "50" },
    rounds: { type: "string", default: "5" },
    seed: { type: "string" },
    trace: { type: "boolean", default: false },
  },
});

/** A number of the command line. */
function numberOf(name: string, text: string, least: number): number {
  const value = Number(text);
  if (value >= least && (name === "hours" || Number.isInteger(value))) return value;
  console.error(
    `faults: got --${name} ${text}, expected a ${name === "hours" ? "number" : "whole number"} of at least ${least}; for example: npm run faults -- --seeds 1000`,
  );
  process.exit(2);
}

const began = performance.now();
const clients = numberOf("clients", values.clients, 1);
const rounds = numberOf("rounds", values.rounds, 1);
const hours = values.hours === undefined ? undefined : numberOf("hours", values.hours, 0);
const only = values.seed === undefined ? undefined : numberOf("seed", values.seed, 0);
const from = only ?? numberOf("from", values.from, 0);
const usual = hours === undefined ? 1000 : Number.POSITIVE_INFINITY;
const count =
  only !== undefined ? 1 : values.seeds === undefined ? usual : numberOf("seeds", values.seeds, 1);

const hoursSince = (): number => (performance.now() - began) / 3_600_000;

function* seeds(): Generator<number> {
  for (let i = 0; i < count && hoursSince() < (hours ?? Number.POSITIVE_INFINITY); i++) yield from + i;
}

/** Share of the work that is done, by seeds or by time, whichever ends first. */
function share(done: number): number {
  return Math.max(done / count, hours === undefined ? 0 : hoursSince() / hours);
}

let failures = 0;
let shown = performance.now();
for (const { name, run } of campaigns) {
  let done = 0;
  const trace = values.trace && only !== undefined ? { onTrace: (line: string) => console.log(line) } : {};
  for await (const step of run({ seeds: seeds(), clients, rounds, ...trace })) {
    done += step.done;
    if (step.failure !== undefined) {
      failures++;
      console.error(step.failure);
    }
    if (performance.now() - shown < 5000) continue;
    shown = performance.now();
    const minutes = (hoursSince() * 60 * (1 - share(done))) / share(done);
    console.log(`${name}: ${done} seeds, ${failures} failed, ${minutes.toFixed(1)} min left`);
  }
  console.log(`${name}: ${done} seeds of ${clients} clients and ${rounds} rounds, ${failures} failed`);
}
process.exitCode = failures > 0 ? 1 : 0;
