import { execFile, fork } from "node:child_process";
import { once } from "node:events";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { aggregateByModule } from "../src/federation/by-module.ts";
import type { ClientRef, StateTree, Strategy, Update } from "../src/federation/strategy.ts";
import { fedexLora } from "../src/strategies/fedex-lora.ts";
import { flexLora } from "../src/strategies/flexlora.ts";
import { frLora } from "../src/strategies/frlora.ts";
import { svd } from "../src/tensor/linalg.ts";
import { matrix } from "../src/tensor/matrix.ts";
import { addScaled, type Params } from "../src/tensor/params.ts";
import { stream } from "../src/tensor/random.ts";
import { float32 } from "../src/tensor/tensor.ts";

/** Strategies whose aggregation is measured. */
export type AggregateMethod = "flexlora" | "fedex-lora" | "frlora";

/** The sizes of the model and of the round. */
export interface AggregateShape {
  readonly layers: number;
  readonly hidden: number;
  readonly intermediate: number;
  readonly clients: number;
  readonly rank: number;
  /** Size of what a client trained relative to what all started from. */
  readonly drift: number;
}

/** What one process measured of its share of the modules. */
export interface AggregateShare {
  readonly modules: number;
  /** Seconds inside the aggregation of the modules. */
  readonly seconds: number;
  /** Processor seconds of the same; less than seconds where others had the processor. */
  readonly cpuSeconds: number;
  /** Seconds that it took to make the updates. */
  readonly making: number;
  readonly peakMegabytes: number;
}

/** What `benchAggregate` measured. */
export interface AggregateResult extends AggregateShape {
  readonly bench: "aggregate";
  readonly method: AggregateMethod;
  readonly modules: number;
  readonly processes: number;
  /** Seconds inside the aggregation, of the slowest process. */
  readonly seconds: number;
  /** Processor seconds inside the aggregation, of all processes. */
  readonly cpuSeconds: number;
  /** Largest resident set of each process; all updates of the round together have `updateMegabytes`. */
  readonly peakMegabytes: readonly number[];
  readonly updateMegabytes: number;
  /** One dense decomposition, measured, and what all modules would take by the law out · in · min(out, in). */
  readonly dense: DenseFigure;
  readonly timesFaster: number;
}

/** A measured dense decomposition. */
export interface DenseFigure {
  readonly by: "our Jacobi" | "LAPACK";
  readonly size: number;
  readonly seconds: number;
  readonly allModules: number;
}

/** A Llama of 7 billion parameters, 10 clients of rank 16. */
export const LLAMA_7B: AggregateShape = {
  layers: 32,
  hidden: 4096,
  intermediate: 11008,
  clients: 10,
  rank: 16,
  drift: 0.1,
};

/** The aggregation of one round, its modules shared by processes that hold one module of the updates at a time. */
export async function benchAggregate(
  method: AggregateMethod,
  shape: AggregateShape,
  { processes = 2, dense }: { readonly processes?: number; readonly dense: Omit<DenseFigure, "allModules"> },
): Promise<AggregateResult> {
  const shares = await Promise.all(
    Array.from({ length: processes }, (_, share) => runShare(method, shape, share, processes)),
  );
  const seconds = Math.max(...shares.map((share) => share.seconds));
  const sizes = modulesOfLlama(shape);
  const work = sizes.reduce((sum, { out, width }) => sum + out * width * Math.min(out, width), 0);
  const allModules = (dense.seconds * work) / dense.size ** 3;
  const scalars = sizes.reduce((sum, { out, width }) => sum + shape.rank * (out + width), 0);
  return {
    bench: "aggregate",
    method,
    ...shape,
    modules: sizes.length,
    processes,
    seconds,
    cpuSeconds: shares.reduce((sum, share) => sum + share.cpuSeconds, 0),
    peakMegabytes: shares.map(({ peakMegabytes }) => peakMegabytes),
    updateMegabytes: (4 * shape.clients * scalars) / 1e6,
    dense: { ...dense, allModules },
    timesFaster: allModules / seconds,
  };
}

/** One dense decomposition in this process. */
export function measureDense(size: number): Omit<DenseFigure, "allModules"> {
  const dense = matrix(size, size);
  stream({ seed: 1, purpose: "bench dense" }).fillNormal(dense.data, 0, 1);
  const began = performance.now();
  svd(dense);
  return { by: "our Jacobi", size, seconds: (performance.now() - began) / 1e3 };
}

