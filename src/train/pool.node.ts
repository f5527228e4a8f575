import { availableParallelism, freemem } from "node:os";
import { Worker } from "node:worker_threads";
import { TributaryError } from "../errors.ts";
import type { Device } from "../runtime/session.ts";
import type { Params } from "../tensor/params.ts";
import type { LocalOutcome, StepRecord } from "./local.ts";
import type { StepGraphs } from "./step.ts";
import type { BaseSource, ForwardTask, PoolTask, Reply, Request } from "./worker-host.ts";

export interface PoolPlan {
  readonly workers: number;
  /** Threads inside each worker's operators. */
  readonly threads: number;
  /** Why these numbers, for people. */
  readonly why: string;
}

export interface PlanOptions {
  /** Tasks that can go on side by side. */
  readonly tasks: number;
  /** Bytes of the base weights as they are held, which each worker holds. */
  readonly weightBytes: number;
  /** Bytes that a worker takes in all. Default: twice its weights, and at least 200 MB beside them. */
  readonly workerBytes?: number | undefined;
  /** Default: chosen from cores, tasks and free memory. */
  readonly workers?: number | undefined;
  readonly threads?: number | undefined;
}

/** Chooses how many workers train side by side, and with how many threads each. */
export function planPool({
  tasks,
  weightBytes,
  workerBytes = weightBytes + Math.max(weightBytes, 200e6),
  workers,
  threads,
}: PlanOptions): PoolPlan {
  const cores = availableParallelism();
  const fitting = Math.max(1, Math.floor((0.8 * freemem()) / workerBytes));
  const chosen = workers ?? Math.max(1, Math.min(cores, tasks, fitting));
  const each = threads ?? Math.max(1, Math.floor(cores / chosen));
  const limit =
    chosen === tasks ? "one a client" : chosen === cores ? "one a core" : "as many as memory holds";
  const why =
    workers === undefined ? `${cores} cores, ${limit}` : `${chosen} workers asked for on ${cores} cores`;
  return { workers: chosen, threads: each, why };
}

export interface OpenPoolOptions {
  readonly base: BaseSource;
  readonly plan: PoolPlan;
  readonly device?: Device;
}

export interface TaskOptions {
  readonly signal?: AbortSignal | undefined;
  readonly onStep?: ((record: StepRecord) => void) | undefined;
}

/** Worker threads that train and evaluate, each with the base weights and its own compiled graphs. */
export interface Pool {
  readonly plan: PoolPlan;
  readonly device: Device;
  /** Name and version of the runtime. */
  readonly runtime: string;
  /** Makes graphs known to all workers under a name; each compiles them when it first needs them. */
  register(name: string, graphs: StepGraphs | Uint8Array): void;
  /** Replaces base weights in all workers; tasks given before keep the old ones. */
  setWeights(params: Params): void;
  train(task: PoolTask, options?: TaskOptions): Promise<LocalOutcome>;
  /** Outputs of each batch. */
  forward(task: ForwardTask, options?: TaskOptions): Promise<readonly Params[]>;
  close(): Promise<void>;
}

interface Pending {
  readonly start: (member: Member) => void;
  readonly fail: (error: Error) => void;
}

interface Member {
  readonly worker: Worker;
  id: number | undefined;
  settle: ((reply: Reply) => void) | undefined;
  fail: ((error: Error) => void) | undefined;
}

/** The built package starts its worker as it is; sources go through a loader. */
function workerFile(): { readonly url: URL; readonly execArgv: string[] } {
  return import.meta.url.endsWith(".ts")
    ? { url: new URL("./worker-source.mjs", import.meta.url), execArgv: ["--conditions=@tributary/source"] }
    : { url: new URL("./worker.node.js", import.meta.url), execArgv: [] };
}

