import { z } from "zod";
import type { Strategy } from "../../federation/strategy.ts";
import { ceLora } from "../ce-lora.ts";
import { centralized } from "../centralized.ts";
import { coordinateMedian } from "../coordinate-median.ts";
import { fedAvg } from "../fedavg.ts";
import { fedAvgM } from "../fedavgm.ts";
import { fedBuff } from "../fedbuff.ts";
import { fedexLora, fedexLoraKeepLocal, fedexLoraReinit } from "../fedex-lora.ts";
import { fedFtg } from "../fedftg.ts";
import { fedHm } from "../fedhm.ts";
import { fedIt } from "../fedit.ts";
import { fedlease } from "../fedlease.ts";
import { fedLoru } from "../fedloru.ts";
import { fedAdagrad, fedAdam, fedYogi } from "../fedopt.ts";
import { fedProx } from "../fedprox.ts";
import { fedsaLora, fedsaVera } from "../fedsa-lora.ts";
import { ffaLora } from "../ffa-lora.ts";
import { flTac } from "../fl-tac.ts";
import { flasc, flascAdamw } from "../flasc.ts";
import { flexLora } from "../flexlora.ts";
import { flora } from "../flora.ts";
import { frLora } from "../frlora.ts";
import { fsLora } from "../fslora.ts";
import { geometricMedian } from "../geometric-median.ts";
import { hetLora } from "../hetlora.ts";
import { krum, multiKrum } from "../krum.ts";
import { localOnly } from "../local-only.ts";
import { loraFair } from "../lora-fair.ts";
import { mFedLoru } from "../mfedloru.ts";
import { pFedLoru } from "../pfedloru.ts";
import { scaffold } from "../scaffold.ts";
import { slora } from "../slora.ts";
import { trimmedMean } from "../trimmed-mean.ts";
import {
  clustered,
  controlled,
  cores,
  corrected,
  experts,
  factorizedWeights,
  fromKnownStart,
  keptPairs,
  keptTimes,
  maskedFirst,
  merged,
  mergedBesidePrivate,
  mergedFromInner,
  offline,
  onlyA,
  onlyB,
  remembered,
  restartedPairs,
  shrinking,
  sparseBothWays,
  stacked,
  unequal,
  vectors,
} from "./closed-forms.ts";
import { everything, type Traffic, wholePairs } from "./traffic.ts";

type NamedOptions = z.ZodObject<{ readonly name: z.ZodLiteral<string> }, z.core.$strict>;

/** A strategy by its name, with its options beside the name: as jobs write it. */
export interface NamedStrategy {
  readonly name: string;
  readonly [option: string]: string | number | boolean | undefined;
}

/** A strategy as a job names it. */
export interface StrategyEntry {
  readonly name: string;
  /** The name and the options, with their defaults. */
  readonly schema: NamedOptions;
  make(options: NamedStrategy): Strategy;
  /** Its page in docs/methods. */
  readonly page: string;
  /** What the clients train where a job asks for LoRA. */
  readonly trains: string;
  /** Whether the clients' effective weights end at their weighted mean. */
  readonly exact: string;
  /** Values of options that have no default, for examples. */
  readonly example: Readonly<Record<string, number>>;
  /** The optimizer that it is made for; absent where any will do. */
  readonly optimizer?: "sgd" | "galore-adamw";
  /** What travels and what the server keeps, in closed form. */
  traffic(options: NamedStrategy): Traffic;
}

