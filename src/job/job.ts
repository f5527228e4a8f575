import type { NamedStrategy } from "../strategies/catalogue/entries.ts";
/** What a model is trained for. */
export type JobTask = "causal-lm" | "sequence-classification" | "regression" | "image-classification";

/** A name or an exact number of something that the machine can also choose. */
export type Auto = "auto";

export interface DataJob {
  /** A public data set whose columns, task and metrics the job takes. */
  readonly preset?: string;
  /** Files or folders, or files of the hub; with `partition.kind: files`, one silo each. */
  readonly path: string | readonly string[];
  /** How a record becomes text: see `data show`. */
  readonly template: "auto" | "text" | "prompt-completion" | "question-answer" | "alpaca" | "messages";
  /** Fields of a record by their role, where they are not called like it. */
  readonly fields: {
    readonly text?: string;
    readonly textPair?: string;
    readonly label?: string;
    readonly image?: string;
    readonly prompt?: string;
    readonly completion?: string;
    readonly question?: string;
    readonly answer?: string;
    readonly instruction?: string;
    readonly input?: string;
    readonly output?: string;
    readonly messages?: string;
    readonly user?: string;
    readonly assistant?: string;
    readonly choices?: string;
    readonly gold?: string;
  };
  /** Names of the classes in the order of their numbers, or how many there are. */
  readonly classes?: number | readonly string[];
  readonly maxLength: number;
  /** Join texts and cut them into blocks of `maxLength` tokens. */
  readonly pack: boolean;
  /** Put several training examples into one row of a batch, each of which sees only itself. */
  readonly packing: boolean;
  /** Held-out data: a share of the records, a file of its own, or a field that says where a record belongs. */
  readonly splits: {
    readonly validation?: number | string;
    readonly test?: number | string;
    readonly field?: string;
  };
  /** Most records read from the front of the data; all where absent. */
  readonly limit?: number;
  /** Most training records of a silo, spread evenly; all where absent. */
  readonly perSilo?: number;
  readonly dropMalformed: boolean;
}

export type PartitionJob =
  | { readonly kind: "natural"; readonly field: string; readonly minExamples: number }
  | { readonly kind: "files" }
  | { readonly kind: "iid" | "contiguous" | "linear" | "square" | "exponential"; readonly clients: number }
  | {
      readonly kind: "dirichlet";
      readonly clients: number;
      readonly alpha: number;
      readonly field?: string;
      readonly minExamples: number;
    }
  | {
      readonly kind: "shards";
      readonly clients: number;
      readonly shardsPerClient: number;
      readonly field?: string;
    }
  | {
      readonly kind: "pathological";
      readonly clients: number;
      readonly classesPerClient: number;
      readonly field?: string;
    }
  | {
      readonly kind: "quantity-skew";
      readonly clients: number;
      readonly alpha: number;
      readonly minExamples: number;
    };

export interface LoraJob {
  readonly kind: "lora";
  readonly rank: number;
  readonly alpha: number;
  /** Suffixes of layer names, one regular expression over whole names, or `all-linear`. */
  readonly target: string | readonly string[];
  readonly rsLora: boolean;
  readonly dora: boolean;
  readonly init: "kaiming-uniform" | "gaussian";
  readonly modulesToSave: readonly string[];
  /** Folder of a PEFT adapter to start from. */
  readonly from?: string;
  /** Rank of each client in the order of the silos (repeated), or by name; `rank` where absent. */
  readonly ranks?: readonly number[] | Readonly<Record<string, number>>;
}

export interface DenseJob {
  readonly kind: "dense";
  /** Suffixes of the names of the weights to train, one regular expression over whole names, or `all`. */
  readonly target: string | readonly string[];
}

export type AdapterJob = LoraJob | DenseJob;

export type OptimizerJob =
  | {
      readonly name: "sgd";
      readonly learningRate: number;
      readonly momentum: number;
      readonly weightDecay: number;
    }
  | {
      readonly name: "adam" | "adamw";
      readonly learningRate: number;
      readonly betas: readonly [number, number];
      readonly epsilon: number;
      readonly weightDecay: number;
    }
  | (GaloreJob & {
      readonly name: "galore-adamw";
      readonly betas: readonly [number, number];
      readonly epsilon: number;
    })
  | (GaloreJob & { readonly name: "galore-sgd" });

/** An optimizer that steps in a subspace of the gradients. */
export interface GaloreJob {
  readonly learningRate: number;
  readonly rank: number;
  readonly gap: number;
  readonly scale: number;
  readonly side: "std" | "reverse-std" | "left" | "right" | "full";
  readonly decomposition: "auto" | "exact" | "randomized";
  /** Suffixes of the names of the projected weights or a regular expression; every matrix where absent. */
  readonly target?: string | readonly string[];
  readonly weightDecay: number;
}

