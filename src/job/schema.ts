import { z } from "zod";
import { presets } from "../data/presets/presets.ts";
import { metricNeeds } from "../metrics/metric.ts";
import { metricNames } from "../metrics/table.ts";
import { basePrecisions } from "../models/precision.ts";
import { startingWeights } from "../models/starting-weights.ts";
import { strategyEntries } from "../strategies/catalogue/entries.ts";
import type { Job } from "./job.ts";
import type { SchemaNode } from "./schema-node.ts";

const whole = (minimum: number): z.ZodNumber => z.int().min(minimum);
const share = z.number().min(0).max(1);
const field = z.string().min(1);
const oneOrMore = z.union([field, z.array(field).min(1)]);
const clients = whole(1).describe("Number of silos.");
const minExamples = whole(0)
  .default(1)
  .describe("Fewest records of a silo; smaller ones are left out and listed.");
const label = field
  .exactOptional()
  .describe("The field that the skew is by. Default: the label field of a classification.");

const data = z.strictObject({
  preset: z
    .enum(presets.map(({ name }) => name))
    .exactOptional()
    .describe(
      "A public data set, whose task, fields, classes, splits and metrics the job takes where it names none.",
    ),
  path: oneOrMore.describe(
    "Files or folders of text, tables, arrays or images, also with .gz, or hf://datasets/org/name/file; the name tells the format.",
  ),
  template: z
    .enum(["auto", "text", "prompt-completion", "question-answer", "alpaca", "messages"])
    .default("auto")
    .describe("How a record becomes text and which of it is trained; auto goes by the fields."),
  fields: z
    .strictObject({
      text: field.exactOptional(),
      textPair: field.exactOptional(),
      label: field.exactOptional(),
      image: field.exactOptional(),
      prompt: field.exactOptional(),
      completion: field.exactOptional(),
      question: field.exactOptional(),
      answer: field.exactOptional(),
      instruction: field.exactOptional(),
      input: field.exactOptional(),
      output: field.exactOptional(),
      messages: field.exactOptional(),
      user: field.exactOptional(),
      assistant: field.exactOptional(),
      choices: field.exactOptional(),
      gold: field.exactOptional(),
    })
    .prefault({})
    .describe("Names of the fields of a record by their role, where they differ from it."),
  classes: z
    .union([whole(2), z.array(field).min(2)])
    .exactOptional()
    .describe("Names of the classes in the order of their numbers, or how many there are."),
  maxLength: whole(2).default(512).describe("Most tokens of an example."),
  pack: z.boolean().default(false).describe("Join texts and cut them into blocks of maxLength tokens."),
  packing: z
    .boolean()
    .default(false)
    .describe(
      "Put several training examples into one row of at most maxLength tokens, each of which sees only itself.",
    ),
  splits: z
    .strictObject({
      validation: z
        .union([share, field])
        .exactOptional()
        .describe("Share of the records, or a file of its own."),
      test: z.union([share, field]).exactOptional().describe("Share of the records, or a file of its own."),
      field: field.exactOptional().describe("The field that says train, validation or test for each record."),
    })
    .default({ validation: 0.1 })
    .describe("What is held out of training; validation: 0 holds nothing out, and nothing is measured."),
  limit: whole(1).exactOptional().describe("Most records, from the front of the data. Default: all."),
  perSilo: whole(1)
    .exactOptional()
    .describe("Most training records of a silo, spread evenly over its own. Default: all."),
  dropMalformed: z
    .boolean()
    .default(false)
    .describe("Leave malformed rows out and list them, instead of refusing the data."),
});

const partition = z.discriminatedUnion("kind", [
  z
    .strictObject({
      kind: z.literal("natural"),
      field: field.describe("The field that names the silo."),
      minExamples,
    })
    .describe("One silo for each value of a field."),
  z.strictObject({ kind: z.literal("files") }).describe("One silo for each path of the data."),
  z.strictObject({ kind: z.literal("iid"), clients }).describe("Shuffled into equal parts."),
  z
    .strictObject({ kind: z.literal("contiguous"), clients })
    .describe("Cut into equal parts in the order of the data."),
  z
    .strictObject({
      kind: z.literal("dirichlet"),
      clients,
      alpha: z.number().positive().describe("Concentration; small is uneven."),
      field: label,
      minExamples,
    })
    .describe("Shares of each class drawn from a Dirichlet distribution."),
  z
    .strictObject({
      kind: z.literal("shards"),
      clients,
      shardsPerClient: whole(1)
        .default(2)
        .describe("Slices of the records sorted by class that a silo gets."),
      field: label,
    })
    .describe("Sorted by class and cut into shards."),
  z
    .strictObject({
      kind: z.literal("pathological"),
      clients,
      classesPerClient: whole(1).default(2).describe("Classes that a silo holds."),
      field: label,
    })
    .describe("A few classes for each silo."),
  z
    .strictObject({
      kind: z.literal("quantity-skew"),
      clients,
      alpha: z.number().positive().describe("Concentration of the sizes; small is uneven."),
      minExamples,
    })
    .describe("Sizes drawn from a Dirichlet distribution."),
  z
    .strictObject({ kind: z.literal("linear"), clients })
    .describe("Sizes that grow by one share from silo to silo."),
  z
    .strictObject({ kind: z.literal("square"), clients })
    .describe("Sizes that grow with the square of the number."),
  z
    .strictObject({ kind: z.literal("exponential"), clients })
    .describe("Sizes that grow by the factor e from silo to silo."),
]);