/** What is known of a strategy beside its algorithm. */
interface Facts<Options> extends Pick<StrategyEntry, "page" | "trains" | "exact" | "optimizer"> {
  readonly example?: StrategyEntry["example"];
  traffic(options: Options): Traffic;
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
  entry("centralized", "One client with the data of all.", {}, () => centralized(), {
    page: "baselines",
    trains: "all",
    exact: "one client",
    traffic: () => offline,
  }),
  entry("local-only", "Every client trains alone.", {}, () => localOnly(), {
    page: "baselines",
    trains: "all",
    exact: "there is no aggregate",
    traffic: () => offline,
  }),
  entry("fedavg", "The mean of the clients' parameters.", { weighting }, fedAvg, {
    page: "fedavg",
    trains: "all",
    exact: "weights: yes; factors: no",
    traffic: () => everything,
  }),
  entry(
    "fedprox",
    "FedAvg with a proximal term.",
    { weighting, mu: z.number().min(0).default(0.01).describe("Weight of the proximal term.") },
    fedProx,
    { page: "fedprox", trains: "all", exact: "weights: yes; factors: no", traffic: () => everything },
  ),
  entry(
    "fedadagrad",
    "FedAvg with an Adagrad step on the server.",
    { weighting, serverLearningRate, beta1: beta1.default(0).describe(firstMoment), tau },
    fedAdagrad,
    { page: "fedopt", trains: "all", exact: "no: a step towards it", traffic: () => keptTimes(3) },
  ),
  entry(
    "fedadam",
    "FedAvg with an Adam step on the server.",
    { weighting, serverLearningRate, beta1: beta1.default(0.9).describe(firstMoment), beta2, tau },
    fedAdam,
    { page: "fedopt", trains: "all", exact: "no: a step towards it", traffic: () => keptTimes(3) },
  ),
  entry(
    "fedyogi",
    "FedAvg with a Yogi step on the server.",
    { weighting, serverLearningRate, beta1: beta1.default(0.9).describe(firstMoment), beta2, tau },
    fedYogi,
    { page: "fedopt", trains: "all", exact: "no: a step towards it", traffic: () => keptTimes(3) },
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
    { page: "fedavgm", trains: "all", exact: "no: momentum goes on", traffic: () => keptTimes(2) },
  ),
  entry(
    "scaffold",
    "FedAvg whose clients correct their gradients by control variates; for the optimizer sgd.",
    { serverLearningRate: serverLearningRate.default(1) },
    scaffold,
    {
      page: "scaffold",
      trains: "all",
      exact: "weights: yes; factors: no",
      optimizer: "sgd",
      traffic: () => controlled,
    },
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
    {
      page: "fedbuff",
      trains: "all",
      exact: "no: late ones count less",
      traffic: ({ maxStaleness }) => remembered(maxStaleness),
    },
  ),
  entry("coordinate-median", "The median of every number.", {}, () => coordinateMedian(), {
    page: "robust",
    trains: "all",
    exact: "no: outvotes outliers",
    traffic: () => everything,
  }),
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
    { page: "robust", trains: "all", exact: "no: drops extremes", traffic: () => everything },
  ),
  entry("krum", "The update whose nearest others are nearest.", { byzantine }, krum, {
    page: "robust",
    trains: "all",
    exact: "no: one client",
    traffic: () => everything,
  }),
  entry(
    "multi-krum",
    "The mean of the updates with the best Krum scores.",
    { byzantine, keep: z.int().min(1).default(3).describe("Updates that are averaged.") },
    multiKrum,
    { page: "robust", trains: "all", exact: "no: some clients", traffic: () => everything },
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
    { page: "robust", trains: "all", exact: "no: distant ones count less", traffic: () => everything },
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
    {
      page: "fedftg",
      trains: "chosen weights",
      exact: "yes",
      optimizer: "galore-adamw",
      traffic: () => everything,
    },
  ),
  entry("fedit", "The means of A and of B.", { weighting }, fedIt, {
    page: "fedit",
    trains: "A, B",
    exact: "no: off by R",
    traffic: () => wholePairs,
  }),
  entry("ffa-lora", "A frozen at its start; the mean of B.", { weighting }, ffaLora, {
    page: "ffa-lora",
    trains: "B",
    exact: "yes",
    traffic: () => onlyB,
  }),
  entry("flexlora", "The mean of the products, cut to each client's rank.", { weighting }, flexLora, {
    page: "flexlora",
    trains: "A, B of rank r_k",
    exact: "best of rank r_k",
    traffic: () => unequal,
  }),
  entry(
    "fedex-lora",
    "FedIT, and what its mean got wrong goes to the base.",
    { weighting, residualRank },
    fedexLora,
    {
      page: "fedex-lora",
      trains: "A, B",
      exact: "yes; best of rank q",
      traffic: ({ residualRank }) => corrected(residualRank),
    },
  ),
  entry(
    "fedex-lora-reinit",
    "FedEx-LoRA whose factors start anew in each round.",
    { weighting },
    fedexLoraReinit,
    { page: "fedex-lora", trains: "A, B, new each round", exact: "yes", traffic: () => restartedPairs },
  ),
  entry(
    "fedex-lora-keep-local",
    "FedEx-LoRA whose clients keep their factors.",
    { weighting },
    fedexLoraKeepLocal,
    { page: "fedex-lora", trains: "A, B, own", exact: "yes", traffic: () => keptPairs },
  ),
  entry("flora", "The stack of the factors goes to the base; clients start anew.", { weighting }, flora, {
    page: "flora",
    trains: "A, B of rank r_k, new each round",
    exact: "yes",
    traffic: () => stacked,
  }),
  entry("fedloru", "FedIT whose mean product goes to the base every few rounds.", loru, fedLoru, {
    page: "fedloru",
    trains: "A, B",
    exact: "no: off by R",
    traffic: (options) => merged(options),
  }),
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
    {
      page: "fedloru",
      trains: "A, B and an own pair",
      exact: "no: off by R",
      traffic: (options) => mergedBesidePrivate(options),
    },
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
    {
      page: "fedloru",
      trains: "factors of A and of B, of rank r_k",
      exact: "no: off by R",
      traffic: ({ innerRanks, ...merging }) => mergedFromInner(merging, innerRanks),
    },
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
    { page: "lora-fair", trains: "A, B", exact: "no: nearer than FedIT", traffic: () => wholePairs },
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
    { page: "hetlora", trains: "A, B of rank r_k", exact: "no: weights by norm", traffic: () => shrinking },
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
    {
      page: "fedhm",
      trains: "factors of the weights",
      exact: "best of width q_k",
      traffic: ({ ratios, whole }) => factorizedWeights(ratios, whole),
    },
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
    {
      page: "flasc",
      trains: "A, B",
      exact: "no: sparse moves",
      traffic: (options) => sparseBothWays(options, 1),
    },
  ),
  entry("fslora", "Clients train a part of the components, drawn anew each round.", {}, () => fsLora(), {
    page: "fslora",
    trains: "r_k of r components",
    exact: "no: right on average",
    traffic: () => unequal,
  }),
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
    {
      page: "flasc",
      trains: "A, B",
      exact: "no: a step along sparse moves",
      traffic: (options) => sparseBothWays(options, 3),
    },
  ),
  entry("fedsa-lora", "The mean of A; every client keeps its B.", { weighting }, fedsaLora, {
    page: "fedsa-lora",
    trains: "A, B",
    exact: "each keeps its B",
    traffic: () => onlyA,
  }),
  entry(
    "fedsa-vera",
    "The mean of VeRA's lambda_d; every client keeps its lambda_b.",
    { weighting },
    fedsaVera,
    {
      page: "fedsa-lora",
      trains: "VeRA: lambda_d, lambda_b",
      exact: "each keeps its lambda_b",
      traffic: () => vectors,
    },
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
    {
      page: "slora",
      trains: "masked weights, then A, B",
      exact: "sparse: yes; then off by R",
      traffic: ({ sparseRounds }) => maskedFirst(sparseRounds),
    },
  ),
  entry(
    "ce-lora",
    "Three factors, of which the small core travels; each client gets a mixture of all cores.",
    {},
    () => ceLora(),
    { page: "ce-lora", trains: "B, C, A", exact: "each keeps its A, B", traffic: () => cores },
  ),
  entry(
    "fl-tac",
    "One silo for each task of a client; the server finds the tasks and averages inside them.",
    {
      tasks: z.int().min(1).describe("Number of tasks of all silos together."),
      weighting: weighting.default("uniform"),
    },
    flTac,
    {
      page: "fl-tac",
      trains: "A, B of each task",
      exact: "off by R in each cluster",
      example: { tasks: 2 },
      traffic: ({ tasks }) => clustered(tasks),
    },
  ),
  entry(
    "fedlease",
    "Clusters of clients train one expert each; a router weighs all experts.",
    {
      warmupRounds: z.int().min(1).default(5).describe("Rounds alone before clients are clustered."),
      maxExperts: z.int().min(2).default(4).describe("Most experts."),
    },
    fedlease,
    {
      page: "fedlease",
      trains: "an expert A, B and a router",
      exact: "off by R in each cluster",
      traffic: ({ warmupRounds }) => experts(warmupRounds),
    },
  ),
  entry(
    "frlora",
    "Each round starts from the principal components of the base, which gathers the changes.",
    { weighting: weighting.default("uniform") },
    frLora,
    {
      page: "frlora",
      trains: "A, B from principal components",
      exact: "no: off by R",
      traffic: () => fromKnownStart,
    },
  ),
];

