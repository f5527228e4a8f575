import { describe, expect, it } from "vitest";
import { jobJsonSchema } from "../../src/job/schema.ts";
import { laidOver } from "../../src/sweep/overlay.ts";
import { rawJob } from "../job/job.ts";

const root = jobJsonSchema();

describe("keys laid over a job", () => {
  it("change what they name and leave the rest of a section", () => {
    const made = laidOver(rawJob(), { adapter: { alpha: 3 }, rounds: 7 }, root);
    expect(made).toEqual(rawJob({ adapter: { kind: "lora", rank: 4, alpha: 3 }, rounds: 7 }));
  });

  it("leave the job that they are laid over as it was", () => {
    const job = rawJob();
    laidOver(job, { local: { optimizer: { learningRate: 1 } }, data: null }, root);
    expect(job).toEqual(rawJob());
  });

  it("take a strategy by its name alone", () => {
    expect(laidOver(rawJob(), { strategy: "flora" }, root).strategy).toEqual({ name: "flora" });
  });

  it("keep of a section that becomes another kind what the new kind has", () => {
    const before = rawJob({ strategy: { name: "fedprox", mu: 0.1, weighting: "uniform" } });
    expect(laidOver(before, { strategy: "fedit" }, root).strategy).toEqual({
      name: "fedit",
      weighting: "uniform",
    });
    const sgd = { optimizer: { name: "sgd", momentum: 0.9 } };
    const adamw = rawJob({ local: { optimizer: { name: "adamw", learningRate: 2, betas: [0.8, 0.9] } } });
    expect(laidOver(adamw, { local: sgd }, root).local).toEqual({
      optimizer: { name: "sgd", learningRate: 2, momentum: 0.9 },
    });
  });

  it("take keys away by null", () => {
    const job = rawJob({ local: { optimizer: { name: "sgd", learningRate: 1 }, epochs: 2 } });
    expect(laidOver(job, { local: { epochs: null, steps: 4 } }, root).local).toEqual({
      optimizer: { name: "sgd", learningRate: 1 },
      steps: 4,
    });
  });

  it("replace lists, and mappings with names of silos, as a whole", () => {
    const job = rawJob({ adapter: { kind: "lora", ranks: { a: 2, b: 4 }, target: ["q", "k"] } });
    const keys = { adapter: { ranks: { c: 8 }, target: ["v"] } };
    expect(laidOver(job, keys, root).adapter).toEqual({ kind: "lora", ranks: { c: 8 }, target: ["v"] });
  });
});
