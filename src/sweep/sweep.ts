import type { Job, PartitionJob } from "../job/job.ts";
import type { PlacedJob } from "../job/run.ts";
import type { Difference, Spread } from "./statistics.ts";

/** Which value of a measure counts: that after the last round, or the best after any round. */
export type MetricProtocol = "last" | "best";

/** Keys of a job, in part. */
export type JobKeys = Readonly<Record<string, unknown>>;

/** What every run may use; one of the three. */
export interface SweepBudget {
  readonly rounds?: number;
  /** Bytes down and up together; a number, or a text such as `50 MB`. */
  readonly bytes?: number | string;
  /** Optimizer steps of all clients together. */
  readonly steps?: number;
}

/** Methods, partitions and seeds that are run with one job under one budget. */
export interface Sweep {
  readonly schema: 1;
  readonly name?: string;
  /** File of the job that all runs share. */
  readonly job: string;
  /** Keys laid over it in every run. */
  readonly set: JobKeys;
  /** Keys laid over it by the label of a method. */
  readonly methods: Readonly<Record<string, JobKeys>>;
  /** Partitions by their label; that of the job where absent. */
  readonly partitions?: Readonly<Record<string, JobKeys>>;
  readonly seeds: readonly number[];
  readonly budget: SweepBudget;
  /** The measure that leads the table; the first of the task where absent. */
  readonly metric?: string;
  readonly protocol: MetricProtocol;
}

/** A label of a sweep file, and the folder that it names. */
export interface Label {
  readonly label: string;
  readonly slug: string;
}

/** One run of a sweep. */
export interface SweepRun {
  /** Its folder below `runs`: method, partition and seed. */
  readonly id: string;
  readonly method: string;
  readonly partition: string;
  readonly seed: number;
  readonly job: PlacedJob;
}

/** A sweep whose every job is checked. */
export interface SweepPlan {
  readonly name: string;
  /** Where its results go. */
  readonly folder: string;
  readonly methods: readonly Label[];
  readonly partitions: readonly Label[];
  readonly seeds: readonly number[];
  readonly budget: { readonly rounds?: number; readonly bytes?: number; readonly steps?: number };
  readonly metric: string;
  readonly protocol: MetricProtocol;
  /** How many runs go side by side. */
  readonly workers: number;
  /** Seed by seed, so that what is done first compares all methods. */
  readonly runs: readonly SweepRun[];
}

/** What a run of a sweep has come to. */
export interface RunRow {
  readonly run: string;
  readonly method: string;
  /** Name of the strategy in the job. */
  readonly strategy: string;
  readonly partition: string;
  /** Kind of the partition in the job. */
  readonly partitionKind: PartitionJob["kind"];
  readonly seed: number;
  /** Why the run failed; absent where it did not. */
  readonly failure?: string;
  readonly rounds: number;
  /** Optimizer steps of all clients. */
  readonly steps: number;
  /** What ended it: its number of rounds, or the budget of bytes or steps; absent where it failed. */
  readonly endedBy?: "rounds" | "budget";
  readonly metricProtocol: MetricProtocol;
  /** Held-out measurements before round 1, after the last round, and the best after any round. */
  readonly before: Readonly<Record<string, number>>;
  readonly after: Readonly<Record<string, number>>;
  readonly best: Readonly<Record<string, number>>;
  readonly bytesDown: number;
  readonly bytesUp: number;
  /** Time of the rounds, without evaluation. */
  readonly seconds: number;
  /** The part of it in which the server aggregated. */
  readonly serverSeconds: number;
  /** Largest resident memory of the process. */
  readonly peakBytes?: number;
  /** Mean over modules and rounds of the distance from the ideal aggregate, relative to its norm. */
  readonly relativeDeviation?: number;
  /** Threads of a step. */
  readonly threads?: number;
}

/** What a sweep ran with. */
export interface SweepMachine {
  readonly versions: Readonly<Record<string, string>>;
  readonly processor: string;
  readonly cores: number;
  readonly memoryBytes: number;
  readonly system: string;
}

/** A method on a partition: its figures over the seeds that finished. */
export interface Cell {
  readonly method: string;
  readonly partition: string;
  readonly strategy: string;
  readonly finished: number;
  readonly failed: number;
  /** By the order of the figures. */
  readonly spreads: readonly (Spread | undefined)[];
  /** Of the leading measure, from the first method on the same partition over the seeds that both finished. */
  readonly difference?: Difference;
}

/** The same with the figures by their title. */
export type TableRow = Omit<Cell, "spreads"> & { readonly figures: Readonly<Record<string, Spread>> };

/** What `sweep.json` holds. */
export interface SweepDocument
  extends Pick<SweepPlan, "name" | "methods" | "partitions" | "seeds" | "budget" | "metric" | "workers"> {
  readonly schema: 1;
  readonly metricProtocol: MetricProtocol;
  readonly machine: SweepMachine;
  /** Every run of the sweep, those without a row included; its folder is `runs/` and its id. */
  readonly runs: readonly (Pick<SweepRun, "method" | "partition" | "seed"> & {
    readonly run: string;
    readonly job: Job;
  })[];
  readonly rows: readonly RunRow[];
  readonly table: readonly TableRow[];
}
