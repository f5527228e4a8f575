import { runtime } from "#ort";
import type { SessionOptions } from "../../src/runtime/session.ts";
import type { Params } from "../../src/tensor/params.ts";
import { loraFeeds, nextFeeds } from "./lora-step.ts";

/** What the page hands back: plain values that cross into the test. */
export interface PageResult {
  readonly runtime: string;
  readonly threads: number;
  readonly isolated: boolean;
  readonly sha256: string;
  /** Outputs of each step by name. */
  readonly steps: readonly Readonly<Record<string, readonly number[]>>[];
}

const plain = (results: Params): Record<string, number[]> =>
  Object.fromEntries([...results].map(([name, { data }]) => [name, Array.from(data, Number)]));

/** Runs the graph served at `step.onnx` three times, each step on the results of the one before. */
async function trainThreeSteps(options: SessionOptions): Promise<PageResult> {
  const graph = new Uint8Array(await (await fetch("step.onnx")).arrayBuffer());
  const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", graph));
  const session = await runtime.openSession(graph, options);
  const steps: Record<string, number[]>[] = [];
  let feeds = loraFeeds();
  for (let step = 0; step < 3; step++) {
    const results = await session.run(feeds);
    steps.push(plain(results));
    feeds = nextFeeds(feeds, results);
  }
  await session.dispose();
  return {
    runtime: runtime.name,
    threads: session.threads,
    isolated: globalThis.crossOriginIsolated,
    sha256: Array.from(digest, (byte) => byte.toString(16).padStart(2, "0")).join(""),
    steps,
  };
}

Object.assign(globalThis, { trainThreeSteps });