const adapter = z.discriminatedUnion("kind", [
  z
    .strictObject({
      kind: z.literal("lora"),
      rank: whole(1).default(8).describe("Rank of the factors."),
      alpha: z.number().positive().default(16).describe("Scaling times rank (times its root with rsLora)."),
      target: oneOrMore
        .default("all-linear")
        .describe(
          "Ends of the names of the adapted layers, or a regular expression over whole names, or all-linear.",
        ),
      rsLora: z.boolean().default(false).describe("Scale by alpha / sqrt(rank)."),
      dora: z
        .boolean()
        .default(false)
        .describe("DoRA: train the length of each row of a weight apart from its direction."),
      init: z
        .enum(["kaiming-uniform", "gaussian"])
        .default("kaiming-uniform")
        .describe("How A starts; B starts at zero."),
      modulesToSave: z
        .array(field)
        .default([])
        .describe("Modules trained whole beside the factors, such as classifier."),
      from: field
        .exactOptional()
        .describe(
          "PEFT adapter to start from, of this rank, alpha and target: a folder, or org/name on the Hugging Face hub.",
        ),
      ranks: z
        .union([z.array(whole(1)).min(1), z.record(field, whole(1))])
        .exactOptional()
        .describe("Ranks of the clients: a list dealt to the silos in turn, or by the name of the silo."),
    })
    .describe("Low-rank factors beside frozen layers."),
  z
    .strictObject({
      kind: z.literal("dense"),
      target: oneOrMore
        .default("all")
        .describe(
          "Ends of the names of the trained weights, or a regular expression over whole names, or all.",
        ),
    })
    .describe("The weights themselves."),
]);

const learningRate = z.number().positive().describe("Step size of the clients.");
const adamOptions = {
  learningRate,
  betas: z
    .tuple([z.number().min(0).lt(1), z.number().min(0).lt(1)])
    .default([0.9, 0.999])
    .describe("Decay of the first and of the second moment."),
  epsilon: z.number().positive().default(1e-8).describe("Added to the root of the second moment."),
};

const galoreOptions = {
  rank: whole(1).default(8).describe("Dimension of the subspace."),
  gap: whole(1).default(200).describe("Steps between two refreshes of the subspace."),
  scale: z.number().positive().default(0.25).describe("Factor of the step that is projected back."),
  side: z
    .enum(["std", "reverse-std", "left", "right", "full"])
    .default("std")
    .describe("Singular vectors that project: those of the smaller side, of the larger, or of one or both."),
  decomposition: z
    .enum(["auto", "exact", "randomized"])
    .default("auto")
    .describe("How they are found; auto: exact up to 512 rows or columns."),
  target: oneOrMore
    .exactOptional()
    .describe("Ends of the names of the projected weights, or a regular expression. Default: every matrix."),
  weightDecay: z.number().min(0).default(0).describe("Decay of the weights, after the step."),
};

