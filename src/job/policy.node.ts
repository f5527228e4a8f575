import { readFile } from "node:fs/promises";
import { parse } from "yaml";
import { z } from "zod";
import { TributaryError } from "../errors.ts";
import { clientHalf, uploadPlan } from "../federation/local-rule.ts";
import { type PlanEntry, planBytes } from "../federation/plan.ts";
import type { ClientRef, Strategy } from "../federation/strategy.ts";
import type { Params } from "../tensor/params.ts";
import type { Job } from "./job.ts";
import { bytes, count } from "./units.ts";

/** What a silo agrees to; what is absent is not restricted. */
export interface SiloPolicy {
  /** SHA-256 of the jobs, as the coordinator sends them. */
  readonly jobs?: readonly string[];
  readonly strategies?: readonly string[];
  readonly maxRounds?: number;
  /** Most bytes of one update. */
  readonly maxUpdateBytes?: number;
  /** Whether the number of examples may leave. */
  readonly shareExampleCounts: boolean;
  /** Least noise, as a multiple of the clip, that the job has to add to what leaves. */
  readonly minNoise?: number;
}

/** What a silo without a policy agrees to. */
export const openPolicy: SiloPolicy = { shareExampleCounts: true };

const schema = z.strictObject({
  schema: z.literal(1),
  jobs: z.array(z.string().regex(/^[0-9a-f]{64}$/)).exactOptional(),
  strategies: z.array(z.string()).exactOptional(),
  maxRounds: z.int().min(1).exactOptional(),
  maxUpdateBytes: z.int().min(1).exactOptional(),
  shareExampleCounts: z.boolean().default(true),
  minNoise: z.number().positive().exactOptional(),
});

/** Reads a policy (YAML or JSON). Throws TributaryError `bad-policy` that names every key that is wrong. */
export async function readPolicy(path: string): Promise<SiloPolicy> {
  const text = await readFile(path, "utf8").catch((cause: NodeJS.ErrnoException) => {
    const why = cause.code === "ENOENT" ? "no such file" : cause.message;
    throw new TributaryError("bad-policy", `${path}: ${why}; give the policy of this silo`, { cause });
  });
  let given: unknown;
  try {
    given = parse(text);
  } catch (error) {
    throw new TributaryError("bad-policy", `${path} cannot be read as YAML: ${String(error)}`);
  }
  const read = schema.safeParse(given);
  if (read.success) {
    const { schema: _, ...policy } = read.data;
    return policy;
  }
  const wrong = read.error.issues.map(({ path: at, message }) => `${at.join(".") || "the file"}: ${message}`);
  throw new TributaryError("bad-policy", `${path}: ${wrong.join("; ")}; docs/silos.md lists the keys`);
}

/** What leaves a silo in a run. */
export interface Leaving {
  /** SHA-256 of the job. */
  readonly digest: string;
  readonly run: string;
  readonly strategy: string;
  /** The paper of the strategy. */
  readonly paper: string;
  readonly rounds: number;
  /** Tensors of the first round's update. */
  readonly tensors: readonly PlanEntry[];
  readonly bytes: number;
  /** The number of examples, where it leaves. */
  readonly examples?: number;
}

/** What a client uploads in its first round, found by applying the strategy's rule to the start. */
export function leavingOf(
  { strategy, initial, client }: { strategy: Strategy; initial: Params; client: ClientRef },
  { seed }: Pick<Job, "seed">,
): Pick<Leaving, "tensors" | "bytes"> {
  const context = { round: 1, seed, numClients: 1 };
  const state = strategy.init(initial, [client]);
  const received = strategy.broadcast(state, client, context);
  const tensors = uploadPlan(clientHalf(strategy, { client, received, memory: undefined, initial, context }));
  return { tensors, bytes: planBytes(tensors) };
}

/** Throws TributaryError `against-policy` that names everything in which a run breaks a policy. */
export function assertAgreed(policy: SiloPolicy, leaving: Leaving, job: Pick<Job, "weighting">): void {
  const { jobs, strategies, maxRounds, maxUpdateBytes, shareExampleCounts, minNoise } = policy;
  const broken = [
    jobs && !jobs.includes(leaving.digest) && `jobs does not list ${leaving.digest}`,
    strategies && !strategies.includes(leaving.strategy) && `strategies does not list ${leaving.strategy}`,
    maxRounds !== undefined &&
      leaving.rounds > maxRounds &&
      `the job has ${leaving.rounds} rounds, maxRounds is ${maxRounds}`,
    maxUpdateBytes !== undefined &&
      leaving.bytes > maxUpdateBytes &&
      `an update has ${bytes(leaving.bytes)}, maxUpdateBytes is ${bytes(maxUpdateBytes)}`,
    !shareExampleCounts &&
      job.weighting !== "uniform" &&
      "the job weighs silos by their examples and shareExampleCounts is false; ask for a job with weighting: uniform",
    minNoise !== undefined && `minNoise is ${minNoise} and the job adds no noise`,
  ].filter((text) => typeof text === "string");
  if (broken.length === 0) return;
  throw new TributaryError(
    "against-policy",
    `run ${leaving.run} breaks the policy of this silo: ${broken.join("; ")}`,
  );
}

/** What leaves, for a person. */
export function leavingText({
  digest,
  run,
  strategy,
  paper,
  rounds,
  tensors,
  bytes: size,
  examples,
}: Leaving): string[] {
  const named = tensors.slice(0, 4).map(({ name, dtype, shape }) => `${name} ${dtype}[${shape.join(", ")}]`);
  const more = tensors.length > 4 ? [`and ${count(tensors.length - 4)} more tensors`] : [];
  return [
    `Run ${run}, job ${digest}`,
    `${count(rounds)} ${rounds === 1 ? "round" : "rounds"} of ${strategy} (${paper})`,
    "What leaves this machine:",
    `  an update a round, ${bytes(size)} in the first: ${[...named, ...more].join("; ")}`,
    "  its training loss and the metrics of training",
    examples === undefined ? "  not the number of examples" : `  the number of examples: ${count(examples)}`,
    "  the name and the public key of this silo, and when it works",
    "The data stay here.",
  ];
}
