import { runtime } from "#ort";
import type { AttachedAdapter } from "../adapters/adapter.ts";
import type { TaskModel } from "../models/task.ts";
import type { Session } from "../runtime/session.ts";
import { type DecoderOptions, type DecoderSize, traceDecoder } from "./generate.ts";

export interface OpenDecoderOptions extends DecoderOptions {
  /** Threads of an operator. Default: 1. */
  readonly threads?: number;
}

/** A decoder that is ready to run. */
export interface OpenDecoder extends DecoderSize {
  readonly session: Session;
}

/** Traces a decoder and compiles it; of what it packs, no second copy is left behind. */
export async function openDecoder(
  taskModel: TaskModel,
  attached: readonly AttachedAdapter[],
  { threads = 1, ...options }: OpenDecoderOptions,
): Promise<OpenDecoder> {
  const { graph, constants, ...size } = traceDecoder(taskModel, attached, options);
  return { ...size, session: await runtime.openSession(graph, { threads, constants }) };
}
