import { describe, expect, it } from "vitest";
import { checkJob } from "../../src/job/check.ts";
import { jobStrategy } from "../../src/job/updates.ts";
import { rawJob } from "./job.ts";

const strategyFor = (changes: Readonly<Record<string, unknown>>) => jobStrategy(checkJob(rawJob(changes)));

describe("the updates of a job", () => {
  it("are taken as they are by default", () => {
    const { updates } = checkJob(rawJob());
    expect(updates).toEqual({ packing: { kind: "none" }, precision: "float32" });
    expect(strategyFor({}).name).toBe("FedIT");
  });

  it("are unpacked, brought up to date and clipped, in this order", () => {
    const strategy = strategyFor({
      updates: {
        clip: 2,
        packing: { kind: "quantized", bits: 4 },
        precision: "bfloat16",
        late: { maxStaleness: 1 },
      },
    });
    expect(strategy.name).toBe(
      "FedIT, buffered up to 1 late, clipped to 2, quantized to 4 bits, sent in bfloat16",
    );
  });

  it.each([
    ["fedex-lora", { late: {} }, /updates\.late: .*changes the base/],
    ["krum", { late: {} }, /updates\.late: .*updates of one round/],
    [
      "flexlora",
      { packing: { kind: "sparse" } },
      /errorFeedback: got true, expected false .*turns its factors/,
    ],
    ["fedex-lora", { packing: { kind: "quantized" } }, /errorFeedback: got true, expected false/],
  ])("are refused for %s where they mean nothing", (name, updates, reason) => {
    expect(() => checkJob(rawJob({ strategy: { name }, updates }))).toThrow(reason);
  });

  it("go without error feedback where factors turn", () => {
    const updates = { packing: { kind: "sparse", share: 0.2, errorFeedback: false } };
    expect(strategyFor({ strategy: { name: "flexlora" }, updates }).name).toBe(
      "FlexLoRA, the largest 20 % of changes",
    );
  });
});

describe("DoRA in a job", () => {
  it("goes with means of factors, and not with methods whose algebra is that of products", () => {
    const adapter = { kind: "lora", rank: 2, dora: true };
    for (const name of ["fedit", "ffa-lora", "fedadam", "krum"])
      expect(checkJob(rawJob({ adapter, strategy: { name } })).adapter).toMatchObject({ dora: true });
    for (const name of ["flexlora", "fedex-lora"])
      expect(() => checkJob(rawJob({ adapter, strategy: { name } }))).toThrow(/adapter\.dora: got true/);
  });
});

describe("SCAFFOLD in a job", () => {
  const strategy = { name: "scaffold" };
  const sgd = { name: "sgd", learningRate: 0.1 };

  it("asks for gradient descent without momentum at one step size", () => {
    expect(() => checkJob(rawJob({ strategy }))).toThrow(
      /local\.optimizer\.name: got adamw, expected sgd for the strategy scaffold/,
    );
    expect(() => checkJob(rawJob({ strategy, local: { optimizer: { ...sgd, momentum: 0.9 } } }))).toThrow(
      /local\.optimizer\.momentum: got 0\.9, expected 0/,
    );
    expect(() =>
      checkJob(rawJob({ strategy, local: { optimizer: sgd, schedule: { kind: "cosine" } } })),
    ).toThrow(/local\.schedule: got cosine, expected one step size/);
    expect(() =>
      checkJob(rawJob({ strategy, local: { optimizer: sgd, schedule: { warmupSteps: 3 } } })),
    ).toThrow(/local\.schedule: got 3 steps of growth/);
    expect(checkJob(rawJob({ strategy, local: { optimizer: sgd } })).strategy.name).toBe("scaffold");
  });
});

describe("FedFTG in a job", () => {
  it("asks for weights themselves and for an optimizer that projects", () => {
    const galore = { optimizer: { name: "galore-adamw", learningRate: 1e-3, rank: 4 } };
    const adapter = { kind: "dense", target: "up_proj" };
    const strategy = { name: "fedftg" };
    expect(() => checkJob(rawJob({ strategy, local: galore }))).toThrow(
      /adapter\.kind: got lora, expected dense/,
    );
    expect(() => checkJob(rawJob({ strategy, adapter }))).toThrow(
      /local\.optimizer\.name: got adamw, expected an optimizer that projects/,
    );
    const { local } = checkJob(rawJob({ strategy, adapter, local: galore }));
    expect(local.optimizer).toMatchObject({ gap: 200, scale: 0.25, side: "std", epsilon: 1e-6 });
  });
});
