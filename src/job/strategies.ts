import { z } from "zod";
import type { Strategy } from "../federation/strategy.ts";
import { ceLora } from "../strategies/ce-lora.ts";
import { centralized } from "../strategies/centralized.ts";
import { coordinateMedian } from "../strategies/coordinate-median.ts";
import { fedAvg } from "../strategies/fedavg.ts";
import { fedAvgM } from "../strategies/fedavgm.ts";
import { fedBuff } from "../strategies/fedbuff.ts";
import { fedexLora, fedexLoraKeepLocal, fedexLoraReinit } from "../strategies/fedex-lora.ts";
import { fedFtg } from "../strategies/fedftg.ts";
import { fedHm } from "../strategies/fedhm.ts";
import { fedIt } from "../strategies/fedit.ts";
import { fedlease } from "../strategies/fedlease.ts";
import { fedLoru } from "../strategies/fedloru.ts";
import { fedAdagrad, fedAdam, fedYogi } from "../strategies/fedopt.ts";
import { fedProx } from "../strategies/fedprox.ts";
import { fedsaLora, fedsaVera } from "../strategies/fedsa-lora.ts";
import { ffaLora } from "../strategies/ffa-lora.ts";
import { flTac } from "../strategies/fl-tac.ts";
import { flasc, flascAdamw } from "../strategies/flasc.ts";
import { flexLora } from "../strategies/flexlora.ts";
import { flora } from "../strategies/flora.ts";
import { frLora } from "../strategies/frlora.ts";
import { fsLora } from "../strategies/fslora.ts";
import { geometricMedian } from "../strategies/geometric-median.ts";
import { hetLora } from "../strategies/hetlora.ts";
import { krum, multiKrum } from "../strategies/krum.ts";
import { localOnly } from "../strategies/local-only.ts";
import { loraFair } from "../strategies/lora-fair.ts";
import { mFedLoru } from "../strategies/mfedloru.ts";
import { pFedLoru } from "../strategies/pfedloru.ts";
import { scaffold } from "../strategies/scaffold.ts";
import { slora } from "../strategies/slora.ts";
import { trimmedMean } from "../strategies/trimmed-mean.ts";
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
const loru = {
  weighting,
  mergeEvery: z.int().min(1).default(5).describe("Rounds from one merge to the next."),
  reset: z
    .boolean()
    .default(true)
    .describe("Whether factors start anew after a merge; without it the product counts twice."),
};

