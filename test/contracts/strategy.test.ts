import { readdirSync } from "node:fs";
import { describe, expect, it } from "vitest";
import type { StateTree, Strategy } from "../../src/federation/strategy.ts";
import { centralized } from "../../src/strategies/centralized.ts";
import { fedAvg } from "../../src/strategies/fedavg.ts";
import { fedexLora, fedexLoraKeepLocal, fedexLoraReinit } from "../../src/strategies/fedex-lora.ts";
import { fedIt } from "../../src/strategies/fedit.ts";
import { fedAdagrad, fedAdam, fedYogi } from "../../src/strategies/fedopt.ts";
import { fedProx } from "../../src/strategies/fedprox.ts";
import { ffaLora } from "../../src/strategies/ffa-lora.ts";
import { flexLora } from "../../src/strategies/flexlora.ts";
import { localOnly } from "../../src/strategies/local-only.ts";
import { describeStrategy, type StrategyExpectations } from "./strategy.ts";

const all = /./;
const none = /$^/;
const withoutA = /^(?!.*lora_A)/;
const others = /^head\./;
const everything: StrategyExpectations = { down: all, up: all };
const optimizer: StrategyExpectations = {
  ...everything,
  except: { "single client": "the server takes a step of its own towards the mean" },
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
  member("fedit", fedIt, everything),
  member("fedopt", () => fedAdagrad({ serverLearningRate: 0.05 }), optimizer, "FedAdagrad"),
  member("fedopt", () => fedAdam({ serverLearningRate: 0.05 }), optimizer, "FedAdam"),
  member("fedopt", () => fedYogi({ serverLearningRate: 0.05 }), optimizer, "FedYogi"),
  member("ffa-lora", ffaLora, { down: withoutA, up: withoutA }),
  member("flexlora", flexLora, everything),
  member("flexlora", () => flexLora({ weighting: "uniform" }), everything, "uniform weights"),
  member("fedex-lora", fedexLora, everything),
  member("fedex-lora", () => fedexLora({ residualRank: 1 }), everything, "residual of rank 1"),
  member("fedex-lora", fedexLoraReinit, { down: others, up: all }, "re-initialized"),
  member("fedex-lora", fedexLoraKeepLocal, { down: others, up: all }, "local factors kept"),
];

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
    const files = readdirSync(new URL("../../src/strategies", import.meta.url)).map((name) =>
      name.replace(/\.ts$/, ""),
    );
    expect(new Set(members.map(({ file }) => file))).toEqual(new Set(files));
  });
  for (const { run } of members) run();
});
