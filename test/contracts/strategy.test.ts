import { readdirSync } from "node:fs";
import { describe, expect, it } from "vitest";
import { expertNames, routerName } from "../../src/adapters/lora-moe.ts";
import { innerNames } from "../../src/adapters/nested-lora.ts";
import { coreName } from "../../src/adapters/tri-lora.ts";
import type { StateTree, Strategy } from "../../src/federation/strategy.ts";
import { ceLora } from "../../src/strategies/ce-lora.ts";
import { centralized } from "../../src/strategies/centralized.ts";
import { coordinateMedian } from "../../src/strategies/coordinate-median.ts";
import { fedAvg } from "../../src/strategies/fedavg.ts";
import { fedAvgM } from "../../src/strategies/fedavgm.ts";
import { fedBuff } from "../../src/strategies/fedbuff.ts";
import { fedexLora, fedexLoraKeepLocal, fedexLoraReinit } from "../../src/strategies/fedex-lora.ts";
import { fedFtg } from "../../src/strategies/fedftg.ts";
import { fedHm } from "../../src/strategies/fedhm.ts";
import { fedIt } from "../../src/strategies/fedit.ts";
import { fedlease } from "../../src/strategies/fedlease.ts";
import { fedLoru } from "../../src/strategies/fedloru.ts";
import { fedAdagrad, fedAdam, fedYogi } from "../../src/strategies/fedopt.ts";
import { fedProx } from "../../src/strategies/fedprox.ts";
import { fedsaLora } from "../../src/strategies/fedsa-lora.ts";
import { ffaLora } from "../../src/strategies/ffa-lora.ts";
import { flTac } from "../../src/strategies/fl-tac.ts";
import { flasc, flascAdamw } from "../../src/strategies/flasc.ts";
import { flexLora } from "../../src/strategies/flexlora.ts";
import { flora } from "../../src/strategies/flora.ts";
import { frLora } from "../../src/strategies/frlora.ts";
import { fsLora } from "../../src/strategies/fslora.ts";
import { geometricMedian } from "../../src/strategies/geometric-median.ts";
import { hetLora } from "../../src/strategies/hetlora.ts";
import { krum, multiKrum } from "../../src/strategies/krum.ts";
import { localOnly } from "../../src/strategies/local-only.ts";
import { loraFair } from "../../src/strategies/lora-fair.ts";
import { mFedLoru } from "../../src/strategies/mfedloru.ts";
import { pFedLoru } from "../../src/strategies/pfedloru.ts";
import { scaffold } from "../../src/strategies/scaffold.ts";
import { slora } from "../../src/strategies/slora.ts";
import { trimmedMean } from "../../src/strategies/trimmed-mean.ts";
import { mapParams, type Params } from "../../src/tensor/params.ts";
import { float32, type Tensor } from "../../src/tensor/tensor.ts";
import { describeStrategy, type StrategyExpectations } from "./strategy.ts";

const all = /./;
const none = /$^/;
const withoutA = /^(?!.*lora_A)/;
const onlyA = /lora_A/;
const others = /^head\./;
const everything: StrategyExpectations = { down: all, up: all };
const optimizer: StrategyExpectations = {
  ...everything,
  except: { "single client": "the server takes a step of its own towards the mean" },
};

const ownModels = "every client keeps a model of its own";
/** What FLASC sends in place of the trained parameters. */
const sparse: StrategyExpectations = {
  down: /^flasc\.weights/,
  up: /^flasc\.moves/,
  extra: { down: /^flasc\.places/, up: /^flasc\.places/ },
  further: ["flasc.weights", "flasc.moves", "flasc.places"],
};
const sparseMoves = {
  "single client": "the server adds a sparse move to dense weights",
  deviation: "the server never sees the trained weights, only where they moved furthest",
};

const sparseStage: StrategyExpectations = {
  down: /^head|difference/,
  up: /^head|difference/,
  further: ["q_proj", "up_proj"].map((module) => `${module}.difference.values`),
};

const hetero: StrategyExpectations = {
  down: /^(?!rank$)/,
  up: /^(?!rank$)/,
  extra: { up: /^rank$/ },
  further: ["rank"],
  except: { deviation: "clients count by the norms of their products" },
};

