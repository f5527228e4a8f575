import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { federate, type RunStore } from "../src/federation/federate.ts";
import { memoryBlobs, memoryJournal } from "../src/storage/memory.ts";
import { nodeEnv } from "../src/storage/node-env.ts";
import { reusingHash } from "../src/federation/digest.ts";
import { openRunFolder } from "../src/storage/run-folder.ts";
import { fedAvg } from "../src/strategies/fedavg.ts";
import { float32 } from "../src/tensor/tensor.ts";

/** What `benchRound` measures. */
export interface BenchRoundOptions {
  readonly clients: number;
  /** Bytes of one update. */
  readonly bytes: number;
  readonly rounds?: number;
  /** Where the run lives: nowhere (updates are folded and dropped), in memory, or in a folder with durable commits. */
  readonly store?: "none" | "memory" | "disk";
}

/** One measured run. */
export interface BenchRoundResult {
  readonly clients: number;
  readonly bytes: number;
  readonly store: "none" | "memory" | "disk";
  /** Seconds of each round, from opening to the committed checkpoint. */
  readonly seconds: readonly number[];
  /** Largest resident set of this process, in MB of 10^6 bytes. */
  readonly peakMegabytes: number;
  readonly state: string;
}

/**
 * A federation of clients that do not train: each adds a number of its own to what it received. Every update is
 * serialized, hashed, scanned for finite values, measured and folded into an exact sum.
 */
export async function benchRound({
  clients,
  bytes,
  rounds = 3,
  store = "none",
}: BenchRoundOptions): Promise<BenchRoundResult> {
  const length = Math.floor(bytes / 4);
  const folder = store === "disk" ? mkdtempSync(join(tmpdir(), "tributary-bench-")) : undefined;
  const open = folder === undefined ? undefined : await openRunFolder(folder);
  const memory: RunStore | undefined =
    store === "memory" ? { journal: memoryJournal(), blobs: memoryBlobs() } : undefined;
  const place = open ?? memory;
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
        async train({ assignment, half }) {
          const shift = Number(assignment.client.slice(-5)) * 1e-3;
          const start = half.start.params.get("weight");
          const data = new Float32Array(length);
          if (start?.data instanceof Float32Array) add(start.data, shift, data);
          return {
            params: new Map([["weight", float32([length], data)]]),
            numExamples: 10 + (Number(assignment.client.slice(-5)) % 7),
            steps: 1,
            learningRate: 1,
            loss: shift,
          };
        },
      },
      rounds,
      seed: 1,
      env: {...nodeEnv(), hash: reusingHash()},
      concurrency: 4,
      updateMemory: 64 * 1024 * 1024,
      ...(place && { store: place, keepRounds: 0 }),
    })) {
      seconds.push(round.seconds);
      state = round.state;
    }
  } finally {
    open?.close();
    if (folder !== undefined) rmSync(folder, { recursive: true, force: true });
  }
  return { clients, bytes, store, seconds, peakMegabytes: process.resourceUsage().maxRSS / 1e3, state };
}

function add(values: Float32Array, shift: number, sum: Float32Array): void {
  for (let i = 0; i < sum.length; i++) sum[i] = values[i]! + shift;
}