/** The strategy of a checked job. */
export function strategyOf(job: NamedStrategy): Strategy {
  const found = strategyEntries.find(({ name }) => name === job.name);
  if (found === undefined) {
    throw new RangeError(
      `strategy.name: got ${job.name}, expected one of ${strategyEntries.map(({ name }) => name).join(", ")}`,
    );
  }
  return found.make(job);
}

/** The mean of whatever clients train, weights or adapters. */
export const plainMean: NamedStrategy = { name: "fedavg", weighting: "samples" };

/** What a job begins with where nobody chose: the mean of the factors of low-rank adapters. */
export const usualStrategy = "fedit";

/** Names of some strategies that fit, in the order of the catalogue. */
export function strategiesWhere(fits: (strategy: Strategy) => boolean): string[] {
  const fitting = strategyEntries.filter(({ name, make, example }) => {
    const strategy = make({ name, ...example });
    return !strategy.declares.centralized && !strategy.declares.isolated && fits(strategy);
  });
  return fitting.slice(0, 4).map(({ name }) => name);
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
  { traffic, ...facts }: Facts<z.output<z.ZodObject<Shape>>>,
): StrategyEntry {
  const options = z.object(shape);
  return {
    name,
    schema: z.strictObject({ name: z.literal(name), ...shape }).describe(description),
    make: (job) => make(options.parse(job)),
    example: {},
    ...facts,
    traffic: (job) => traffic(options.parse(job)),
  };
}