const wholeWeights: StrategyExpectations = {
  down: /lora_|head|bias/,
  up: /lora_|head|bias/,
  initial: (pairs) => new Map([...pairs].flatMap(([name, tensor]) => denseOf(name, tensor))),
  further: ["q_proj", "up_proj"].flatMap((module) => [`${module}.lora_A.weight`, `${module}.lora_B.weight`]),
};

const members = [
  member("centralized", centralized, everything),
  member("local-only", localOnly, {
    down: none,
    up: none,
    except: {
      "single client": "the server never holds a trained model",
      deviation: "there is no aggregate",
    },
  }),
  member("fedavg", fedAvg, everything),
  member("fedavg", () => fedAvg({ weighting: "uniform" }), everything, "uniform weights"),
  member("fedprox", fedProx, everything),
  member("fedftg", fedFtg, everything),
  member("fedbuff", fedBuff, everything),
  member("coordinate-median", coordinateMedian, everything),
  member("trimmed-mean", () => trimmedMean({ beta: 0.34 }), everything),
  member("krum", krum, everything),
  member("krum", () => multiKrum({ keep: 2 }), everything, "Multi-Krum"),
  member("geometric-median", geometricMedian, everything),
  member("geometric-median", () => geometricMedian({ weighting: "uniform" }), everything, "uniform weights"),
  member("fedit", fedIt, everything),
  member("fedopt", () => fedAdagrad({ serverLearningRate: 0.05 }), optimizer, "FedAdagrad"),
  member("fedopt", () => fedAdam({ serverLearningRate: 0.05 }), optimizer, "FedAdam"),
  member("fedopt", () => fedYogi({ serverLearningRate: 0.05 }), optimizer, "FedYogi"),
  member("fedavgm", fedAvgM, optimizer),
  member("scaffold", scaffold, { ...everything, extra: { down: all, up: all } }),
  member(
    "scaffold",
    () => scaffold({ serverLearningRate: 0.5 }),
    { ...optimizer, extra: { down: all, up: all } },
    "half a server step",
  ),
  member("ffa-lora", ffaLora, { down: withoutA, up: withoutA }),
  member("flexlora", flexLora, everything),
  member("flexlora", () => flexLora({ weighting: "uniform" }), everything, "uniform weights"),
  member("fedex-lora", fedexLora, everything),
  member("fedex-lora", () => fedexLora({ residualRank: 1 }), everything, "residual of rank 1"),
  member("fedsa-lora", fedsaLora, {
    down: onlyA,
    up: onlyA,
    except: { "single client": ownModels, deviation: ownModels },
  }),
  member("flasc", flasc, { ...sparse, except: sparseMoves }),
  member("flasc", flascAdamw, { ...sparse, except: sparseMoves }, "AdamW on the server"),
  member(
    "flasc",
    () => flasc({ downDensity: 1, upDensity: 1 }),
    { ...sparse, except: { deviation: sparseMoves.deviation } },
    "dense",
  ),
  member("fslora", fsLora, everything),
  member("slora", () => slora({ sparseRounds: 0 }), everything, "without sparse rounds"),
  member(
    "slora",
    () => slora({ density: 0.4 }),
    {
      ...sparseStage,
      except: {
        "single client": "what is saved is the best pair for the difference that clients hold",
        deviation: "what is saved is the best pair for the difference that clients hold",
      },
    },
    "sparse rounds",
  ),
  member("ce-lora", ceLora, {
    down: /lora_C/,
    up: /lora_C/,
    initial: withCores,
    except: { "single client": ownModels, deviation: ownModels },
  }),
  member(
    "fl-tac",
    () => flTac({ tasks: 1 }),
    { ...everything, except: { deviation: ownModels } },
    "one task",
  ),
  member(
    "fl-tac",
    () => flTac({ tasks: 2, weighting: "samples" }),
    { ...everything, except: { deviation: ownModels } },
    "two tasks",
  ),
  member("fedlease", () => fedlease({ warmupRounds: 1, maxExperts: 2 }), {
    down: all,
    up: /^(?!.*expert_)/,
    further: ["q_proj", "up_proj"].flatMap((module) => [
      routerName(module),
      ...Object.values<string>({ ...expertNames(module, 1) }),
    ]),
    except: { deviation: ownModels },
  }),
  member("fedex-lora", fedexLoraReinit, { down: others, up: all }, "re-initialized"),
  member("fedex-lora", fedexLoraKeepLocal, { down: others, up: all }, "local factors kept"),
  member("flora", flora, { down: others, up: all }),
  member("fedloru", () => fedLoru({ mergeEvery: 1 }), { down: others, up: all }, "merged in every round"),
  member("fedloru", () => fedLoru({ mergeEvery: 2 }), everything, "merged in every second round"),
  member(
    "fedloru",
    () => fedLoru({ mergeEvery: 1, reset: false }),
    { ...everything, except: { "single client": "what is merged stays in the factors, and counts twice" } },
    "not reset",
  ),
  member("fedhm", () => fedHm({ whole: ["head.weight"] }), wholeWeights, "full width"),
  member(
    "fedhm",
    () => fedHm({ ratios: [2, 3, 1.5], whole: ["head.weight"] }),
    {
      ...wholeWeights,
      except: {
        "single client": "its width cuts the mean",
        stays: "widths cut the weights before anybody moves",
        deviation: "the largest client does not hold the whole mean",
      },
    },
    "unequal widths",
  ),
  member("pfedloru", () => pFedLoru({ mergeEvery: 1 }), {
    down: others,
    up: /^(?!.*private)/,
    initial: withPrivate,
  }),
  member("mfedloru", () => mFedLoru({ mergeEvery: 2, innerRanks: [2, 1] }), {
    down: /^head|lora_[AB]\./,
    up: /^head|lora_[AB][du]/,
    extra: { down: /^innerRank$/ },
    further: ["innerRank", ...["q_proj", "up_proj"].flatMap((module) => Object.values(innerNames(module)))],
    except: {
      "single client": "its weights are those of factors of factors",
      deviation: "its weights are those of factors of factors",
    },
  }),
  member("hetlora", () => hetLora({ gamma: 1 }), hetero, "never pruned"),
  member(
    "hetlora",
    () => hetLora({ gamma: 0.5, normOver: "client" }),
    { ...hetero, except: { ...hetero.except, "single client": "it may have pruned its last components" } },
    "pruned by halves",
  ),
  member("frlora", frLora, { down: others, up: all }),
  member("frlora", frLora, { down: others, up: all, initial: withB }, "from a pair with effect"),
  member("lora-fair", loraFair, everything),
  member("lora-fair", () => loraFair({ cosine: { steps: 20 } }), everything, "cosine"),
];