/** One dense float64 decomposition by NumPy, which calls LAPACK. */
export async function measureLapack(python: string, size: number): Promise<Omit<DenseFigure, "allModules">> {
  const program = [
    "import numpy, time",
    `a = numpy.random.default_rng(1).standard_normal((${size}, ${size}))`,
    "t = time.perf_counter(); numpy.linalg.svd(a); print(time.perf_counter() - t)",
  ].join("\n");
  const { stdout } = await promisify(execFile)(python, ["-c", program]);
  return { by: "LAPACK", size, seconds: Number(stdout) };
}

/** The strategy of a method, with the options that are measured. */
export function strategyOf(method: AggregateMethod, { rank }: AggregateShape): Strategy<StateTree> {
  // A strategy is given back only the states that it made.
  switch (method) {
    case "flexlora":
      return flexLora() as Strategy<StateTree>;
    case "fedex-lora":
      return fedexLora({ residualRank: rank }) as Strategy<StateTree>;
    case "frlora":
      return frLora() as Strategy<StateTree>;
  }
}

/** The clients of the round. */
export function clientsOf({ clients, rank }: AggregateShape): ClientRef[] {
  return Array.from({ length: clients }, (_, k) => ({ id: `client-${k}`, rank, scaling: 2 }));
}

/** Aggregates every `processes`-th module, from the `share`-th on. */
export async function aggregateShare(
  method: AggregateMethod,
  shape: AggregateShape,
  share: number,
  processes: number,
): Promise<AggregateShare> {
  const strategy = strategyOf(method, shape);
  const own = modulesOfLlama(shape).filter((_, i) => i % processes === share);
  const context = { round: 1, seed: 1, numClients: shape.clients };
  const clients = clientsOf(shape);
  let seconds = 0;
  let cpuSeconds = 0;
  let making = 0;
  for (const module of own) {
    const began = performance.now();
    const start = factors(module, shape.rank, "start");
    const updates = clients.map((client, k): Update => {
      const params = addScaled(start, shape.drift, factors(module, shape.rank, client.id));
      return { client, numExamples: 10 + k, params };
    });
    const state = strategy.init(start, clients);
    const made = performance.now();
    const busy = process.cpuUsage();
    await aggregateByModule(strategy, { state, context, read: () => updates });
    const { user, system } = process.cpuUsage(busy);
    cpuSeconds += (user + system) / 1e6;
    making += (made - began) / 1e3;
    seconds += (performance.now() - made) / 1e3;
  }
  return {
    modules: own.length,
    seconds,
    cpuSeconds,
    making,
    peakMegabytes: process.resourceUsage().maxRSS / 1e3,
  };
}

/** An adapted layer. */
export interface Module {
  readonly name: string;
  readonly out: number;
  readonly width: number;
}

/** The adapted layers of the model. */
export function modulesOfLlama({ layers, hidden, intermediate }: AggregateShape): Module[] {
  return Array.from({ length: layers }, (_, layer) => {
    const at = `model.layers.${layer}`;
    return [
      ...["q", "k", "v", "o"].map((x) => ({ name: `${at}.self_attn.${x}_proj`, out: hidden, width: hidden })),
      ...["gate", "up"].map((x) => ({ name: `${at}.mlp.${x}_proj`, out: intermediate, width: hidden })),
      { name: `${at}.mlp.down_proj`, out: hidden, width: intermediate },
    ];
  }).flat();
}

/** A pair with entries of standard deviation 1 / √in. */
export function factors({ name, out, width }: Module, rank: number, who: string): Params {
  const random = stream({ seed: 1, purpose: `bench ${name} ${who}` });
  const fill = (rows: number, cols: number): Float32Array => {
    const bound = Math.sqrt(3 / width);
    const values = new Float64Array(rows * cols);
    random.fillUniform(values, -bound, bound);
    return new Float32Array(values);
  };
  return new Map([
    [`${name}.lora_A.weight`, float32([rank, width], fill(rank, width))],
    [`${name}.lora_B.weight`, float32([out, rank], fill(out, rank))],
  ]);
}

function runShare(
  method: AggregateMethod,
  shape: AggregateShape,
  share: number,
  processes: number,
): Promise<AggregateShare> {
  const program = new URL("./aggregate-share.ts", import.meta.url);
  return inProcess(program, { method, shape, share, processes });
}

/** What a process answers that is given a task. */
export async function inProcess<T>(program: URL, task: unknown): Promise<T> {
  const child = fork(fileURLToPath(program), [JSON.stringify(task)]);
  const [answer] = await Promise.race([
    once(child, "message"),
    once(child, "exit").then(([code]) => {
      throw new Error(`bench: a process of the aggregation ended with ${code} before it answered`);
    }),
  ]);
  return answer as T;
}