export interface LocalJob {
  readonly optimizer: OptimizerJob;
  readonly schedule: { readonly kind: "constant" | "linear" | "cosine"; readonly warmupSteps: number };
  /** Passes over a client's data in a round; a fraction is a part of a pass. Absent where `steps` is given. */
  readonly epochs?: number;
  /** Optimizer steps of a client in a round, in place of epochs. */
  readonly steps?: number;
  readonly batchSize: number;
  /** Batches whose gradients make one step. */
  readonly accumulate: number;
  readonly order: "bucketed" | "as-given";
  /** Largest norm of a gradient; none where absent. */
  readonly clipNorm?: number;
  /** What the backward pass computes again instead of keeping it; nothing where absent. */
  readonly recompute?: "cheap" | "layers";
}

/** What happens to updates between a client and the strategy. */
export interface UpdatesJob {
  /** Largest norm of a client's change; none where absent. */
  readonly clip?: number;
  readonly packing:
    | { readonly kind: "none" }
    | {
        readonly kind: "quantized";
        readonly bits: 8 | 4;
        readonly block: number;
        readonly errorFeedback: boolean;
      }
    | { readonly kind: "sparse"; readonly share: number; readonly errorFeedback: boolean };
  /** Type of the parameters and changes on the wire. */
  readonly precision: "float32" | "float16" | "bfloat16";
  /** Buffered rounds, whose clients may be late; rounds that wait where absent. */
  readonly late?: {
    readonly maxStaleness: number;
    readonly serverLearningRate: number;
    readonly divideBy: "updates" | "weights";
  };
}

/** What a run may use before it ends; one of the two. */
export interface BudgetJob {
  /** Bytes down and up together. */
  readonly bytes?: number;
  /** Optimizer steps of all clients together. */
  readonly steps?: number;
}

/** One federated run, as a file or an object; what `checkJob` returns has every default filled in. */
export interface Job {
  readonly schema: 1;
  readonly name: string;
  /** Folder in Hugging Face layout, or a reference to the hub that begins with hf://. */
  readonly model: string;
  readonly task: JobTask;
  /** What the model takes from its checkpoint; "pretrained" where absent. */
  readonly weights?: "pretrained" | "trunk" | "random";
  /** How the base weights are held; "float32" where absent. */
  readonly basePrecision?: "float32" | "stored" | "4bit";
  readonly data: DataJob;
  readonly partition: PartitionJob;
  readonly adapter: AdapterJob;
  readonly strategy: NamedStrategy;
  readonly local: LocalJob;
  readonly updates: UpdatesJob;
  readonly rounds: number;
  /** Ends the run before `rounds`, after the round in which it is used up; none where absent. */
  readonly budget?: BudgetJob;
  /** Share of the clients in a round. */
  readonly participation: number;
  /** Clients in a round, in place of a share. */
  readonly clientsPerRound?: number;
  /** Fewest updates that make a round count; half of those asked for where absent. */
  readonly quorum?: number;
  /** Seconds until a round ends with what it has; none where absent. */
  readonly deadline?: number;
  /** What a client weighs in a mean; its examples where absent. */
  readonly weighting?: "examples" | "uniform";
  /** Clients asked beyond those needed, as a share of them. */
  readonly spare: number;
  readonly evaluation: {
    /** Rounds between evaluations; 0 evaluates before the first and after the last round only. */
    readonly every: number;
    readonly batchSize: number;
    readonly split: "validation" | "test";
    /** Most held-out examples, spread evenly; all where absent. */
    readonly maxExamples?: number;
    /** Metrics beside those that the task always has. */
    readonly metrics?: readonly string[];
    /** Most new tokens of an answer; 128 where absent. */
    readonly maxTokens?: number;
    /** Texts that end an answer. */
    readonly stop?: readonly string[];
  };
  /** A text shown before the first round and after the last. */
  readonly generate?: {
    readonly prompt: string;
    readonly maxTokens: number;
    readonly temperature: number;
    readonly topK?: number;
    readonly topP?: number;
    readonly seed: number;
  };
  readonly seed: number;
  readonly workers: number | Auto;
  /** A run keeps the number that it began with: other numbers round otherwise. */
  readonly threads: number | Auto;
  readonly device: "cpu" | "webgpu" | "cuda";
  /** The run folder; `runs/<name>` where absent. */
  readonly out?: string;
}
