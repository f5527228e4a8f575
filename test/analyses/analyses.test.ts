import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, describe, expect, it } from "vitest";
import { writeFindings } from "../../scripts/analyses/output.ts";
import { accumulated, energyOf, ranksOf } from "../../scripts/analyses/spectrum.ts";
import { layerOf, mean, spread } from "../../scripts/analyses/statistics.ts";
import { baseChain, extendChain } from "../../src/federation/base-chain.ts";
import { float32 } from "../../src/tensor/tensor.ts";

const folder = mkdtempSync(join(tmpdir(), "tributary-analyses-"));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

describe("the spectra of an analysis", () => {
  it("have an effective rank of k where k singular values are equal, and a numerical rank above rounding", () => {
    const flat = ranksOf(Float64Array.of(2, 2, 2, 1e-9));
    expect(flat.numerical).toBe(3);
    expect(flat.effective).toBeCloseTo(3, 5);
    expect(ranksOf(new Float64Array(4))).toEqual({ numerical: 0, effective: 0 });
  });

  it("count energy in squares", () => {
    expect(energyOf(Float64Array.of(3, 4), 1)).toBeCloseTo(9 / 25, 12);
    expect(energyOf(new Float64Array(2), 1)).toBe(1);
  });

  it("hold what the base gained and the product of the pair", async () => {
    const module = "model.layers.0.q_proj";
    const left = new Map([[`${module}.weight`, float32([3, 1], Float32Array.of(1, 0, 0))]]);
    const right = new Map([[`${module}.weight`, float32([1, 2], Float32Array.of(0, 3))]]);
    const chain = await extendChain(
      baseChain("base"),
      [{ kind: "factors", left, right, scale: 2 }],
      () => "next",
    );
    // The base gained a matrix with 6 in row 0, column 1; the pair adds 2 * 5 in row 1, column 0.
    const pair = new Map([
      [`${module}.lora_A.weight`, float32([1, 2], Float32Array.of(5, 0))],
      [`${module}.lora_B.weight`, float32([3, 1], Float32Array.of(0, 1, 0))],
    ]);
    const found = accumulated({ chain, global: () => pair }, 2, (name) => name === module).get(module);
    expect([...(found ?? [])]).toEqual([expect.closeTo(10, 5), expect.closeTo(6, 5)]);
  });
});

describe("the figures of an analysis", () => {
  it("are means, deviations of a sample, and layers by their names", () => {
    expect(mean([1, 2, 6])).toBe(3);
    expect(spread([1, 3])).toBeCloseTo(Math.SQRT2, 12);
    expect(layerOf("model.layers.12.mlp.up_proj")).toBe(12);
  });

  it("are written as a page and as values, text with commas in quotes", () => {
    const text = writeFindings(folder, {
      title: "A title",
      text: "What was done.",
      values: { columns: ["what", "value"], rows: [['a, "b"', 0.25]] },
      summary: { columns: ["what", "value"], rows: [["a", 1234.5678]] },
      figures: [],
    });
    expect(text).toContain("| a | 1234.57 |");
    expect(readFileSync(join(folder, "README.md"), "utf8")).toContain("# A title\n\nWhat was done.");
    expect(readFileSync(join(folder, "values.csv"), "utf8")).toBe('what,value\n"a, ""b""",0.25\n');
  });
});