const byzantine = z
  .int()
  .min(0)
  .default(0)
  .describe("Clients that may send anything; a round needs more than twice as many and 2.");
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
  entry(
    "fedavgm",
    "FedAvg with momentum on the server.",
    {
      weighting,
      serverLearningRate: serverLearningRate.default(1),
      beta: beta1.default(0.9).describe(firstMoment),
    },
    fedAvgM,
  ),
  entry(
    "scaffold",
    "FedAvg whose clients correct their gradients by control variates; for the optimizer sgd.",
    { serverLearningRate: serverLearningRate.default(1) },
    scaffold,
  ),
  entry(
    "fedbuff",
    "The mean of late changes, less weight to the later ones.",
    {
      serverLearningRate: serverLearningRate.default(1),
      maxStaleness: z
        .int()
        .min(0)
        .default(2)
        .describe("Aggregations that a client may be late; how many is drawn by the seed."),
      divideBy: z
        .enum(["updates", "weights"])
        .default("updates")
        .describe("What the sum of the weighted changes is divided by."),
    },
    fedBuff,
  ),
  entry("coordinate-median", "The median of every number.", {}, () => coordinateMedian()),
  entry(
    "trimmed-mean",
    "The mean of every number without its extremes.",
    {
      beta: z
        .number()
        .min(0)
        .lt(0.5)
        .default(0.1)
        .describe("Share of the clients that is dropped at each end."),
    },
    trimmedMean,
  ),
  entry("krum", "The update whose nearest others are nearest.", { byzantine }, krum),
  entry(
    "multi-krum",
    "The mean of the updates with the best Krum scores.",
    { byzantine, keep: z.int().min(1).default(3).describe("Updates that are averaged.") },
    multiKrum,
  ),
  entry(
    "geometric-median",
    "The point with the least distance to all updates.",
    {
      weighting,
      steps: z.int().min(0).default(3).describe("Most steps of Weiszfeld's algorithm."),
      nu: z.number().positive().default(1e-6).describe("Distance below which nearness counts no more."),
    },
    geometricMedian,
  ),
  entry(
    "fedftg",
    "FedAvg of chosen weights whose clients train them by GaLore; for the optimizer galore-adamw.",
    {
      weighting,
      afterAggregation: z
        .enum(["kept", "projectors", "fresh"])
        .default("kept")
        .describe("What a client keeps of its optimizer: all, the projectors, or nothing."),
    },
    fedFtg,
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
  entry("flora", "The stack of the factors goes to the base; clients start anew.", { weighting }, flora),
  entry("fedloru", "FedIT whose mean product goes to the base every few rounds.", loru, fedLoru),
  entry(
    "pfedloru",
    "FedLoRU beside a second pair that every client keeps to itself.",
    {
      ...loru,
      privateScaling: z
        .number()
        .positive()
        .exactOptional()
        .describe("Factor of the private product. Default: that of the shared one."),
    },
    pFedLoru,
  ),
  entry(
    "mfedloru",
    "FedLoRU whose clients train factors of the factors, of unequal inner rank.",
    {
      ...loru,
      innerRanks: perClient(z.int().min(1))
        .exactOptional()
        .describe("Inner ranks, dealt in turn or by silo. Default: half the rank."),
      alphaA: z.number().positive().default(1).describe("Factor of the inner product of A."),
      alphaB: z.number().positive().default(1).describe("Factor of the inner product of B."),
    },
    mFedLoru,
  ),
  entry(
    "lora-fair",
    "FedIT whose mean of B is corrected towards the mean of the products.",
    {
      weighting,
      lambda: z.number().min(0).default(0.01).describe("Weight of the size of the correction."),
      cosine: z
        .strictObject({
          steps: z.int().min(1).default(1000).describe("Steps of gradient descent."),
          learningRate: z.number().positive().default(0.01).describe("Size of a step."),
        })
        .exactOptional()
        .describe("Maximizes the cosine, as in the paper. Default: minimizes the distance."),
    },
    loraFair,
  ),
  entry(
    "hetlora",
    "Unequal ranks that shrink where training does not use them; weights by norm.",
    {
      weighting,
      gamma: z.number().gt(0).max(1).default(0.99).describe("Share of its components that a client keeps."),
      lambda: z.number().min(0).default(1e-3).describe("Weight of the penalty on the others."),
      minRank: z.int().min(1).default(1).describe("Least rank."),
      normOver: z
        .enum(["module", "client"])
        .default("module")
        .describe("Whether clients count by their norm in each module, or over all."),
    },
    hetLora,
  ),
  entry(
    "fedhm",
    "Whole weights as products, as wide as a client can afford; the mean of the products.",
    {
      weighting: weighting.default("uniform"),
      ratios: perClient(z.number().min(1))
        .exactOptional()
        .describe("Rows of a weight by its width, dealt in turn or by silo. Default: 1, full width."),
      whole: z
        .array(z.string())
        .exactOptional()
        .describe("Endings of the names of matrices that stay whole. Default: heads."),
    },
    fedHm,
  ),
  entry(
    "flasc",
    "FedIT that sends only the largest weights down and the largest moves up.",
    {
      downDensity: density("down"),
      upDensity: density("up"),
      serverLearningRate: serverLearningRate.default(1),
    },
    flasc,
  ),
  entry("fslora", "Clients train a part of the components, drawn anew each round.", {}, () => fsLora()),
  entry(
    "flasc-adamw",
    "FLASC with an AdamW step on the server.",
    {
      downDensity: density("down"),
      upDensity: density("up"),
      serverLearningRate,
      beta1: beta1.default(0.9).describe(firstMoment),
      beta2: beta2.default(0.999),
      epsilon: z.number().positive().default(1e-8).describe("Added to the root of the second moment."),
      weightDecay: z.number().min(0).default(0.01).describe("Decay of all of the server's weights."),
    },
    flascAdamw,
  ),
  entry("fedsa-lora", "The mean of A; every client keeps its B.", { weighting }, fedsaLora),
  entry(
    "fedsa-vera",
    "The mean of VeRA's lambda_d; every client keeps its lambda_b.",
    { weighting },
    fedsaVera,
  ),
  entry(
    "slora",
    "Sparse training of the weights first; what it changed starts the factors of FedIT.",
    {
      weighting,
      sparseRounds: z.int().min(0).default(5).describe("Rounds of sparse training."),
      density: z.number().gt(0).max(1).default(0.01).describe("Share of the weights that they train."),
    },
    slora,
  ),
  entry(
    "ce-lora",
    "Three factors, of which the small core travels; each client gets a mixture of all cores.",
    {},
    () => ceLora(),
  ),
  entry(
    "fl-tac",
    "One silo for each task of a client; the server finds the tasks and averages inside them.",
    {
      tasks: z.int().min(1).describe("Number of tasks of all silos together."),
      weighting: weighting.default("uniform"),
    },
    flTac,
  ),
  entry(
    "fedlease",
    "Clusters of clients train one expert each; a router weighs all experts.",
    {
      warmupRounds: z.int().min(1).default(5).describe("Rounds alone before clients are clustered."),
      maxExperts: z.int().min(2).default(4).describe("Most experts."),
    },
    fedlease,
  ),
  entry(
    "frlora",
    "Each round starts from the principal components of the base, which gathers the changes.",
    { weighting: weighting.default("uniform") },
    frLora,
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

/** A list that is dealt in turn, or values by name. */
function perClient<Value extends z.ZodNumber>(value: Value) {
  return z.union([z.array(value).min(1), z.record(z.string(), value)]);
}

function density(way: string) {
  return z.number().gt(0).max(1).default(0.25).describe(`Share of the entries that are sent ${way}.`);
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
