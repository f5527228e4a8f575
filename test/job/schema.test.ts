import { readdirSync, readFileSync } from "node:fs";
import { describe, expect, it } from "vitest";
import { checkJob } from "../../src/job/check.ts";
import { jobJsonSchema } from "../../src/job/schema.ts";
import { strategyEntries, strategyOf } from "../../src/strategies/catalogue/entries.ts";
import { rawJob } from "./job.ts";

describe("schema/job.schema.json", () => {
  it("is what npm run schema writes", () => {
    const committed: unknown = JSON.parse(
      readFileSync(new URL("../../schema/job.schema.json", import.meta.url), "utf8"),
    );
    expect(committed).toEqual(JSON.parse(JSON.stringify(jobJsonSchema())));
  });

  it("describes every top-level key", () => {
    const { properties = {} } = jobJsonSchema();
    const silent = Object.entries(properties).filter(([, { description }]) => description === undefined);
    expect(silent.map(([key]) => key)).toEqual([]);
  });
});

describe("the strategies of a job", () => {
  it("come from every file of the folder", () => {
    const source = readFileSync(
      new URL("../../src/strategies/catalogue/entries.ts", import.meta.url),
      "utf8",
    );
    const files = readdirSync(new URL("../../src/strategies/", import.meta.url)).filter((name) =>
      name.endsWith(".ts"),
    );
    expect(files.filter((name) => !source.includes(`"../${name}"`))).toEqual([]);
  });

  /** Options without a default. */
  const required: Readonly<Record<string, object>> = { "fl-tac": { tasks: 2 } };

  it.each(strategyEntries.map(({ name }) => name))("make %s with its defaults", (name) => {
    const job = { name, ...required[name] };
    const { needsDense, needsProjection, needsPlainSgd } = strategyOf(job).declares;
    const optimizer = {
      name: needsProjection ? "galore-adamw" : needsPlainSgd ? "sgd" : "adamw",
      learningRate: 1e-3,
    };
    const adapter = { kind: needsDense ? "dense" : "lora" };
    const { strategy } = checkJob(rawJob({ strategy: job, adapter, local: { optimizer } }));
    expect(strategyOf(strategy).paper).not.toBe("");
  });
});
