import { TributaryError } from "../errors.ts";
import { type Params, select } from "../tensor/params.ts";
import type { ClientUpdate, FailCode, FailReason, Progress, Work } from "./message.ts";
import type { LocalResult, LocalRule, Payload } from "./strategy.ts";
import type { ClientTransport } from "./transport.ts";

/** What a trainer starts from. */
export interface TrainingTask extends Work {
  /** Values of the trained parameters before the first step. */
  readonly start: Params;
  /** What the client remembers; what `LocalRule.remember` gives before its first round. */
  readonly memory: Params;
}

/** What a trainer returns. */
export interface TrainingResult {
  /** Trained parameters, the same names as `start`. */
  readonly params: Params;
  readonly numExamples: number;
  readonly steps: number;
  readonly learningRate: number;
  /** Mean training loss. */
  readonly loss: number;
  /** Further measurements. */
  readonly metrics?: Readonly<Record<string, number>>;
}

/** Trains one client. Equal tasks must give equal results: every draw is keyed by (seed, round, client, purpose). */
export interface ClientTrainer {
  train(
    task: TrainingTask,
    options: { readonly signal: AbortSignal; onProgress(progress: Progress): void },
  ): Promise<TrainingResult>;
}

/** What a client starts a round with. */
export function startOf(
  rule: LocalRule | undefined,
  payload: Payload,
  memory: Params | undefined,
): { readonly start: Params; readonly memory: Params } {
  const remembered = memory ?? rule?.remember?.(payload) ?? new Map();
  return { start: rule?.start?.(payload, remembered) ?? payload.params, memory: remembered };
}

/** What leaves a client and what it keeps, by the rule of its strategy: by default the parameters that it may train. */
export function uploadOf(
  rule: LocalRule | undefined,
  local: LocalResult,
): { readonly params: Params; readonly extra?: Params; readonly memory?: Params } {
  if (rule?.upload) return rule.upload(local);
  return { params: select(local.params, (name) => rule?.trainable?.(name) ?? true) };
}

/** How a client loop is run. */
export interface ServeOptions {
  readonly transport: ClientTransport;
  readonly trainer: ClientTrainer;
  readonly rule: LocalRule | undefined;
  readonly signal: AbortSignal;
}

/** The client's side of a run: takes assignments, trains, delivers, until the coordinator has no more. */
export async function serveClients({ transport, trainer, rule, signal }: ServeOptions): Promise<void> {
  while (!signal.aborted) {
    const work = await transport.next({ waitMs: Number.POSITIVE_INFINITY, signal });
    if (!work) return;
    const { assignment } = work;
    const abandon = new AbortController();
    const both = AbortSignal.any([signal, abandon.signal]);
    let outcome: { readonly update: ClientUpdate } | { readonly why: FailReason };
    try {
      outcome = {
        update: await trained(trainer, rule, work, {
          signal: both,
          onProgress(progress) {
            transport.heartbeat(assignment, progress).then(
              (verdict) => verdict === "abandon" && abandon.abort(abandoned(assignment.round)),
              (error) => abandon.abort(error),
            );
          },
        }),
      };
    } catch (error) {
      if (both.aborted) continue;
      outcome = { why: reasonOf(error) };
    }
    if ("update" in outcome) await transport.submit(assignment, outcome.update);
    else await transport.fail(assignment, outcome.why);
  }
}

async function trained(
  trainer: ClientTrainer,
  rule: LocalRule | undefined,
  work: Work,
  options: { readonly signal: AbortSignal; onProgress(progress: Progress): void },
): Promise<ClientUpdate> {
  const { start, memory } = startOf(rule, work.payload, work.memory);
  const result = await trainer.train({ ...work, start, memory }, options);
  const { params, numExamples, steps, learningRate, loss, metrics } = result;
  const upload = uploadOf(rule, { received: work.payload, params, numExamples, steps, learningRate, memory });
  return { ...upload, numExamples, loss, ...(metrics && { metrics }) };
}

function abandoned(round: number): TributaryError {
  return new TributaryError("abandoned", `round ${round} no longer waits for this client`);
}

const failCodes: readonly FailCode[] = ["empty-silo", "nonfinite-loss", "client-error", "lease-expired"];

function reasonOf(error: unknown): FailReason {
  const message = error instanceof Error ? error.message : String(error);
  const known = error instanceof TributaryError ? failCodes.find((code) => code === error.code) : undefined;
  return { code: known ?? "client-error", message };
}
