import { describe, expect, it } from "vitest";
import { checkJob } from "../../src/job/check.ts";
import { flagHint, flagNames, flagPath, jobFlags, type TypedFlag, withFlags } from "../../src/job/flags.ts";
import { rawJob } from "./job.ts";

const flags = jobFlags();

function typed(flag: string, ...texts: string[]): TypedFlag {
  const path = flagPath(flag, flags);
  if (path === undefined) throw new Error(`no flag ${flag}`);
  return { path, texts };
}

describe("flags", () => {
  it("exist for every key that takes a value", () => {
    const paths = flags.map(({ path }) => path);
    expect(paths).toContain("local.optimizer.learningRate");
    expect(paths).toContain("adapter.rank");
    expect(paths).toContain("partition.clients");
    expect(paths).not.toContain("local");
    expect(flags.find(({ path }) => path === "rounds")?.expects).toBe("a whole number from 1");
  });

  it("win over the file", () => {
    const job = checkJob(
      withFlags(rawJob(), [typed("rounds", "7"), typed("learning-rate", "2e-4"), typed("rank", "16")]),
    );
    expect(job.rounds).toBe(7);
    expect(job.local.optimizer.learningRate).toBe(2e-4);
    expect(job.adapter).toMatchObject({ rank: 16 });
  });

  it("read lists, pairs, switches and texts that look like numbers", () => {
    const job = checkJob(
      withFlags(rawJob(), [
        typed("target", "q_proj,v_proj"),
        typed("local.optimizer.betas", "0.8,0.95"),
        typed("data.pack", "true"),
        typed("data", "1", "2"),
        typed("data.splits.validation", "held-out.jsonl"),
        typed("workers", "auto"),
      ]),
    );
    expect(job.adapter).toMatchObject({ target: ["q_proj", "v_proj"] });
    expect(job.local.optimizer).toMatchObject({ betas: [0.8, 0.95] });
    expect(job.data.pack).toBe(true);
    expect(job.data.path).toEqual(["1", "2"]);
    expect(job.data.splits.validation).toBe("held-out.jsonl");
    expect(job.workers).toBe("auto");
  });

  it("that choose another kind drop what only the old kind has", () => {
    const raw = rawJob({ strategy: { name: "fedprox", mu: 0.1, weighting: "uniform" } });
    expect(checkJob(withFlags(raw, [typed("strategy", "fedit")])).strategy).toEqual({
      name: "fedit",
      weighting: "uniform",
    });
    const job = checkJob(
      withFlags(rawJob(), [
        typed("partition", "dirichlet"),
        typed("partition.alpha", "0.5"),
        typed("partition.field", "topic"),
      ]),
    );
    expect(job.partition).toEqual({
      kind: "dirichlet",
      clients: 4,
      alpha: 0.5,
      field: "topic",
      minExamples: 1,
    });
  });

  it("do not change the file's object", () => {
    const raw = rawJob();
    withFlags(raw, [typed("rounds", "7")]);
    expect(raw.rounds).toBe(3);
  });

  it("that are unknown name the nearest, or the name that replaced them", () => {
    expect(flagHint("ronds", flagNames(flags))).toBe("did you mean --rounds?");
    expect(flagHint("lora_alpha", flagNames(flags))).toBe("it is called --adapter.alpha here");
    expect(flagHint("zzzzzz", flagNames(flags))).toBe("see --help");
  });
});
