import { describe, expect, it } from "vitest";
import { readRecords } from "../../src/data/files.node.ts";
import type { Preset } from "../../src/data/presets/preset.ts";
import { presetNamed, presets } from "../../src/data/presets/presets.ts";
import type { DataRecord } from "../../src/data/record.ts";
import { metricNamed } from "../../src/metrics/table.ts";
import { shared } from "../shared.ts";

function preset(name: string): Preset {
  const found = presetNamed(name);
  if (found === undefined) throw new Error(`no preset ${name}`);
  return found;
}

function prepared(name: string, ...rows: readonly DataRecord[]): readonly (DataRecord | string)[] {
  return preset(name).prepare?.(rows) ?? rows;
}

describe("presets", () => {
  it("have names of their own, sources, licences, and metrics that exist", () => {
    expect(new Set(presets.map(({ name }) => name)).size).toBe(presets.length);
    for (const { name, source, license, paper, columns, splits, job } of presets) {
      expect(name).toMatch(/^[a-z0-9-]+$/);
      expect(source).toMatch(/^https:\/\//);
      for (const text of [license, paper, splits]) expect(text.length).toBeGreaterThan(2);
      expect(Object.keys(columns).length).toBeGreaterThan(1);
      for (const metric of job.evaluation.metrics ?? [])
        expect([metric, metricNamed(metric)?.name]).toEqual([metric, metric]);
    }
  });

  it("write restaurants as the papers do", () => {
    const mr =
      "name[The Vaults], eatType[pub], priceRange[more than £30], customer rating[5 out of 5], familyFriendly[no], near[Café Adriatic]";
    expect(prepared("e2e-nlg", { mr, ref: "The Vaults is a pub." })).toMatchObject([
      {
        prompt:
          "name : The Vaults | Type : pub | price : more than £30 | customer rating : 5 out of 5 | family friendly : no | near : Café Adriatic ||",
        completion: " The Vaults is a pub.",
      },
    ]);
    expect(prepared("e2e-nlg", { mr: "a pub", ref: "x" }, { mr: "a[b]", ref: "" })).toEqual([
      "no slots in mr",
      "an empty description",
    ]);
  });

  it("make choices of the format that a question of common sense asks for", () => {
    const instruction = "Who is it?\n\nAnswer1: a Answer2: b\n\nAnswer format: answer1/answer2";
    const row = { instruction, input: "", output: "the correct answer is answer2", answer: "answer2" };
    expect(prepared("arc-easy", row, { ...row, answer: "answer3" })).toEqual([
      { ...row, choices: ["the correct answer is answer1", "the correct answer is answer2"], gold: 1 },
      "an answer that is none of the choices of the instruction",
    ]);
  });

  it("leave out what has no answer", () => {
    expect(prepared("dolly-15k", { instruction: "a", response: " " })).toEqual(["an empty response"]);
    expect(prepared("alpaca", { instruction: "a", output: "" })).toEqual(["an empty output"]);
    expect(prepared("rte", { sentence1: "a", sentence2: "b", label: -1 })).toEqual([
      "a label that is not public",
    ]);
    expect(prepared("math", { problem: "1 + 1?", solution: "\\boxed{2}" }, {})).toMatchObject([
      { prompt: "Problem:\n1 + 1?\n\nSolution:", completion: " \\boxed{2}" },
      "no problem or no solution",
    ]);
  });

  it("leave out equal images and know the folders of their source", () => {
    const image = { height: 1, width: 2, channels: 1, data: Uint8Array.of(1, 2) };
    const other = { ...image, data: Uint8Array.of(2, 1) };
    expect(
      prepared(
        "brain-mri",
        { image, label: 0 },
        { image: other, label: "no_tumor" },
        { image: { ...image }, label: 1 },
      ),
    ).toEqual([{ image, label: 0 }, { image: other, label: "none" }, "an image that occurs before"]);
  });

  it("take CIFAR-10 under the name of its Parquet files", () => {
    expect(prepared("cifar-10", { img: 7, label: 1 })).toEqual([{ img: 7, image: 7, label: 1 }]);
  });

  it.skipIf(shared === undefined)(
    "count what is held of common sense (needs the reference data)",
    async () => {
      const folders = { boolq: "boolq", piqa: "piqa", "social-iqa": "social_i_qa", winogrande: "winogrande" };
      const more = { "arc-easy": "ARC-Easy", "arc-challenge": "ARC-Challenge", openbookqa: "openbookqa" };
      for (const [name, folder] of Object.entries({ ...folders, ...more })) {
        const { rows } = await readRecords(`${shared}/data/commonsense/${folder}/test.json.gz`);
        const kept = (preset(name).prepare?.(rows) ?? []).filter((row) => typeof row !== "string");
        expect([name, kept.length]).toEqual([name, rows.length]);
      }
    },
  );
});
