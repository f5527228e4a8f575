import type { ClientTrainer } from "../../src/federation/client.ts";
import type { Digest } from "../../src/federation/digest.ts";
import type { FederatedClient } from "../../src/federation/door.ts";
import { type FederateOptions, federate } from "../../src/federation/federate.ts";
import { fedAvg } from "../../src/strategies/fedavg.ts";
import { fedIt } from "../../src/strategies/fedit.ts";
import type { Params } from "../../src/tensor/params.ts";
import { stream } from "../../src/tensor/random.ts";
import { float32 } from "../../src/tensor/tensor.ts";

/** A federation of clients that do not train, as plain data: the programs of a test and the test itself read it. */
export interface Setting {
  readonly clients: number;
  readonly rounds: number;
  /** Values of each tensor of the adapter. */
  readonly length: number;
  readonly tensors: number;
  readonly seed: number;
  /** Default: all clients. */
  readonly quorum?: number;
  /** 0 folds every update as it arrives. Default: keeps them all. */
  readonly updateMemory?: number;
  /** Share of the clients that a round asks. Default: 1. */
  readonly participation?: number;
  /** Milliseconds that a client works, in ten steps. Default: 0. */
  readonly workMs?: number;
  /** Changes one value in `STRIDE`, for measurements of what is not training: no chunk stays as it was. */
  readonly light?: boolean;
  /** FedIT over pairs of factors of rank 1, two tensors each, in place of FedAvg over vectors. */
  readonly lowRank?: boolean;
}

/** Values, 64 KiB of them, of which light work changes one. */
const STRIDE = 16_384;

/** Bytes of the tensors of one update. */
export function updateBytes({ length, tensors }: Setting): number {
  return 4 * length * tensors;
}

/** The adapter before round 1. */
export function initialOf({ length, tensors, seed, light = false, lowRank = false }: Setting): Params {
  return new Map(
    Array.from({ length: tensors }, (_, i) => {
      const values = new Float32Array(length).fill(0.5);
      if (!light) stream({ seed, purpose: `tensor ${i}` }).fillNormal(values, 0, 1);
      if (!lowRank) return [`m${i}.lora_A.weight`, float32([length], values)];
      return i % 2 === 0
        ? [`m${i >> 1}.lora_A.weight`, float32([1, length], values)]
        : [`m${i >> 1}.lora_B.weight`, float32([length, 1], values)];
    }),
  );
}

/** Clients c000, c001, … with 3, 4, … examples. */
export function clientsOf({ clients }: Setting): FederatedClient[] {
  return Array.from({ length: clients }, (_, i) => ({
    id: `c${String(i).padStart(3, "0")}`,
    rank: 1,
    scaling: 1,
    numExamples: 3 + i,
  }));
}

/** Adds noise keyed by (seed, round, client) to every value. */
export function noiseTrainer({ clients, workMs = 0, light = false }: Setting): ClientTrainer {
  return {
    async train({ assignment: { client, round, context }, half }, { signal, onProgress }) {
      for (let step = 0; workMs > 0 && step < 10; step++) {
        signal.throwIfAborted();
        onProgress({ step, steps: 10 });
        await new Promise((resolve) => setTimeout(resolve, workMs / 10));
      }
      signal.throwIfAborted();
      const params = new Map<string, ReturnType<typeof float32>>();
      for (const [name, { shape, data }] of half.start.params) {
        const values = new Float32Array(data as Float32Array);
        const stride = light ? STRIDE : 1;
        const noise = new Float32Array(Math.ceil(data.length / stride));
        stream({ seed: context.seed, round, client, purpose: `noise ${name}` }).fillNormal(noise, 0, 0.1);
        for (let i = 0; i < noise.length; i++)
          values[i * stride] = (values[i * stride] ?? 0) + (noise[i] ?? 0);
        params.set(name, float32(shape, values));
      }
      const numExamples = 3 + Number(client.slice(1));
      return { params, numExamples, steps: 10, learningRate: 1, loss: clients / round };
    },
  };
}

/** What coordinators of this setting share, in whatever process they run. */
export function federationOf(
  setting: Setting,
): Pick<
  FederateOptions<Params>,
  "strategy" | "initial" | "clients" | "rounds" | "seed" | "quorum" | "participation" | "updateMemory"
> {
  const { rounds, seed, clients, participation = 1, updateMemory, lowRank = false } = setting;
  const { quorum = Math.max(1, Math.round(participation * clients)) } = setting;
  return {
    strategy: lowRank ? fedIt() : fedAvg(),
    initial: initialOf(setting),
    clients: clientsOf(setting),
    rounds,
    seed,
    quorum,
    participation,
    ...(updateMemory !== undefined && { updateMemory }),
  };
}

/**
 * The states of all rounds where nothing fails and nothing travels: one process, no store, no wire. Where `counted` is
 * given, only those answer whose round, attempt and id it has, as `1 1 c000`.
 */
export async function faultFree(setting: Setting, counted?: ReadonlySet<string>): Promise<Digest[]> {
  const states: Digest[] = [];
  const trainer = noiseTrainer({ ...setting, workMs: 0 });
  const some: ClientTrainer = {
    async train(task, options) {
      const { round, attempt, client } = task.assignment;
      if (counted?.has(`${round} ${attempt} ${client}`) === false) throw new Error("absent");
      return trainer.train(task, options);
    },
  };
  const sparse = counted && { quorum: 1, attempts: Number.POSITIVE_INFINITY };
  for await (const { state } of federate({ ...federationOf(setting), trainer: some, ...sparse }))
    states.push(state);
  return states;
}
