import type { Task } from "../../models/model.ts";
import type { DataRecord } from "../record.ts";

/** What a job takes from a preset where it does not say it itself. */
export interface PresetJob {
  readonly task: Task;
  readonly data: {
    readonly template?: "text" | "prompt-completion" | "question-answer" | "alpaca";
    readonly fields?: Readonly<Record<string, string>>;
    readonly classes?: readonly string[];
    readonly maxLength?: number;
    readonly splits?: { readonly validation?: number; readonly test?: number; readonly field?: string };
  };
  readonly evaluation: {
    readonly metrics?: readonly string[];
    readonly split?: "validation" | "test";
    readonly maxTokens?: number;
    readonly stop?: readonly string[];
  };
}

/** A public data set: what a person should know of it, and what a job needs to know. */
export interface Preset {
  /** As jobs write it. */
  readonly name: string;
  readonly title: string;
  /** Authors, venue and year. */
  readonly paper: string;
  /** Where the files come from. */
  readonly source: string;
  readonly license: string;
  /** The columns of the files and what they hold. */
  readonly columns: Readonly<Record<string, string>>;
  /** The parts as they are published, and what a job holds out by default. */
  readonly splits: string;
  /** How a record becomes what the model sees. */
  readonly template: string;
  readonly job: PresetJob;
  /** The rows of a file as the task reads them, or why a row is left out; absent where they are so already. */
  prepare?(rows: readonly DataRecord[]): readonly (DataRecord | string)[];
}

/** A field as text; empty where it holds none. */
export function textIn(record: DataRecord, field: string): string {
  const value = record[field];
  return typeof value === "string" ? value : "";
}
