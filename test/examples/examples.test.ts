import { execFile } from "node:child_process";
import { mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { afterAll, expect, it } from "vitest";

const root = fileURLToPath(new URL("../..", import.meta.url));
const folder = mkdtempSync(join(tmpdir(), "tributary-examples-"));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

/** Runs a program as its first line says, against the built package; gives its lines. */
async function lines(program: string, ...args: string[]): Promise<string[]> {
  const tsx = import.meta.resolve("tsx");
  const { stdout } = await promisify(execFile)(
    process.execPath,
    ["--import", tsx, join(root, "examples", program), ...args],
    { cwd: folder },
  );
  return stdout.trimEnd().split("\n");
}

const numbers = (text: string): number[] => (text.match(/-?\d+(?:\.\d+)?/g) ?? []).map(Number);

const programs: Readonly<Record<string, (program: string) => Promise<void>>> = {
  async "01-fedit.ts"(program) {
    const rounds = (await lines(program, "adapter")).map(numbers);
    expect(rounds.map(([round]) => round)).toEqual([1, 2, 3]);
    const losses = rounds.map(([, loss = Number.NaN]) => loss);
    expect(losses[2]).toBeLessThan(losses[0] ?? Number.NaN);
    expect(readdirSync(join(folder, "adapter")).sort()).toEqual([
      "adapter_config.json",
      "adapter_model.safetensors",
    ]);
  },
  async "02-generate.ts"(program) {
    const [first = "", ...rest] = await lines(program, "adapter");
    expect(first.startsWith("My fellow Americans")).toBe(true);
    expect([first, ...rest].join("\n").length).toBeGreaterThan(50);
    expect(await lines(program, "adapter")).toEqual([first, ...rest]);
  },
  async "03-compare.ts"(program) {
    const rows = await lines(program, "compare");
    expect(rows.map((row) => row.split(" ")[0])).toEqual(["fedit", "fedex-lora"]);
    for (const row of rows) {
      const [before = Number.NaN, after = Number.NaN] = numbers(row.slice(row.indexOf("loss")));
      expect(after).toBeLessThan(before);
    }
  },
  async "04-own-strategy.ts"(program) {
    const [mean = "", median = ""] = await lines(program);
    expect(numbers(mean).every((value) => value > 300_000)).toBe(true);
    expect(median).toBe("median 1.5 1.5 1.5");
  },
  async "05-browser-step.ts"(program) {
    const steps = (await lines(program)).map(numbers);
    expect(steps).toHaveLength(20);
    const [first, last] = [steps[0]?.[1] ?? Number.NaN, steps[19]?.[1] ?? Number.NaN];
    expect(last).toBeLessThan(first / 2);
  },
};

it("every program of examples/ is run here, and stays under 61 lines", () => {
  const files = readdirSync(join(root, "examples")).filter((name) => name.endsWith(".ts"));
  expect(files.sort()).toEqual(Object.keys(programs));
  for (const file of files)
    expect(
      readFileSync(join(root, "examples", file), "utf8")
        .trimEnd()
        .split("\n").length,
    ).toBeLessThan(61);
});

for (const [program, check] of Object.entries(programs)) {
  it(
    `${program} runs against the built package, with the result that it is meant to have`,
    () => check(program),
    60_000,
  );
}
