import { runtime } from "#ort";
import { TributaryError } from "../errors.ts";
import type { BasePrecision } from "../models/precision.ts";
import type { StartingWeights } from "../models/starting-weights.ts";
import type { Device, Session } from "../runtime/session.ts";
import type { Params } from "../tensor/params.ts";
import { type LocalOutcome, type LocalTask, runLocal, type StepRecord } from "./local.ts";
import type { StepGraphs } from "./step.ts";

/** Where a worker finds the base weights. Folders are read by the worker itself, so that no copy passes between threads. */
export type BaseSource =
  | { readonly kind: "params"; readonly params: Params }
  | {
      readonly kind: "folder";
      readonly path: string;
      readonly task: string;
      readonly numLabels?: number;
      readonly seed: number;
      /** Default: "float32". */
      readonly precision?: BasePrecision;
      /** Default: "pretrained". */
      readonly weights?: StartingWeights;
    };

/** A task for a worker. The base weights are the worker's own. */
export type PoolTask = Omit<LocalTask, "base"> & {
  /** Which registered graphs to run. */
  readonly graphs: string;
};

/** Batches to put through a registered graph, with feeds that all of them share. */
export interface ForwardTask {
  readonly graph: string;
  readonly feeds: Params;
  readonly batches: readonly Params[];
}

/** What goes to a worker. */
export type Request =
  | { readonly type: "open"; readonly base: BaseSource; readonly device: Device; readonly threads: number }
  | { readonly type: "graphs"; readonly name: string; readonly graphs: StepGraphs | Uint8Array }
  | { readonly type: "weights"; readonly params: Params }
  | { readonly type: "train"; readonly id: number; readonly task: PoolTask }
  | { readonly type: "forward"; readonly id: number; readonly task: ForwardTask }
  | { readonly type: "abort"; readonly id: number }
  | { readonly type: "close" };

/** What comes back. */
export type Reply =
  | { readonly type: "ready"; readonly runtime: string; readonly parameters: number }
  | { readonly type: "step"; readonly id: number; readonly record: StepRecord }
  | { readonly type: "trained"; readonly id: number; readonly outcome: LocalOutcome }
  | { readonly type: "outputs"; readonly id: number; readonly outputs: readonly Params[] }
  | { readonly type: "closed" }
  | {
      readonly type: "failed";
      readonly id: number | undefined;
      readonly code: string | undefined;
      readonly message: string;
    };

export interface WorkerHostOptions {
  readonly post: (reply: Reply) => void;
  readonly loadBase: (source: BaseSource) => Promise<Params>;
}

/** The worker's side of a pool, on any platform: holds the base weights and the compiled graphs, and runs tasks in turn. */
export function createWorkerHost({ post, loadBase }: WorkerHostOptions): (request: Request) => void {
  let base: Params = new Map();
  let options: { device: Device; threads: number } = { device: "cpu", threads: 1 };
  /** A base in fewer bits is asked for where memory is short. */
  let isScarce = false;
  const graphs = new Map<string, StepGraphs | Uint8Array>();
  const sessions = new Map<string, Promise<Session>>();
  const running = new Map<number, AbortController>();
  let last: Promise<void> = Promise.resolve();

  const session = (name: string, part: keyof StepGraphs | "forward"): Promise<Session> => {
    const key = `${name}/${part}`;
    const known = sessions.get(key);
    if (known) return known;
    const found = graphs.get(name);
    if (!found) throw new Error(`worker: no graph is registered as "${name}"`);
    const bytes = found instanceof Uint8Array ? found : found[part === "forward" ? "step" : part];
    if (!bytes) throw new Error(`worker: the graphs "${name}" have no part "${part}"`);
    // Evaluations come between rounds: their memory would lie beside that of the steps.
    const keepsMemory = part !== "forward" && !isScarce;
    const opened = runtime.openSession(bytes, { ...options, keepsMemory });
    sessions.set(key, opened);
    return opened;
  };

  const forget = async (name: string): Promise<void> => {
    for (const [key, opened] of sessions) {
      if (!key.startsWith(`${name}/`)) continue;
      sessions.delete(key);
      await (await opened).dispose();
    }
  };

  async function train(id: number, { graphs: name, ...task }: PoolTask, signal: AbortSignal): Promise<void> {
    const compiled = {
      step: await session(name, "step"),
      accumulate: () => session(name, "accumulate"),
      apply: () => session(name, "apply"),
      projected: () => session(name, "projected"),
    };
    const outcome = await runLocal(
      compiled,
      { ...task, base },
      {
        signal,
        onStep: (record) => post({ type: "step", id, record }),
      },
    );
    post({ type: "trained", id, outcome });
  }

  async function forward(
    id: number,
    { graph, feeds, batches }: ForwardTask,
    signal: AbortSignal,
  ): Promise<void> {
    const opened = await session(graph, "forward");
    const outputs: Params[] = [];
    for (const batch of batches) {
      signal.throwIfAborted();
      outputs.push(await opened.run(new Map([...base, ...feeds, ...batch])));
      // Messages such as an abort are read between batches.
      await new Promise((resolve) => setTimeout(resolve, 0));
    }
    post({ type: "outputs", id, outputs });
  }

  async function handle(request: Request): Promise<void> {
    switch (request.type) {
      case "open":
        options = { device: request.device, threads: request.threads };
        isScarce = request.base.kind === "folder" && (request.base.precision ?? "float32") !== "float32";
        base = await loadBase(request.base);
        post({
          type: "ready",
          runtime: `${runtime.name} ${runtime.version}`,
          parameters: [...base.values()].reduce((sum, { data }) => sum + data.length, 0),
        });
        return;
      case "graphs":
        await forget(request.name);
        graphs.set(request.name, request.graphs);
        return;
      case "weights":
        base = new Map([...base, ...request.params]);
        return;
      case "train":
      case "forward": {
        const controller = running.get(request.id) ?? new AbortController();
        running.set(request.id, controller);
        try {
          if (request.type === "train") await train(request.id, request.task, controller.signal);
          else await forward(request.id, request.task, controller.signal);
        } finally {
          running.delete(request.id);
        }
        return;
      }
      case "close":
        post({ type: "closed" });
        return;
      case "abort":
        return;
    }
  }

  return (request) => {
    if (request.type === "abort") {
      running.get(request.id)?.abort(new TributaryError("aborted", "worker: the task was abandoned"));
      return;
    }
    if (request.type === "close")
      for (const task of running.values()) task.abort(new TributaryError("closed", "worker: closed"));
    if (request.type === "train" || request.type === "forward")
      running.set(request.id, new AbortController());
    last = last
      .then(() => handle(request))
      .catch((error: unknown) => {
        const failed = error instanceof Error ? error : new Error(String(error));
        post({
          type: "failed",
          id: "id" in request ? request.id : undefined,
          code: failed instanceof TributaryError ? failed.code : undefined,
          message: failed.message,
        });
      });
  };
}
