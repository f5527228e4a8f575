import { describe, expect, it } from "vitest";
import { virtualEnv } from "../../src/federation/env.ts";
import type { RunEvent } from "../../src/federation/events.ts";
import { federate, type RunStore } from "../../src/federation/federate.ts";
import { openState } from "../../src/federation/manifest.ts";
import type { Round } from "../../src/federation/round.ts";
import type { StateTree, Strategy } from "../../src/federation/strategy.ts";
import { fedAvg } from "../../src/strategies/fedavg.ts";
import { fedexLora } from "../../src/strategies/fedex-lora.ts";
import { flexLora } from "../../src/strategies/flexlora.ts";
import { frLora } from "../../src/strategies/frlora.ts";
import { localOnly } from "../../src/strategies/local-only.ts";
import type { Params } from "../../src/tensor/params.ts";
import {
  adapter,
  clients,
  fingerprint,
  memoryStore,
  remembering,
  runToy,
  toyOptions,
  toyTrainer,
} from "./toy.ts";

describe("federate", () => {
  it("gives the mean of what the clients trained, weighted by their examples", async () => {
    const store = memoryStore();
    const trained: { readonly n: number; readonly params: Params }[] = [];
    const trainer = toyTrainer();
    const rounds = await runToy(fedAvg(), {
      rounds: 1,
      store,
      trainer: {
        async train(task, options) {
          const result = await trainer.train(task, options);
          trained.push({ n: result.numExamples, params: result.params });
          return result;
        },
      },
    });
    const mean = (await openState(store.blobs, rounds[0]?.state ?? "")) as Params;
    const total = trained.reduce((sum, { n }) => sum + n, 0);
    for (const [name, { data }] of mean) {
      for (const [i, value] of data.entries()) {
        const expected = trained.reduce(
          (sum, { n, params }) => sum + (n * Number(params.get(name)?.data[i])) / total,
          0,
        );
        // One rounding to float32.
        expect(Number(value)).toBeCloseTo(expected, 6);
      }
    }
  });

  it("records who took part, what travelled and how long it took", async () => {
    const rounds = await runToy(fedAvg(), {
      base: { root: "weights", bytes: 1000 },
      evaluate: async ({ round }) => ({ perplexity: 10 - round }),
    });
    expect(rounds.map(({ number }) => number)).toEqual([1, 2, 3]);
    const [first] = rounds;
    expect(first?.clients).toEqual(["c00", "c01", "c02", "c03", "c04"]);
    expect(first?.accepted.map(({ numExamples }) => numExamples)).toEqual([3, 4, 5, 6, 7]);
    expect(first?.loss).toBeCloseTo(1, 12);
    expect(first?.metrics).toEqual({ accuracy: 0.5 });
    expect(first?.evaluation).toEqual({ perplexity: 9 });
    expect(first?.bytesDown).toBe(5 * 4 * (2 * 5 + 3 * 2));
    expect(first?.bytesUp).toBeGreaterThanOrEqual(5 * 4 * (2 * 5 + 3 * 2));
    expect(first?.bytesFull).toBe(10 * 1000);
  });

  it("streams a weighted sum that would not fit, and reaches the mean of the kept updates", async () => {
    const [stores, options] = [[memoryStore(), memoryStore()], { rounds: 1 }];
    const kept = await runToy(fedAvg(), { ...options, ...(stores[0] && { store: stores[0] }) });
    const streamed = await runToy(fedAvg(), {
      ...options,
      updateMemory: 0,
      ...(stores[1] && { store: stores[1] }),
    });
    const [a, b] = await Promise.all([
      openState(memoryStoreAt(stores, 0).blobs, kept[0]?.state ?? ""),
      openState(memoryStoreAt(stores, 1).blobs, streamed[0]?.state ?? ""),
    ]);
    for (const [name, { data }] of a as Params) {
      for (const [i, value] of data.entries()) {
        // Grids of the two sums differ by less than half a unit of float32.
        expect(Number((b as Params).get(name)?.data[i])).toBeCloseTo(Number(value), 6);
      }
    }
  });

  it.each([
    ["FlexLoRA", flexLora()],
    ["FedEx-LoRA", fedexLora()],
    ["FRLoRA, whose clients send more than they receive", frLora()],
  ])("reads updates that would not fit module by module, to the same bytes: %s", async (_, strategy) => {
    const pairs = ["m", "n"].flatMap((module) =>
      [...adapter()].map(([name, value]) => [name.replace("m.", `${module}.`), value] as const),
    );
    const options = { rounds: 2, initial: new Map(pairs) };
    // A run is named after its options, updateMemory too: what it reaches is compared, not the digests that carry its name.
    const reached = async (rounds: readonly Round[], { blobs }: RunStore): Promise<unknown> => [
      ...(await Promise.all(rounds.map(({ state }) => openState(blobs, state)))),
      ...rounds.map(({ baseVersion, measurements }) => [baseVersion, measurements]),
    ];
    const stores = [memoryStore(), memoryStore()] as const;
    const kept = await runToy(strategy as Strategy<StateTree>, { ...options, store: stores[0] });
    const gets: string[] = [];
    const watched = {
      ...stores[1].blobs,
      get: (id: string) => {
        gets.push(id);
        return stores[1].blobs.get(id);
      },
    };
    const read = await runToy(strategy as Strategy<StateTree>, {
      ...options,
      updateMemory: 2 * 5 * 4 * (2 * 5 + 3 * 2) - 1,
      store: { ...stores[1], blobs: watched },
    });
    expect(await reached(read, stores[1])).toEqual(await reached(kept, stores[0]));
    expect(gets.length).toBeGreaterThanOrEqual(2 * 5 * 2); // manifest and stream of 5 updates in 2 rounds
  });

  it.each([
    ["one after the other", 1],
    ["side by side", 5],
  ])("reaches the same bytes with clients trained %s", async (_, concurrency) => {
    const reference = await runToy(remembering(), { concurrency: 2, store: memoryStore() });
    expect(fingerprint(await runToy(remembering(), { concurrency }))).toEqual(fingerprint(reference));
  });

  it("samples another cohort every round, the same in every run of a seed", async () => {
    const sampled = (seed: number): Promise<(readonly string[])[]> =>
      runToy(fedAvg(), { clients: clients(20), participation: 0.3, rounds: 6, seed }).then((rounds) =>
        rounds.map((round) => round.clients),
      );
    const cohorts = await sampled(7);
    for (const cohort of cohorts) expect(cohort).toHaveLength(6);
    expect(new Set(cohorts.map(String)).size).toBeGreaterThan(4);
    expect(await sampled(7)).toEqual(cohorts);
    expect(await sampled(8)).not.toEqual(cohorts);
  });

  it("with a spare, closes at its target and lets the others go", async () => {
    const rounds = await runToy(fedAvg(), {
      clients: clients(10),
      participation: 0.5,
      spare: 0.4,
      concurrency: 3,
    });
    for (const round of rounds) {
      expect(round.clients).toHaveLength(7);
      expect(round.accepted).toHaveLength(5);
    }
  });

  it("drops what fails with its reason and goes on with the others", async () => {
    const faults = {
      c00: "throw",
      c01: "nan",
      c02: "nan-loss",
      c03: "shape",
      c04: "extra",
      c05: "too-many",
      c06: "empty",
    } as const;
    const events: RunEvent[] = [];
    const [round] = await runToy(fedAvg(), {
      clients: clients(9),
      rounds: 1,
      quorum: 2,
      onEvent: (event) => events.push(event),
      trainer: toyTrainer({ fault: (client) => Object.entries(faults).find(([id]) => id === client)?.[1] }),
    });
    expect(round?.accepted.map(({ client }) => client)).toEqual(["c07", "c08"]);
    expect(round?.rejected.map(({ client, code }) => `${client} ${code}`)).toEqual([
      "c00 client-error",
      "c01 not-finite",
      "c02 loss-not-finite",
      "c03 wrong-shape",
      "c04 unknown-tensor",
      "c05 too-many-examples",
      "c06 empty-silo",
    ]);
    expect(round?.rejected[0]?.reason).toBe("the disk is full");
    expect(events.filter(({ type }) => type === "client-dropped")).toHaveLength(7);
  });

  it("tries a round below its quorum again with another cohort", async () => {
    const asked: string[] = [];
    let failing = 3;
    const rounds = await runToy(fedAvg(), {
      clients: clients(20),
      participation: 0.2,
      quorum: 3,
      rounds: 1,
      trainer: toyTrainer({
        onTrain: (client) => asked.push(client),
        fault: () => (failing-- > 0 ? "throw" : undefined),
      }),
    });
    expect(rounds[0]?.failedAttempts).toBe(1);
    expect(rounds[0]?.accepted).toHaveLength(4);
    expect(new Set(asked).size).toBeGreaterThan(4);
  });

  it("stops with the reason after too many failed attempts, and a later start tries again", async () => {
    const store = memoryStore();
    const broken = runToy(fedAvg(), { store, trainer: toyTrainer({ fault: () => "throw" }) });
    await expect(broken).rejects.toMatchObject({ code: "round-failed" });
    await expect(broken).rejects.toThrow(/0 of 5 updates, the quorum is 3; client-error: .+ \(c00/);
    const rounds = await runToy(fedAvg(), { store });
    expect(rounds).toHaveLength(3);
    expect(rounds[0]?.failedAttempts).toBe(3);
  });

  it("ends a round at its deadline with a quorum", async () => {
    const env = virtualEnv();
    const trainer = toyTrainer();
    const waiting = countdown(5);
    const run = runToy(fedAvg(), {
      env,
      rounds: 1,
      concurrency: 5,
      deadlineMs: 1000,
      onEvent: ({ type }) => type === "update-accepted" && waiting.count(),
      trainer: {
        train: async (task, options) => {
          if (task.assignment.client === "c03") {
            waiting.count();
            await env.sleep(1e9, options.signal);
          }
          return trainer.train(task, options);
        },
      },
    });
    await waiting.done;
    await env.advance(1000);
    const [round] = await run;
    expect(round?.accepted.map(({ client }) => client)).toEqual(["c00", "c01", "c02", "c04"]);
    expect(round?.phases.train).toBeCloseTo(1, 6);
  });

  it("gives a client up that makes no progress, after lending its assignment once more", async () => {
    const env = virtualEnv();
    const trainer = toyTrainer();
    const [others, once, twice] = [countdown(4), countdown(1), countdown(2)];
    const run = runToy(fedAvg(), {
      env,
      rounds: 1,
      concurrency: 8,
      leaseMs: 60_000,
      onEvent: ({ type }) => type === "update-accepted" && others.count(),
      trainer: {
        train: async (task, options) => {
          if (task.assignment.client === "c03") {
            once.count();
            twice.count();
            await env.sleep(1e9, options.signal);
          }
          return trainer.train(task, options);
        },
      },
    });
    await Promise.all([others.done, once.done]);
    await env.advance(60_000);
    await twice.done;
    await env.advance(60_000);
    const [round] = await run;
    expect(round?.rejected).toEqual([
      { client: "c03", code: "lease-expired", reason: "no progress for 60 s" },
    ]);
  });

  it("carries changes of the base into a version that every run reaches", async () => {
    const rounds = await runToy(fedexLora());
    expect(new Set(rounds.map(({ baseVersion }) => baseVersion)).size).toBe(3);
    // From round 2 on the factors of the change travel too.
    expect(rounds[1]?.bytesDown).toBeGreaterThan(rounds[0]?.bytesDown ?? 0);
    expect(fingerprint(await runToy(fedexLora()))).toEqual(fingerprint(rounds));
  });

  it("keeps the model of each client where clients train alone, and counts no traffic", async () => {
    const starts: Params[] = [];
    const trainer = toyTrainer();
    const rounds = await runToy(localOnly(), {
      trainer: {
        train: async (task, options) => {
          if (task.assignment.client === "c01") starts.push(task.half.start.params);
          const result = await trainer.train(task, options);
          if (task.assignment.client === "c01") starts.push(result.params);
          return result;
        },
      },
    });
    expect(rounds.map(({ bytesUp, bytesDown }) => bytesUp + bytesDown)).toEqual([0, 0, 0]);
    expect(starts).toHaveLength(6);
    expect(starts[0]).toEqual(adapter());
    expect(starts[2]).toEqual(starts[1]);
    expect(starts[4]).toEqual(starts[3]);
  });

  it("stops when it is told to, and continues from there", async () => {
    const reference = fingerprint(await runToy(remembering(), { store: memoryStore() }));
    const store = memoryStore();
    const stop = new AbortController();
    const trainer = toyTrainer({
      onTrain: (client, round) => {
        if (round === 2 && client === "c02") stop.abort(new Error("Ctrl-C"));
      },
    });
    const made: Round[] = [];
    const stopped = (async () => {
      for await (const round of federate(toyOptions(remembering(), { store, trainer, signal: stop.signal })))
        made.push(round);
    })();
    await expect(stopped).rejects.toThrow("Ctrl-C");
    expect(made).toHaveLength(1);
    const events: RunEvent[] = [];
    const asked: string[] = [];
    const rest = await runToy(remembering(), {
      store,
      trainer: toyTrainer({ onTrain: (client, round) => asked.push(`${round} ${client}`) }),
      onEvent: (event) => events.push(event),
    });
    expect(fingerprint([...made, ...rest])).toEqual(reference);
    const [resumed] = events;
    expect(resumed).toMatchObject({ type: "resumed", openRound: 2, kept: 2 });
    expect(asked.filter((entry) => entry.startsWith("2"))).toHaveLength(3);
  });

  it("goes on when more rounds are asked for, and does nothing when none is left", async () => {
    const store = memoryStore();
    const first = await runToy(fedAvg(), { store, rounds: 2 });
    expect(await runToy(fedAvg(), { store, rounds: 2 })).toEqual([]);
    const rest = await runToy(fedAvg(), { store, rounds: 3 });
    expect(fingerprint([...first, ...rest])).toEqual(
      fingerprint(await runToy(fedAvg(), { store: memoryStore() })),
    );
  });

  it("refuses to continue a run of another description", async () => {
    const store = memoryStore();
    await runToy(fedAvg(), { store, rounds: 1, config: { learningRate: 1 } });
    await expect(runToy(fedAvg(), { store, config: { learningRate: 2 } })).rejects.toMatchObject({
      code: "other-run",
    });
    await expect(runToy(fedexLora(), { store, config: { learningRate: 1 } })).rejects.toThrow(
      "made with the strategy FedAvg, this job asks for FedEx-LoRA",
    );
  });

  it("names all impossible options at once", async () => {
    await expect(runToy(fedAvg(), { clients: [], quorum: 9, concurrency: 0 })).rejects.toThrow(
      "there are no clients; quorum is 9, expected 1 to 1; concurrency is 0",
    );
  });

  it("drops what is older than the rounds to keep, and still continues", async () => {
    const store = memoryStore();
    const reference = fingerprint(await runToy(remembering(), { store: memoryStore() }));
    const first = await runToy(remembering(), { store, rounds: 2, keepRounds: 0 });
    await expect(store.blobs.get(first[0]?.state ?? "")).rejects.toMatchObject({ code: "blob-missing" });
    const rest = await runToy(remembering(), { store, rounds: 3, keepRounds: 0 });
    expect(fingerprint([...first, ...rest])).toEqual(reference);
  });
});

/** Resolves when it was counted `times` times. */
function countdown(times: number): { readonly done: Promise<void>; count(): void } {
  let left = times;
  let finish = (): void => {};
  const done = new Promise<void>((resolve) => {
    finish = resolve;
  });
  return {
    done,
    count() {
      if (--left === 0) finish();
    },
  };
}

function memoryStoreAt(
  stores: readonly ReturnType<typeof memoryStore>[],
  index: number,
): ReturnType<typeof memoryStore> {
  const store = stores[index];
  if (!store) throw new RangeError(`no store ${index}`);
  return store;
}