const local = z.strictObject({
  optimizer: z
    .discriminatedUnion("name", [
      z.strictObject({
        name: z.literal("adamw"),
        ...adamOptions,
        weightDecay: z
          .number()
          .min(0)
          .default(0.01)
          .describe("Decay of the weights, apart from the gradient."),
      }),
      z.strictObject({
        name: z.literal("adam"),
        ...adamOptions,
        weightDecay: z.number().min(0).default(0).describe("L2 penalty, added to the gradient."),
      }),
      z.strictObject({
        name: z.literal("sgd"),
        learningRate,
        momentum: z
          .number()
          .min(0)
          .lt(1)
          .default(0)
          .describe("Share of the previous direction that is kept."),
        weightDecay: z.number().min(0).default(0).describe("L2 penalty, added to the gradient."),
      }),
      z
        .strictObject({
          name: z.literal("galore-adamw"),
          ...adamOptions,
          epsilon: z
            .number()
            .positive()
            .default(1e-6)
            .describe("Added to the root of the second moment before its correction."),
          ...galoreOptions,
        })
        .describe("GaLore: AdamW in a subspace of the gradient of each matrix."),
      z
        .strictObject({ name: z.literal("galore-sgd"), learningRate, ...galoreOptions })
        .describe("GaLore with gradient descent."),
    ])
    .describe("The optimizer of the clients; its state is new in each round unless the strategy keeps it."),
  schedule: z
    .strictObject({
      kind: z
        .enum(["constant", "linear", "cosine"])
        .default("constant")
        .describe("Course of the learning rate over a client's steps of one round."),
      warmupSteps: whole(0).default(0).describe("Steps of linear growth from 0."),
    })
    .prefault({}),
  epochs: z
    .number()
    .positive()
    .exactOptional()
    .describe("Passes over a client's data in a round. Default: 1, where steps is absent."),
  steps: whole(1).exactOptional().describe("Optimizer steps of a client in a round, in place of epochs."),
  batchSize: whole(1).default(8).describe("Examples of a batch."),
  accumulate: whole(1).default(1).describe("Batches whose gradients make one step."),
  order: z
    .enum(["bucketed", "as-given"])
    .default("bucketed")
    .describe("Batches of like length in random order, or in the order of the data."),
  clipNorm: z
    .number()
    .positive()
    .exactOptional()
    .describe("Largest norm of a gradient. Default: not clipped."),
  recompute: z
    .enum(["cheap", "layers"])
    .exactOptional()
    .describe(
      "What the backward pass computes again to save memory: attention and what else is cheap, or whole layers. Default: nothing.",
    ),
});

const errorFeedback = z
  .boolean()
  .default(true)
  .describe("Whether a client adds what was lost to its next change.");

const updates = z.strictObject({
  clip: z
    .number()
    .positive()
    .exactOptional()
    .describe("Norm to which a client's change is shortened. Default: not clipped."),
  packing: z
    .discriminatedUnion("kind", [
      z.strictObject({ kind: z.literal("none") }).describe("Every number as it is."),
      z
        .strictObject({
          kind: z.literal("quantized"),
          bits: z
            .union([z.literal(8), z.literal(4)])
            .default(8)
            .describe("Bits of a number."),
          block: whole(1).default(64).describe("Numbers that share a scale."),
          errorFeedback,
        })
        .describe("Changes as whole numbers of a few bits."),
      z
        .strictObject({
          kind: z.literal("sparse"),
          share: share.gt(0).default(0.05).describe("Share of the numbers of each tensor that is sent."),
          errorFeedback,
        })
        .describe("The largest changes alone."),
    ])
    .default({ kind: "none" })
    .describe("How changes are written to the wire."),
  precision: z
    .enum(["float32", "float16", "bfloat16"])
    .default("float32")
    .describe("Type of parameters and changes on the wire."),
  late: z
    .strictObject({
      maxStaleness: whole(0)
        .default(2)
        .describe("Aggregations that a client may be late; how many is drawn by the seed."),
      serverLearningRate: z.number().positive().default(1).describe("Factor of the mean change."),
      divideBy: z
        .enum(["updates", "weights"])
        .default("updates")
        .describe("What the sum of the weighted changes is divided by."),
    })
    .exactOptional()
    .describe("Buffered rounds: clients do not wait for each other. Default: they do."),
});

