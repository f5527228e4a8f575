import { z } from "zod";
import { jobJsonSchema } from "../job/schema.ts";
import type { SchemaNode } from "../job/schema-node.ts";
import { metricNeeds } from "../metrics/metric.ts";
import { metricNames } from "../metrics/table.ts";
import type { Sweep } from "./sweep.ts";

const whole = (minimum: number): z.ZodNumber => z.int().min(minimum);
const label = z.string().min(1);
const keys = z.record(z.string(), z.unknown());

const schema = z
  .strictObject({
    schema: z.literal(1).default(1).describe("Version of this format."),
    name: z
      .string()
      .regex(/^[a-z0-9][a-z0-9-]{0,63}$/)
      .exactOptional()
      .describe("Name of the sweep: small letters, digits and hyphens. Default: that of its file or folder."),
    job: z.string().min(1).describe("File of the job that all runs share; relative to this file."),
    set: keys.default({}).describe("Keys laid over the job in every run."),
    methods: z
      .record(label, keys)
      .describe("Keys laid over the job for each method, by its label; null takes a key away."),
    partitions: z
      .record(label, keys)
      .exactOptional()
      .describe("Partitions of the data by their label. Default: that of the job."),
    seeds: z.array(whole(0)).min(1).describe("Seeds; every method is run with each."),
    budget: z
      .strictObject({
        rounds: whole(1).exactOptional().describe("Rounds."),
        bytes: z
          .union([whole(1), z.string().regex(/^\d+(?:\.\d+)? ?[kMGT]?B$/)])
          .exactOptional()
          .describe("Bytes down and up together, such as 50 MB."),
        steps: whole(1).exactOptional().describe("Optimizer steps of all clients together."),
      })
      .describe(
        "What every run may use, as one of rounds, bytes and steps; the round in which it is used up is the last.",
      ),
    metric: z
      .enum(metricNames(metricNeeds))
      .exactOptional()
      .describe("The metric that leads the table. Default: accuracy, pearson or perplexity, by the task."),
    protocol: z
      .enum(["last", "best"])
      .default("last")
      .describe("Whether the value after the last round counts, or the best after any round."),
  })
  .meta({ title: "A sweep over methods, partitions and seeds" });

/** Parses a sweep file without the checks across fields. */
export const sweepSchema: z.ZodType<Sweep> = schema;

const node: z.ZodType<SchemaNode> = z.custom<SchemaNode>(
  (value) => typeof value === "object" && value !== null,
);

/** The JSON Schema of a sweep as far as it is read to tell what is wrong. */
export function sweepSchemaNode(): SchemaNode {
  return node.parse(z.toJSONSchema(schema, { io: "input" }));
}

/** The JSON Schema of a sweep as people write it, for editors: with the keys of jobs where they belong. */
export function sweepJsonSchema(): object {
  const job = jobJsonSchema();
  const { properties = {}, ...rest } = sweepSchemaNode();
  const keysOfJob = { $ref: "#/$defs/keys" };
  return {
    ...rest,
    properties: {
      ...properties,
      set: { ...properties.set, ...keysOfJob },
      methods: { ...properties.methods, additionalProperties: keysOfJob },
      partitions: { ...properties.partitions, additionalProperties: job.properties?.partition ?? {} },
    },
    $defs: { keys: partial(job, "") },
  };
}

interface EditorNode extends Omit<SchemaNode, "properties" | "oneOf" | "anyOf"> {
  readonly properties?: Readonly<Record<string, EditorNode>>;
  readonly oneOf?: readonly EditorNode[];
  readonly anyOf?: readonly EditorNode[];
}

/** A section of which no key is required, and each may be null; a strategy may be its name alone. */
function partial({ required: _, oneOf, anyOf, ...section }: EditorNode, path: string): EditorNode {
  const { properties } = section;
  const choices = oneOf ?? anyOf;
  const names = (choices ?? []).flatMap((choice) => {
    const { const: name } = choice.properties?.name ?? {};
    return name === undefined ? [] : [name];
  });
  return {
    ...section,
    ...(choices === undefined
      ? {}
      : {
          // Without what is required, a section may fit several kinds.
          anyOf: [
            ...choices.map((choice) => partial(choice, path)),
            ...(path === "strategy" ? [{ enum: names }] : []),
          ],
        }),
    ...(properties === undefined
      ? {}
      : {
          properties: Object.fromEntries(
            Object.entries(properties).map(([key, inner]) => [
              key,
              orNull(partial(inner, path === "" ? key : `${path}.${key}`)),
            ]),
          ),
        }),
  };
}

function orNull(inner: EditorNode): EditorNode {
  if (inner.const !== undefined) return inner;
  const { description, ...rest } = inner;
  return { ...(description === undefined ? {} : { description }), anyOf: [rest, { type: "null" }] };
}
