import type { RunEvent } from "../federation/events.ts";
import type { Job } from "./job.ts";

/** What a run is about to do, gathered before the first round. */
export interface RunHeader {
  readonly name: string;
  readonly folder: string;
  readonly model: { readonly path: string; readonly family: string; readonly parameters: number };
  readonly task: string;
  /** What is trained, in words. */
  readonly adapter: string;
  /** Trained parameters. */
  readonly trainable: number;
  readonly strategy: { readonly name: string; readonly paper: string };
  /** Training examples of each silo; of labelled records their numbers by label, before tokenizing left any out. */
  readonly silos: readonly {
    readonly name: string;
    readonly examples: number;
    readonly labels?: Readonly<Record<string, number>>;
  }[];
  /** Who holds what, as lines of text. */
  readonly picture: string;
  /** Clients of a round. */
  readonly perRound: number;
  readonly rounds: number;
  /** What may end the run before that many. */
  readonly budget?: Job["budget"];
  readonly heldOut: { readonly split: string; readonly examples: number };
  readonly device: string;
  readonly workers: number;
  readonly threads: number;
  /** Why so many workers and threads. */
  readonly why: string;
  /** Samples left out or cut, silos left out, fresh heads: what a person should know before. */
  readonly notes: readonly string[];
}

/** What a run has come to. */
export interface RunSummary {
  readonly folder: string;
  readonly task: Job["task"];
  /** The adapter in PEFT's layout; absent where no low-rank adapter was trained or every client has its own. */
  readonly adapter?: string;
  readonly rounds: number;
  /** Held-out measurements before round 1 and after the last. */
  readonly before: Readonly<Record<string, number>>;
  readonly after: Readonly<Record<string, number>>;
  readonly bytesDown: number;
  readonly bytesUp: number;
  /** What the same exchanges would have cost with the full weights. */
  readonly bytesFull: number;
  readonly seconds: number;
  /** Largest resident memory of a process that finished the run. */
  readonly peakBytes: number;
  readonly samples?: { readonly prompt: string; readonly before: string; readonly after: string };
}

/** What happens in a run, as a display or a log sees it. */
export type JobEvent =
  | { readonly type: "started"; readonly header: RunHeader }
  | {
      readonly type: "sample";
      readonly when: "before" | "after";
      readonly prompt: string;
      readonly text: string;
    }
  | { readonly type: "fetching"; readonly name: string; readonly done: number; readonly total: number }
  | { readonly type: "finished"; readonly summary: RunSummary }
  | RunEvent;
