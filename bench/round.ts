import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { BlobStore } from "../src/federation/blob-store.ts";
import type { RunEvent } from "../src/federation/events.ts";
import { federate, type RunStore } from "../src/federation/federate.ts";
import { memoryBlobs, memoryJournal } from "../src/storage/memory.ts";
import { nodeEnv } from "../src/storage/node-env.ts";
import { openRunFolder } from "../src/storage/run-folder.ts";
import { fedAvg } from "../src/strategies/fedavg.ts";
import { float32, type Tensor } from "../src/tensor/tensor.ts";

/** Where a measured run lives: its journal in memory and its updates dropped once folded, all in memory, or in a folder with durable commits. */
export type BenchStore = "journal" | "memory" | "disk";

/** What `benchRound` measures. */
export interface BenchRoundOptions {
  readonly clients: number;
  /** Bytes of one update. */
  readonly bytes: number;
  /** Default: 3. */
  readonly rounds?: number;
  /** Default: `journal`. */
  readonly store?: BenchStore;
}

/** One measured run. */
export interface BenchRoundResult {
  readonly clients: number;
  readonly bytes: number;
  readonly store: BenchStore;
  /** Seconds of each round, from opening to the committed checkpoint. */
  readonly seconds: readonly number[];
  /** Largest resident set of this process, in MB of 10^6 bytes. */
  readonly peakMegabytes: number;
  readonly state: string;
}

/**
 * A federation of clients that do not train: each adds a number of its own to the first values of what it received. Every update is
 * serialized, hashed, scanned for finite values, measured, journaled and folded into an exact sum.
 */
export async function benchRound({
  clients,
  bytes,
  rounds = 3,
  store = "journal",
}: BenchRoundOptions): Promise<BenchRoundResult> {
  const length = Math.floor(bytes / 4);
  const folder = store === "disk" ? mkdtempSync(join(tmpdir(), "tributary-bench-")) : undefined;
  const opened = folder === undefined ? undefined : await openRunFolder(folder);
  const inMemory: RunStore = {
    journal: memoryJournal(),
    blobs: store === "memory" ? memoryBlobs() : noBlobs,
  };
  const simulated = simulatedClients(length);
  const seconds: number[] = [];
  let state = "";
  try {
    for await (const round of federate({
      strategy: fedAvg(),
      initial: new Map([["weight", float32([length], new Float32Array(length).fill(0.5))]]),
      clients: Array.from({ length: clients }, (_, i) => ({
        id: `client-${String(i).padStart(5, "0")}`,
        rank: 0,
        scaling: 1,
        numExamples: 10 + (i % 7),
      })),
      trainer: {
        async train({ assignment: { client }, half }) {
          const index = Number(client.slice(-5));
          const shift = index * 1e-3;
          return {
            params: new Map([["weight", simulated.train(client, half.start.params.get("weight"), shift)]]),
            numExamples: 10 + (index % 7),
            steps: 1,
            learningRate: 1,
            loss: shift,
          };
        },
      },
      rounds,
      seed: 1,
      env: nodeEnv(),
      updateMemory: 64 * 1024 * 1024,
      store: opened ?? inMemory,
      ...(store !== "journal" && { keepRounds: 0 }),
      onEvent: simulated.onEvent,
    })) {
      seconds.push(round.seconds);
      state = round.state;
    }
  } finally {
    opened?.close();
    if (folder !== undefined) rmSync(folder, { recursive: true, force: true });
  }
  return { clients, bytes, store, seconds, peakMegabytes: process.resourceUsage().maxRSS / 1e3, state };
}

/** Keeps no update: what is folded is never read again. */
const noBlobs: BlobStore = {
  missing: async () => [],
  put: async () => undefined,
  get: async (id) => {
    throw new RangeError(`bench: blob ${id} was not kept`);
  },
  sweep: async () => 0,
};

/** Clients that hold on to an update until its receipt, as the protocol asks, and then write the next one in its place. */
function simulatedClients(length: number): {
  train(client: string, received: Tensor | undefined, shift: number): Tensor<"float32">;
  onEvent(event: RunEvent): void;
} {
  const held = new Map<string, Float32Array>();
  const free: Float32Array[] = [];
  return {
    train(client, received, shift) {
      const sum = free.pop() ?? new Float32Array(length);
      held.set(client, sum);
      if (received?.data instanceof Float32Array) add(received.data, shift, sum);
      return float32([length], sum);
    },
    onEvent(event) {
      if (event.type !== "update-accepted") return;
      const update = held.get(event.client);
      held.delete(event.client);
      if (update) free.push(update);
    },
  };
}

function add(values: Float32Array, shift: number, sum: Float32Array): void {
  sum.set(values);
  const touched = Math.min(1024, sum.length);
  for (let i = 0; i < touched; i++) sum[i] = values[i]! + shift;
}