/** A dense weight in the place of each pair. */
function denseOf(name: string, tensor: Tensor): [string, Tensor][] {
  if (!name.includes("lora_")) return [[name, tensor]];
  if (!name.endsWith("lora_B.weight")) return [];
  const module = name.replace(/\.lora_B\.weight$/, "");
  const [out, width] = module === "q_proj" ? [7, 5] : [4, 9];
  return [
    [
      `${module}.weight`,
      float32(
        [out, width],
        Array.from({ length: out * width }, (_, i) => Math.cos(3 * i)),
      ),
    ],
  ];
}

/** A core C = I within every pair. */
function withCores(pairs: Params): Params {
  const identity = float32([3, 3], [1, 0, 0, 0, 1, 0, 0, 0, 1]);
  return new Map([...pairs, ...["q_proj", "up_proj"].map((module) => [coreName(module), identity] as const)]);
}

/** A private pair beside every pair. */
function withPrivate(pairs: Params): Params {
  const own = [...pairs].filter(([name]) => name.includes("lora_"));
  return new Map([
    ...pairs,
    ...own.map(([name, tensor]) => [name.replace("lora_", "private_"), tensor] as const),
  ]);
}

/** Pairs whose B is not 0. */
function withB(pairs: Params): Params {
  return mapParams(pairs, (tensor, name) =>
    name.endsWith("lora_B.weight")
      ? float32(
          tensor.shape,
          [...tensor.data].map((_, i) => Math.sin(1 + i)),
        )
      : tensor,
  );
}

function member<State extends StateTree>(
  file: string,
  make: () => Strategy<State>,
  expectations: StrategyExpectations,
  variant?: string,
) {
  const title = variant ? `${file}, ${variant}` : file;
  return { file, run: () => describe(title, () => describeStrategy(make, expectations)) };
}

describe("strategies", () => {
  it("are all in the contract suite", () => {
    const files = readdirSync(new URL("../../src/strategies", import.meta.url))
      .filter((name) => name.endsWith(".ts"))
      .map((name) => name.replace(/\.ts$/, ""));
    expect(new Set(members.map(({ file }) => file))).toEqual(new Set(files));
  });
  for (const { run } of members) run();
});
