import fc from "fast-check";
import { describe, expect, it } from "vitest";
import type { BlobStore } from "../../src/federation/blob-store.ts";
import type { FederateOptions, RunStore } from "../../src/federation/federate.ts";
import type { Journal } from "../../src/federation/journal.ts";
import type { Round } from "../../src/federation/round.ts";
import type { StateTree, Strategy } from "../../src/federation/strategy.ts";
import { fedAvg } from "../../src/strategies/fedavg.ts";
import { fedexLora } from "../../src/strategies/fedex-lora.ts";
import { localOnly } from "../../src/strategies/local-only.ts";
import { clients, type Fault, fingerprint, memoryStore, remembering, runToy, toyTrainer } from "./toy.ts";

/** Counts what a store does and fails at one point: before an effect has happened, or just after. */
function crashing(
  { journal, blobs }: RunStore,
  point: number,
): { readonly store: RunStore; readonly points: () => number } {
  let at = 0;
  let dead = false;
  async function around<T>(effect: () => Promise<T>): Promise<T> {
    if (dead || at++ === point) {
      dead = true;
      throw new Error("the process is killed");
    }
    const result = await effect();
    if (dead || at++ === point) {
      dead = true;
      throw new Error("the process is killed");
    }
    return result;
  }
  const fallibleJournal: Journal = {
    append: (events, expect) => around(() => journal.append(events, expect)),
    read: (from) => journal.read(from),
  };
  const fallibleBlobs: BlobStore = {
    ...blobs,
    put: (id, bytes) => around(() => blobs.put(id, bytes)),
    sweep: (live, olderThanMs) => around(() => blobs.sweep(live, olderThanMs)),
  };
  return { store: { journal: fallibleJournal, blobs: fallibleBlobs }, points: () => at };
}

/** Runs with crashes at the given points of successive processes, then to the end. */
async function runThrough<State extends StateTree>(
  strategy: Strategy<State>,
  options: Partial<FederateOptions<State>>,
  points: readonly number[],
): Promise<{ readonly rounds: Round[]; readonly crashes: number }> {
  const store = memoryStore();
  let crashes = 0;
  for (const point of points) {
    const faulty = crashing(store, point);
    try {
      await runToy(strategy, { ...options, store: faulty.store });
    } catch (error) {
      if (!String(error).includes("killed")) throw error;
      crashes++;
    }
  }
  const resumed: Round[] = [];
  await runToy(strategy, {
    ...options,
    store,
    onEvent: (event) => {
      if (event.type === "resumed") resumed.push(...event.rounds);
      if (event.type === "round-committed") resumed.push(event.round);
    },
  });
  return { rounds: resumed, crashes };
}

async function everyPoint<State extends StateTree>(
  strategy: Strategy<State>,
  options: Partial<FederateOptions<State>>,
): Promise<number> {
  const reference = fingerprint(await runToy(strategy, { ...options, store: memoryStore() }));
  for (let point = 0; ; point++) {
    const { rounds, crashes } = await runThrough(strategy, options, [point]);
    expect(fingerprint(rounds), `killed at point ${point}`).toEqual(reference);
    if (crashes === 0) return point;
  }
}

describe("a run that is killed before or after every write", () => {
  const small = { rounds: 2, clients: clients(3) };

  it("ends with the same bytes: FedAvg, updates kept", async () => {
    expect(await everyPoint(fedAvg(), small)).toBeGreaterThan(40);
  });

  it("ends with the same bytes: FedAvg, streamed into an exact sum", async () => {
    expect(await everyPoint(fedAvg(), { ...small, updateMemory: 0 })).toBeGreaterThan(40);
  });

  it("ends with the same bytes: clients that remember", async () => {
    expect(await everyPoint(remembering(), small)).toBeGreaterThan(40);
  });

  it("ends with the same bytes: FedEx-LoRA, which changes the base", async () => {
    expect(await everyPoint(fedexLora(), small)).toBeGreaterThan(40);
  });

  it("ends with the same bytes: FedEx-LoRA, updates read module by module", async () => {
    expect(await everyPoint(fedexLora(), { ...small, updateMemory: 0 })).toBeGreaterThan(40);
  });

  it("ends with the same bytes: clients that train alone", async () => {
    expect(await everyPoint(localOnly(), small)).toBeGreaterThan(40);
  });

  it("ends with the same bytes: old rounds swept, states evaluated", async () => {
    const evaluate = async ({ round }: { readonly round: number }): Promise<Record<string, number>> => ({
      round,
    });
    expect(await everyPoint(remembering(), { ...small, keepRounds: 0, evaluate })).toBeGreaterThan(40);
  });
});

describe("any schedule of faults", () => {
  const faults: readonly Fault[] = ["throw", "nan", "nan-loss", "shape", "extra", "too-many", "empty"];
  const schedule = fc.record({
    faults: fc.array(
      fc.record({
        client: fc.integer({ min: 0, max: 5 }),
        round: fc.integer({ min: 1, max: 3 }),
        fault: fc.constantFrom(...faults),
      }),
      { maxLength: 5 },
    ),
    crashes: fc.array(fc.integer({ min: 0, max: 60 }), { maxLength: 5 }),
    concurrency: fc.integer({ min: 1, max: 4 }),
    streamed: fc.boolean(),
  });

  function options(plan: ReadonlyMap<string, Fault>, streamed: boolean): Partial<FederateOptions<StateTree>> {
    return {
      clients: clients(6),
      quorum: 1,
      ...(streamed && { updateMemory: 0 }),
      trainer: toyTrainer({ fault: (client, round) => plan.get(`${client} ${round}`) }),
    };
  }

  function keyed(
    list: readonly { readonly client: number; readonly round: number; readonly fault: Fault }[],
  ): Map<string, Fault> {
    return new Map(list.map(({ client, round, fault }) => [`c0${client} ${round}`, fault]));
  }

  it.each([
    ["FedAvg", fedAvg()],
    ["clients that remember", remembering()],
  ])("ends as a calm run in which those contributions were absent: %s", async (_, strategy) => {
    await fc.assert(
      fc.asyncProperty(schedule, async (drawn) => {
        const plan = keyed(drawn.faults);
        const absent = new Map([...plan.keys()].map((key): [string, Fault] => [key, "throw"]));
        const calm = await runToy(strategy, { ...options(absent, drawn.streamed), store: memoryStore() });
        const stormy = await runThrough(
          strategy,
          { ...options(plan, drawn.streamed), concurrency: drawn.concurrency },
          drawn.crashes,
        );
        expect(fingerprint(stormy.rounds)).toEqual(fingerprint(calm));
        for (const round of stormy.rounds) {
          const named = drawn.faults
            .filter((fault) => fault.round === round.number)
            .map(({ client }) => `c0${client}`);
          expect(round.rejected.map(({ client }) => client)).toEqual([...new Set(named)].sort());
        }
      }),
      { numRuns: 60, seed: 20261121 },
    );
  });
});
