import { TributaryError } from "../../src/errors.ts";
import type { ClientTrainer, TrainingTask } from "../../src/federation/client.ts";
import type { FederatedClient } from "../../src/federation/door.ts";
import { type FederateOptions, federate, type RunStore } from "../../src/federation/federate.ts";
import type { Round } from "../../src/federation/round.ts";
import type { StateTree, Strategy } from "../../src/federation/strategy.ts";
import { memoryBlobs, memoryJournal } from "../../src/storage/memory.ts";
import { addScaled, mapParams, type Params, weightedMean, zerosLike } from "../../src/tensor/params.ts";
import { stream } from "../../src/tensor/random.ts";
import { float32, tensor } from "../../src/tensor/tensor.ts";

/** A small low-rank adapter: one module, in 5, out 3, rank 2. */
export function adapter(seed = 1): Params {
  const random = stream({ seed, purpose: "toy adapter" });
  const draw = (shape: readonly number[]): ReturnType<typeof float32> => {
    const values = new Float32Array(shape.reduce((a, b) => a * b, 1));
    random.fillNormal(values, 0, 1);
    return float32(shape, values);
  };
  return new Map([
    ["m.lora_A.weight", draw([2, 5])],
    ["m.lora_B.weight", draw([3, 2])],
  ]);
}

/** Clients c00, c01, … with 3, 4, … examples. */
export function clients(count: number): FederatedClient[] {
  return Array.from({ length: count }, (_, i) => ({
    id: `c${String(i).padStart(2, "0")}`,
    rank: 2,
    scaling: 0.5,
    numExamples: 3 + i,
  }));
}

/** What a toy client does instead of answering well. */
export type Fault = "throw" | "nan" | "nan-loss" | "shape" | "extra" | "too-many" | "empty";

export interface ToyOptions {
  readonly fault?: (client: string, round: number) => Fault | undefined;
  readonly onTrain?: (client: string, round: number) => void;
}

/** Moves every parameter by noise keyed by (seed, round, client), plus what the client remembers. */
export function toyTrainer({ fault, onTrain }: ToyOptions = {}): ClientTrainer {
  return {
    async train({ assignment, half }: TrainingTask, { signal, onProgress }) {
      const { client, round, context, ref } = assignment;
      onTrain?.(client, round);
      const what = fault?.(client, round);
      const pause = stream({ seed: context.seed, round, client, purpose: "pause" }).integer(4);
      for (let turn = 0; turn < pause; turn++) {
        onProgress({ step: turn, steps: pause });
        await Promise.resolve();
      }
      signal.throwIfAborted();
      if (what === "throw") throw new Error("the disk is full");
      if (what === "empty") throw new TributaryError("empty-silo", `${client} holds no examples`);
      const noise = mapParams(half.start.params, (value, name) => {
        const values = new Float32Array(value.data.length);
        const random = stream({ seed: context.seed, round, client, purpose: `noise ${name}` });
        random.fillNormal(values, 0, 0.1);
        return tensor("float32", value.shape, values);
      });
      let params = addScaled(half.start.params, 1, noise);
      const memory = half.local.memory.get("drift");
      if (memory) {
        const drift = Number(memory.data[0]);
        params = mapParams(params, ({ shape, data }) =>
          float32(
            shape,
            Float32Array.from(data as Float32Array, (x) => x + drift),
          ),
        );
      }
      if (what === "nan") params = replaceFirst(params, Number.NaN);
      if (what === "shape")
        params = mapParams(params, ({ data }) => tensor("float32", [data.length], data as Float32Array));
      if (what === "extra") params = new Map([...params, ["intruder", float32([1], [1])]]);
      const numExamples = clients(99).find(({ id }) => id === client)?.numExamples ?? 1;
      return {
        params,
        numExamples: what === "too-many" ? numExamples + 1 : numExamples,
        steps: 2,
        learningRate: ref.scaling,
        loss: what === "nan-loss" ? Number.NaN : 1 / round,
        metrics: { accuracy: 0.5 },
      };
    },
  };
}

function replaceFirst(params: Params, value: number): Params {
  return mapParams(params, ({ shape, data }) => {
    const values = Float32Array.from(data as Float32Array);
    values[0] = value;
    return float32(shape, values);
  });
}

/** FedAvg whose clients remember how often they were trained, so that a lost or doubled memory changes the result. */
export function remembering(): Strategy<Params> {
  return {
    name: "Remembering",
    paper: "a test",
    declares: { clientState: true },
    init: (initial) => initial,
    broadcast: (params) => ({ params, extra: zerosLike(params) }),
    local: {
      remember: () => new Map([["drift", float32([1], [0.25])]]),
      upload: ({ params, memory }) => ({
        params,
        extra: new Map([["drift", memory.get("drift") ?? float32([1], [0])]]),
        memory: mapParams(memory, ({ shape, data }) => float32(shape, [Number(data[0]) * 1.5 + 0.125])),
      }),
    },
    aggregate: (_, updates) => ({
      state: weightedMean(
        updates.map(({ params }) => params),
        updates.map(({ numExamples }) => numExamples),
      ),
    }),
    global: (params) => params,
  };
}

/** A store in memory. */
export function memoryStore(): RunStore {
  return { journal: memoryJournal(), blobs: memoryBlobs() };
}

/** Options of a toy run. */
export function toyOptions<State extends StateTree>(
  strategy: Strategy<State>,
  options: Partial<FederateOptions<State>> = {},
): FederateOptions<State> {
  return {
    strategy,
    initial: adapter(),
    clients: clients(5),
    trainer: toyTrainer(),
    rounds: 3,
    seed: 7,
    concurrency: 2,
    ...options,
  };
}

/** All rounds of a toy run. */
export async function runToy<State extends StateTree>(
  strategy: Strategy<State>,
  options: Partial<FederateOptions<State>> = {},
): Promise<Round[]> {
  const rounds: Round[] = [];
  for await (const round of federate(toyOptions(strategy, options))) rounds.push(round);
  return rounds;
}

/** What two runs that did the same must share. */
export function fingerprint(rounds: readonly Round[]): unknown {
  return rounds.map(({ number, state, model, baseVersion, accepted, loss }) => ({
    number,
    state,
    model,
    baseVersion,
    accepted,
    loss,
  }));
}
