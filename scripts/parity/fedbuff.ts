import type { Update } from "../../src/federation/strategy.ts";
import { fedBuff } from "../../src/strategies/fedbuff.ts";
import type { Params } from "../../src/tensor/params.ts";
import { stalenessWeight } from "../../src/wrappers/buffered.ts";
import { type Check, type Golden, named, type Precision, Replay, type TensorSet } from "./replay.ts";

interface Arrival {
  readonly client: string;
  readonly startVersion: number;
  readonly trained: TensorSet;
  readonly expect: Readonly<Record<string, unknown>>;
}

/** fedbuff.json: updates in the order of their arrival, aggregated whenever the buffer is full. */
export function compareFedBuff(golden: Golden, precision: Precision, check: Check): void {
  const { rounds, config } = golden as Omit<Golden, "rounds"> & { readonly rounds: readonly unknown[] };
  const options = { serverLearningRate: Number(config.serverLearningRate) };
  const strategy = fedBuff(options);
  const normalized = fedBuff({ ...options, divideBy: "weights" });
  const federation = new Replay(golden, precision, strategy);
  const versions: Params[] = [strategy.global(federation.state)];
  let buffer: Update[] = [];
  for (const [i, arrival] of (rounds as readonly Arrival[]).entries()) {
    const staleness = versions.length - 1 - arrival.startVersion;
    buffer.push({
      client: federation.client(arrival.client),
      numExamples: 1,
      params: federation.params(arrival.trained),
      received: versions[arrival.startVersion] ?? new Map(),
      staleness,
    });
    const observed: Record<string, unknown> = { staleness, weight: stalenessWeight(staleness) };
    if (buffer.length === Number(config.bufferSize)) {
      const context = { round: versions.length, seed: 1, numClients: federation.clients.length };
      const before = federation.state;
      observed.serverIfNormalized = named(
        normalized.global(normalized.aggregate(before, buffer, context).state),
      );
      federation.state = strategy.aggregate(before, buffer, context).state;
      versions.push(strategy.global(federation.state));
      observed.server = named(strategy.global(federation.state));
      observed.version = versions.length - 1;
      buffer = [];
    }
    for (const [key, expected] of Object.entries(arrival.expect))
      check.tree(`round ${i} ${key}`, observed[key], expected);
  }
}
