import { TributaryError } from "../errors.ts";
import type { Params } from "../tensor/params.ts";
import { type ClientHalf, clientHalf } from "./local-rule.ts";
import { type ClientUpdate, type FailReason, failCodes, type Progress, type Work } from "./message.ts";
import type { StateTree, Strategy } from "./strategy.ts";
import type { ClientTransport } from "./transport.ts";

/** What a trainer is given. */
export interface TrainingTask extends Work {
  /** The client half of the strategy, applied to what the client received: where training starts, and by which rule. */
  readonly half: ClientHalf;
}

/** What a trainer returns. */
export interface TrainingResult {
  /** Trained parameters, the same names as `half.start.params`. */
  readonly params: Params;
  /** State of the optimizer; kept for the client's next round where its rule says so. */
  readonly optimizer?: Params;
  readonly numExamples: number;
  readonly steps: number;
  readonly learningRate: number;
  /** Mean training loss. */
  readonly loss: number;
  /** Further measurements. */
  readonly metrics?: Readonly<Record<string, number>>;
}

/** How a trainer is watched. */
export interface TrainOptions {
  readonly signal: AbortSignal;
  onProgress(progress: Progress): void;
}

/** Trains one client. Equal tasks must give equal results: every draw is keyed by (seed, round, client, purpose). */
export interface ClientTrainer {
  train(task: TrainingTask, options: TrainOptions): Promise<TrainingResult>;
}

/** How a client loop is run. */
export interface ServeOptions<State extends StateTree> {
  readonly transport: ClientTransport;
  readonly trainer: ClientTrainer;
  readonly strategy: Strategy<State>;
  /** The parameters before round 1, at the largest rank. */
  readonly initial: Params;
  readonly signal: AbortSignal;
}

/** The client's side of a run: takes assignments, trains, delivers, until the coordinator has no more. */
export async function serveClients<State extends StateTree>(options: ServeOptions<State>): Promise<void> {
  const { transport, signal } = options;
  while (!signal.aborted) {
    const work = await transport.next({ waitMs: Number.POSITIVE_INFINITY, signal });
    if (!work) return;
    const { assignment } = work;
    const abandon = new AbortController();
    const both = AbortSignal.any([signal, abandon.signal]);
    const onProgress = (progress: Progress): void => {
      transport.heartbeat(assignment, progress).then(
        (verdict) => verdict === "abandon" && abandon.abort(abandoned(assignment.round)),
        (error) => abandon.abort(error),
      );
    };
    let update: ClientUpdate;
    try {
      update = await trained(options, work, { signal: both, onProgress });
    } catch (error) {
      if (!both.aborted) await transport.fail(assignment, reasonOf(error));
      continue;
    }
    await transport.submit(assignment, update);
  }
}

async function trained<State extends StateTree>(
  { trainer, strategy, initial }: ServeOptions<State>,
  work: Work,
  options: TrainOptions,
): Promise<ClientUpdate> {
  const { assignment, payload, memory } = work;
  const half = clientHalf(strategy, {
    client: assignment.ref,
    received: payload,
    memory,
    initial,
    context: assignment.context,
  });
  const { numExamples, loss, metrics, optimizer, ...rest } = await trainer.train({ ...work, half }, options);
  const { memory: kept, ...upload } = half.upload({ ...rest, numExamples });
  return {
    ...upload,
    numExamples,
    loss,
    ...(metrics && { metrics }),
    ...(kept.size > 0 && { memory: kept }),
    ...((half.rule.optimizerState ?? "fresh") !== "fresh" && optimizer && { optimizer }),
  };
}

function abandoned(round: number): TributaryError {
  return new TributaryError("abandoned", `round ${round} no longer waits for this client`);
}

function reasonOf(error: unknown): FailReason {
  const message = error instanceof Error ? error.message : String(error);
  const known = error instanceof TributaryError ? failCodes.find((code) => code === error.code) : undefined;
  return { code: known ?? "client-error", message };
}
