import { describe, expect, it } from "vitest";
import { checkJob } from "../../src/job/check.ts";
import { JobError } from "../../src/job/problem.ts";
import { rawJob } from "./job.ts";

/** The message of the JobError that a raw job gives. */
function refusal(raw: unknown): string {
  try {
    checkJob(raw);
  } catch (error) {
    if (error instanceof JobError) return error.message;
    throw error;
  }
  throw new Error("the job was accepted");
}

describe("a job", () => {
  it("gets every default", () => {
    const job = checkJob(rawJob());
    expect(job.task).toBe("causal-lm");
    expect(job.adapter).toEqual({
      kind: "lora",
      rank: 4,
      alpha: 16,
      target: "all-linear",
      rsLora: false,
      dora: false,
      init: "kaiming-uniform",
      modulesToSave: [],
    });
    expect(job.local.optimizer).toEqual({
      name: "adamw",
      learningRate: 1e-3,
      betas: [0.9, 0.999],
      epsilon: 1e-8,
      weightDecay: 0.01,
    });
    expect(job.strategy).toEqual({ name: "fedit", weighting: "samples" });
    expect(job.data.splits).toEqual({ validation: 0.1 });
  });

  it("may hold nothing out, and is then measured on nothing", () => {
    const job = checkJob(rawJob({ data: { path: "train.jsonl", splits: { validation: 0 } } }));
    expect(job.data.splits).toEqual({ validation: 0 });
    expect(
      refusal(
        rawJob({ data: { path: "train.jsonl", splits: { validation: 0 } }, evaluation: { split: "test" } }),
      ),
    ).toContain("evaluation.split: got test, expected a part that data.splits holds out");
  });

  it("is refused with what was got, what was expected and what to do", () => {
    expect(refusal(rawJob({ rounds: "three" }))).toBe(
      'rounds: got "three", expected a whole number from 1; correct it',
    );
  });

  it("holds a base that its strategy changes in float32 alone, and four bits on the processor alone", () => {
    expect(checkJob(rawJob({ basePrecision: "4bit" })).basePrecision).toBe("4bit");
    for (const basePrecision of ["stored", "4bit"]) {
      expect(refusal(rawJob({ basePrecision, strategy: { name: "fedex-lora" } }))).toContain(
        `basePrecision: got ${basePrecision}, expected float32 for the strategy fedex-lora, which changes the base (changesBase); remove basePrecision, or take a strategy such as`,
      );
    }
    expect(refusal(rawJob({ basePrecision: "stored", strategy: { name: "fedhm" } }))).toContain(
      "changes the base",
    );
    expect(refusal(rawJob({ basePrecision: "4bit", device: "webgpu" }))).toContain(
      "basePrecision: got 4bit on webgpu, expected float32 or stored there",
    );
  });

  it("takes the trunk of a checkpoint alone where the head is that of a task", () => {
    const classes = { path: "train.jsonl", classes: 2 };
    const job = checkJob(rawJob({ weights: "trunk", task: "sequence-classification", data: classes }));
    expect(job.weights).toBe("trunk");
    expect(checkJob(rawJob({ weights: "random" })).weights).toBe("random");
    expect(checkJob(rawJob()).weights).toBeUndefined();
    expect(refusal(rawJob({ weights: "trunk" }))).toBe(
      "weights: got trunk, expected pretrained or random for the task causal-lm, whose head belongs to the pretrained model; remove it",
    );
  });

  it("names the key that an unknown one is nearest to", () => {
    expect(refusal(rawJob({ roundz: 3 }))).toBe(
      "roundz: got an unknown key with 3, expected a known key; did you mean rounds?",
    );
    expect(refusal(rawJob({ adapter: { kind: "lora", rnak: 4 } }))).toBe(
      "adapter.rnak: got an unknown key with 4, expected a known key; did you mean adapter.rank?",
    );
  });

  it("names the section that a key belongs to", () => {
    expect(refusal(rawJob({ clipNorm: 1 }))).toContain("it belongs to local.clipNorm");
  });

  it.each([
    ["learning_rate", "local.optimizer.learningRate"],
    ["per_device_train_batch_size", "local.batchSize"],
    ["num_train_epochs", "local.epochs"],
    ["lora_alpha", "adapter.alpha"],
    ["lora_r", "adapter.rank"],
    ["r", "adapter.rank"],
    ["target_modules", "adapter.target"],
    ["fraction_fit", "participation"],
    ["max_seq_length", "data.maxLength"],
  ])("says what %s is called here", (old, name) => {
    expect(refusal(rawJob({ [old]: 1 }))).toBe(
      `${old}: got the key ${old}, expected its name here, ${name}; write ${name}`,
    );
  });

  it("lists all errors at once, those between keys too", () => {
    const lines = refusal({
      schema: 1,
      data: { path: "x.jsonl", splits: { validation: 0.5, test: 0.6 } },
      partition: { kind: "iid", clients: 0 },
      adapter: { kind: "dense" },
      strategy: { name: "fedexlora" },
      local: { optimizer: { name: "adamw", learningRate: "fast" }, epochs: 1, steps: 4 },
      rounds: 2.5,
      task: "regression",
      generate: { prompt: "Once" },
    }).split("\n");
    expect(lines.map((line) => line.slice(0, line.indexOf(":")))).toEqual([
      "model",
      "partition.clients",
      "strategy.name",
      "local.optimizer.learningRate",
      "rounds",
      "local.steps",
      "data.splits",
      "generate",
    ]);
    expect(lines[2]).toContain("did you mean fedex-lora?");
  });

  it("refuses options that its strategy does not have", () => {
    expect(refusal(rawJob({ strategy: { name: "fedit", mu: 1 } }))).toContain(
      "strategy.mu: got an unknown key with 1",
    );
  });

  it("refuses an adapter that its strategy cannot use", () => {
    expect(refusal(rawJob({ adapter: { kind: "dense" } }))).toBe(
      "adapter.kind: got dense, expected lora for the strategy fedit; write lora, or take a strategy such as fedavg, fedprox, fedadagrad or fedadam",
    );
    expect(refusal(rawJob({ adapter: { kind: "lora", ranks: [2, 4] } }))).toContain("expected equal ranks");
    expect(
      checkJob(rawJob({ adapter: { kind: "lora", ranks: [2, 4] }, strategy: { name: "flexlora" } })).strategy
        .name,
    ).toBe("flexlora");
  });

  it("refuses to evaluate what it does not hold out", () => {
    expect(refusal(rawJob({ evaluation: { split: "test" } }))).toBe(
      "evaluation.split: got test, expected a part that data.splits holds out; write validation",
    );
  });

  it("needs the classes of a classification", () => {
    expect(refusal(rawJob({ task: "sequence-classification" }))).toContain("data.classes: got nothing");
  });

  it("refuses what is no section", () => {
    expect(refusal("job")).toBe('job: got "job", expected a section; correct it');
    expect(refusal(rawJob({ local: null }))).toBe("local: got null, expected a section; correct it");
  });
});
