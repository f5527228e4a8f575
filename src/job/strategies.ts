import { z } from "zod";
import type { Strategy } from "../federation/strategy.ts";
import { centralized } from "../strategies/centralized.ts";
import { fedAvg } from "../strategies/fedavg.ts";
import { fedexLora, fedexLoraKeepLocal, fedexLoraReinit } from "../strategies/fedex-lora.ts";
import { fedIt } from "../strategies/fedit.ts";
import { fedAdagrad, fedAdam, fedYogi } from "../strategies/fedopt.ts";
import { fedProx } from "../strategies/fedprox.ts";
import { ffaLora } from "../strategies/ffa-lora.ts";
import { flexLora } from "../strategies/flexlora.ts";
import { localOnly } from "../strategies/local-only.ts";
import type { StrategyJob } from "./job.ts";

type NamedOptions = z.ZodObject<{ readonly name: z.ZodLiteral<string> }, z.core.$strict>;

/** A strategy as a job names it. */
export interface StrategyEntry {
  readonly name: string;
  /** The name and the options, with their defaults. */
  readonly schema: NamedOptions;
  make(options: StrategyJob): Strategy;
}

const weighting = z
  .enum(["samples", "uniform"])
  .default("samples")
  .describe("How clients count in the mean: by their examples, or all alike.");

const serverLearningRate = z.number().positive().default(1e-3).describe("Step size of the server.");
const beta1 = z.number().min(0).lt(1);
const beta2 = z.number().min(0).lt(1).default(0.99).describe("Decay of the server's second moment.");
const tau = z.number().positive().default(1e-3).describe("Degree of adaptivity.");
const residualRank = z
  .int()
  .min(0)
  .exactOptional()
  .describe("Rank of the correction that is sent. Default: exact.");
const firstMoment = "Decay of the server's first moment.";

/** Every strategy that a job can name, in the order of the documentation. */
export const strategyEntries: readonly StrategyEntry[] = [
  entry("centralized", "One client with the data of all.", {}, () => centralized()),
  entry("local-only", "Every client trains alone.", {}, () => localOnly()),
  entry("fedavg", "The mean of the clients' parameters.", { weighting }, fedAvg),
  entry(
    "fedprox",
    "FedAvg with a proximal term.",
    { weighting, mu: z.number().min(0).default(0.01).describe("Weight of the proximal term.") },
    fedProx,
  ),
  entry(
    "fedadagrad",
    "FedAvg with an Adagrad step on the server.",
    { weighting, serverLearningRate, beta1: beta1.default(0).describe(firstMoment), tau },
    fedAdagrad,
  ),
  entry(
    "fedadam",
    "FedAvg with an Adam step on the server.",
    { weighting, serverLearningRate, beta1: beta1.default(0.9).describe(firstMoment), beta2, tau },
    fedAdam,
  ),
  entry(
    "fedyogi",
    "FedAvg with a Yogi step on the server.",
    { weighting, serverLearningRate, beta1: beta1.default(0.9).describe(firstMoment), beta2, tau },
    fedYogi,
  ),
  entry("fedit", "The means of A and of B.", { weighting }, fedIt),
  entry("ffa-lora", "A frozen at its start; the mean of B.", { weighting }, ffaLora),
  entry("flexlora", "The mean of the products, cut to each client's rank.", { weighting }, flexLora),
  entry(
    "fedex-lora",
    "FedIT, and what its mean got wrong goes to the base.",
    { weighting, residualRank },
    fedexLora,
  ),
  entry(
    "fedex-lora-reinit",
    "FedEx-LoRA whose factors start anew in each round.",
    { weighting },
    fedexLoraReinit,
  ),
  entry(
    "fedex-lora-keep-local",
    "FedEx-LoRA whose clients keep their factors.",
    { weighting },
    fedexLoraKeepLocal,
  ),
];

/** The strategy of a checked job. */
export function strategyOf(job: StrategyJob): Strategy {
  const found = strategyEntries.find(({ name }) => name === job.name);
  if (found === undefined) {
    throw new RangeError(
      `strategy.name: got ${job.name}, expected one of ${strategyEntries.map(({ name }) => name).join(", ")}`,
    );
  }
  return found.make(job);
}

function entry<Shape extends z.ZodRawShape>(
  name: string,
  description: string,
  shape: Shape,
  make: (options: z.output<z.ZodObject<Shape>>) => Strategy,
): StrategyEntry {
  const options = z.object(shape);
  return {
    name,
    schema: z.strictObject({ name: z.literal(name), ...shape }).describe(description),
    make: (job) => make(options.parse(job)),
  };
}