/** Starts the workers and waits until each holds the base weights. */
export async function openPool({ base, plan, device = "cpu" }: OpenPoolOptions): Promise<Pool> {
  const members: Member[] = [];
  const threads = new Set<Worker>();
  const queue: Pending[] = [];
  let nextId = 1;
  let closed = false;
  let runtimeName = "";

  const post = (member: Member, request: Request): void => member.worker.postMessage(request);

  const pump = (): void => {
    for (const member of members) {
      if (member.id !== undefined) continue;
      queue.shift()?.start(member);
    }
  };

  const open = (): Promise<void> =>
    new Promise((resolve, reject) => {
      const { url, execArgv } = workerFile();
      const worker = new Worker(url, { execArgv });
      threads.add(worker);
      const member: Member = { worker, id: undefined, settle: undefined, fail: undefined };
      member.worker.on("message", (reply: Reply) => {
        if (reply.type === "ready") {
          runtimeName = reply.runtime;
          members.push(member);
          resolve();
        } else if (reply.type === "failed" && reply.id === undefined) reject(failure(reply));
        else member.settle?.(reply);
      });
      const lose = (error: Error): void => {
        reject(error);
        // A member that is gone leaves the list first, so that no waiting task is given to it.
        const at = members.indexOf(member);
        if (at >= 0) members.splice(at, 1);
        member.fail?.(error);
        if (members.length === 0) for (const pending of queue.splice(0)) pending.fail(error);
      };
      member.worker.on("error", lose);
      member.worker.on("exit", (code) => {
        threads.delete(worker);
        if (closed) return;
        lose(new TributaryError("worker-lost", `pool: a worker thread ended with code ${code}`));
      });
      post(member, { type: "open", base, device, threads: plan.threads });
    });

  const run = <T>(
    request: (id: number) => Request,
    result: (reply: Reply) => T | undefined,
    { signal, onStep }: TaskOptions = {},
  ): Promise<T> =>
    new Promise<T>((resolve, reject) => {
      if (signal?.aborted) return reject(signal.reason);
      const leaveQueue = (): void => {
        queue.splice(queue.indexOf(pending), 1);
        reject(signal?.reason);
      };
      const pending: Pending = {
        fail(error) {
          signal?.removeEventListener("abort", leaveQueue);
          reject(error);
        },
        start(member) {
          signal?.removeEventListener("abort", leaveQueue);
          const id = nextId++;
          const onAbort = (): void => post(member, { type: "abort", id });
          const done = (): void => {
            signal?.removeEventListener("abort", onAbort);
            member.id = undefined;
            member.settle = undefined;
            member.fail = undefined;
            pump();
          };
          member.id = id;
          member.fail = (error) => {
            done();
            reject(error);
          };
          member.settle = (reply) => {
            if (!("id" in reply) || reply.id !== id) return;
            if (reply.type === "step") return onStep?.(reply.record);
            if (reply.type === "failed") reject(signal?.aborted ? signal.reason : failure(reply));
            else {
              const value = result(reply);
              if (value !== undefined) resolve(value);
            }
            done();
          };
          signal?.addEventListener("abort", onAbort, { once: true });
          post(member, request(id));
        },
      };
      signal?.addEventListener("abort", leaveQueue, { once: true });
      queue.push(pending);
      pump();
    });

  try {
    await Promise.all(Array.from({ length: plan.workers }, open));
  } catch (error) {
    closed = true;
    await Promise.all([...threads].map(endThread));
    throw error;
  }
  return {
    plan,
    device,
    runtime: runtimeName,
    register(name, graphs) {
      for (const member of members) post(member, { type: "graphs", name, graphs });
    },
    setWeights(params) {
      for (const member of members) post(member, { type: "weights", params });
    },
    train: (task, options) =>
      run(
        (id) => ({ type: "train", id, task }),
        (reply) => (reply.type === "trained" ? reply.outcome : undefined),
        options,
      ),
    forward: (task, options) =>
      run(
        (id) => ({ type: "forward", id, task }),
        (reply) => (reply.type === "outputs" ? reply.outputs : undefined),
        options,
      ),
    async close() {
      closed = true;
      const error = new TributaryError("closed", "pool: closed while tasks were waiting");
      for (const pending of queue.splice(0)) pending.fail(error);
      await Promise.all([...threads].map(endThread));
    },
  };
}

/** Ends a thread after the step that it is in: one that is stopped inside ONNX Runtime aborts the process. */
async function endThread(worker: Worker): Promise<void> {
  await new Promise<void>((resolve) => {
    worker.on("message", (reply: Reply) => reply.type === "closed" && resolve());
    worker.once("exit", () => resolve());
    worker.once("error", () => resolve());
    worker.postMessage({ type: "close" } satisfies Request);
  });
  await worker.terminate();
}

function failure(reply: Reply & { readonly type: "failed" }): Error {
  return reply.code === undefined ? new Error(reply.message) : new TributaryError(reply.code, reply.message);
}