const schema = z
  .strictObject({
    schema: z.literal(1).describe("Version of this format."),
    name: z
      .string()
      .regex(/^[a-z0-9][a-z0-9-]{0,63}$/)
      .default("run")
      .describe("Name of the run: small letters, digits and hyphens."),
    model: field.describe(
      "Folder of the base model in Hugging Face layout or a GGUF file, relative to this file; or org/name[@revision] of the Hugging Face hub.",
    ),
    task: z
      .enum(["causal-lm", "sequence-classification", "regression", "image-classification"])
      .default("causal-lm")
      .describe("What the model is trained for."),
    weights: z
      .enum(startingWeights)
      .exactOptional()
      .describe(
        "What the model takes from its files: pretrained, all; trunk, all but the head, for other classes; random, nothing but config.json. The rest is drawn from the seed. Default: pretrained.",
      ),
    basePrecision: z
      .enum(basePrecisions)
      .exactOptional()
      .describe(
        "How the frozen base is held: float32; stored, with matrices of 16 bits as the file has them; 4bit, with linear layers in blocks of four bits. Default: float32.",
      ),
    data: data.describe("What the silos hold; paths are relative to this file."),
    partition: partition.describe("How the data are split into silos."),
    adapter: adapter.describe("What is trained and sent."),
    strategy: z
      .discriminatedUnion("name", strategySchemas())
      .describe("The federated algorithm, with its options."),
    local: local.describe("How a client trains in a round."),
    updates: updates.prefault({}).describe("What happens to updates between a client and the strategy."),
    rounds: whole(1).describe("Number of rounds."),
    budget: z
      .strictObject({
        bytes: whole(1).exactOptional().describe("Bytes down and up together."),
        steps: whole(1).exactOptional().describe("Optimizer steps of all clients together."),
      })
      .exactOptional()
      .describe("Ends the run before rounds, after the round in which it is used up. Default: none."),
    participation: share.gt(0).default(1).describe("Share of the silos in a round."),
    clientsPerRound: whole(1).exactOptional().describe("Silos in a round, in place of a share."),
    quorum: whole(1)
      .exactOptional()
      .describe("Fewest updates that make a round count. Default: half of those asked for."),
    deadline: z
      .number()
      .positive()
      .exactOptional()
      .describe("Seconds until a round ends with what it has. Default: none."),
    weighting: z
      .enum(["examples", "uniform"])
      .exactOptional()
      .describe("What a silo weighs in a mean: its examples, or all silos the same. Default: examples."),
    spare: z
      .number()
      .min(0)
      .max(4)
      .default(0)
      .describe("Silos asked beyond those needed, as a share of them."),
    evaluation: z
      .strictObject({
        every: whole(0)
          .default(1)
          .describe("Rounds between evaluations; 0: before the first and after the last round only."),
        batchSize: whole(1).default(16).describe("Examples of a batch."),
        split: z
          .enum(["validation", "test"])
          .default("validation")
          .describe("The held-out part that is evaluated."),
        maxExamples: whole(1)
          .exactOptional()
          .describe("Most held-out examples, spread evenly. Default: all."),
        metrics: z
          .array(z.enum(metricNames(metricNeeds)))
          .min(1)
          .exactOptional()
          .describe("Metrics beside those that the task always has, such as rougeL or f1."),
        maxTokens: whole(1)
          .exactOptional()
          .describe("Most new tokens of an answer, for metrics of answers. Default: 128."),
        stop: z.array(field).min(1).exactOptional().describe("Texts that end an answer. Default: none."),
      })
      .prefault({})
      .describe("Measurements on held-out data."),
    generate: z
      .strictObject({
        prompt: z.string().describe("How the text begins."),
        maxTokens: whole(1).default(48).describe("Most new tokens."),
        temperature: z.number().min(0).default(0.8).describe("0 takes the likeliest token."),
        topK: whole(1).exactOptional().describe("Draw from the k likeliest tokens only."),
        topP: z
          .number()
          .gt(0)
          .max(1)
          .exactOptional()
          .describe("Draw from the likeliest tokens of this joint probability."),
        seed: whole(0).default(0).describe("Seed of the drawn tokens."),
      })
      .exactOptional()
      .describe("A text shown before the first round and after the last."),
    seed: whole(0).default(0).describe("Seed of every random draw."),
    workers: z
      .union([z.literal("auto"), whole(1)])
      .default("auto")
      .describe("Clients trained side by side; auto goes by cores and free memory."),
    threads: z
      .union([z.literal("auto"), whole(1)])
      .default("auto")
      .describe("Threads of one step; auto shares the cores, and a run keeps the number that it began with."),
    device: z.enum(["cpu", "webgpu", "cuda"]).default("cpu").describe("Where steps run."),
    out: field.exactOptional().describe("The run folder. Default: runs/<name> where the command runs."),
  })
  .meta({ title: "A federated fine-tuning job" });

/** Parses a job without the checks across fields; throws or returns zod's issues as `safeParse` does. */
export const jobSchema: z.ZodType<Job> = schema;

/** The schema of every top-level key, so that sound parts of a faulty job can still be checked. */
export const partSchemas: Readonly<Record<string, z.ZodType>> = schema.shape;

const node: z.ZodType<SchemaNode> = z.custom<SchemaNode>(
  (value) => typeof value === "object" && value !== null,
);

/** The JSON Schema of a job as people write it, for editors. */
export function jobJsonSchema(): SchemaNode {
  return node.parse(z.toJSONSchema(schema, { io: "input" }));
}

type StrategySchema = (typeof strategyEntries)[number]["schema"];

function strategySchemas(): [StrategySchema, ...StrategySchema[]] {
  const [first, ...rest] = strategyEntries.map((entry) => entry.schema);
  if (first === undefined) throw new RangeError("strategySchemas: there are no strategies");
  return [first, ...rest];
}
