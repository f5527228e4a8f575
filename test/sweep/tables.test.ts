import { describe, expect, it } from "vitest";
import { withTable } from "../../src/sweep/insert.ts";
import type { RunRow } from "../../src/sweep/sweep.ts";
import { runsCsv, tableCsv, tableMarkdown } from "../../src/sweep/tables.ts";
import { planOf, rowWith } from "./results.ts";

const B = "B, or |B|";
const rows = [
  rowWith("A", 1, 0.5),
  rowWith(B, 1, 0.75),
  rowWith("A", 2, 0.75),
  rowWith(B, 2, 0.875, { relativeDeviation: 0.125 }),
];

/** Markdown without the spaces that line its columns up. */
function compact(text: string): string {
  return text.replaceAll(/ +\|/g, " |");
}

describe("the table of runs", () => {
  it("has a line for each run, with exact bytes and fields that stand in quotes where they must", () => {
    const failed = rowWith("A", 3, 0, { failure: 'a "quoted"\nreason', after: {}, best: {} });
    const { endedBy: _, ...cut } = failed;
    const lines = runsCsv([...rows.slice(0, 2), cut]).split("\r\n");
    expect(lines[0]).toBe(
      "method,strategy,partition,partition kind,seed,rounds,steps,ended by,metric protocol," +
        "accuracy before,accuracy after,accuracy best,loss before,loss after,loss best," +
        "relative deviation,down (B),up (B),time (s),server (s),peak memory (B),threads,failure",
    );
    expect(lines[1]).toBe(
      "A,fedit,even,iid,1,3,12,rounds,last,0.500000,0.500000,0.625000,0.750000,0.500000,0.250000,," +
        "1500000,2000000,11.000,0.250,300000000,1,",
    );
    expect(lines[2]?.startsWith('"B, or |B|",fedit,')).toBe(true);
    expect(lines[3]?.endsWith(',1,"a ""quoted""\nreason"')).toBe(true);
  });
});

describe("the table of methods", () => {
  it("has means with their deviations, and the paired difference to the first method", () => {
    const [head = "", a = "", b = ""] = tableCsv(planOf(), rows).split("\r\n");
    const column = (line: string, title: string): string | undefined =>
      line.replace(`"${B}"`, "B").split(",")[head.split(",").indexOf(title)];
    expect(column(a, "accuracy last")).toBe("0.625000");
    // The deviation of two values is their distance over the root of 2.
    expect(column(a, "sd of accuracy last")).toBe((0.25 / Math.SQRT2).toFixed(6));
    expect(column(a, "difference to A")).toBe("");
    // Differences 0.25 and 0.125: their standard error is half of their distance.
    expect(column(b, "difference to A")).toBe("0.187500");
    expect(column(b, "standard error of difference to A")).toBe("0.062500");
    expect(column(b, "pairs of difference to A")).toBe("2");
    expect(column(b, "time (s)")).toBe("11.500");
    expect(column(b, "down (MB)")).toBe("1.50000");
  });

  it("counts the best round where the protocol says so", () => {
    const text = tableCsv(planOf({ protocol: "best" }), rows);
    expect(text).toContain("accuracy best,");
    expect(text).toContain("A,fedit,even,2,0,0.750000,");
  });

  it("writes a metric with its digits, and takes the least of one that falls", () => {
    const measured = (method: string, seed: number, bleu: number): RunRow =>
      rowWith(method, seed, 0, { before: { bleu: 1 }, after: { bleu, ece: 0.25 } });
    const made = [measured("A", 1, 23.456), measured(B, 1, 24.987)];
    expect(compact(tableMarkdown(planOf({ metric: "bleu", seeds: [1] }), made, ""))).toContain(
      "| B, or \\|B\\| | 1 | 24.99 | +1.531 | 1.00 |",
    );
    expect(runsCsv(made).split("\r\n")[0]).toContain("bleu before,bleu after,bleu best,ece before,");
  });

  it("leaves failed runs out of the means, pairs only seeds that both have, and tells the reasons", () => {
    const text = compact(
      tableMarkdown(
        planOf(),
        [...rows.slice(0, 3), rowWith(B, 2, 0, { failure: "no memory\nat all" })],
        "2 cores",
      ),
    );
    expect(text).toContain("| A | 2 | 0.6250 ± 0.1768 | - |");
    expect(text).toContain("| B, or \\|B\\| | 1 of 2 | 0.7500 | +0.25000 |");
    expect(text).toContain("- b, or |b|/even/seed-2 failed: no memory\n");
  });

  it("says what the numbers mean, and which runs ended before their budget did", () => {
    const text = tableMarkdown(planOf({ budget: { bytes: 50e6 } }), rows, "a processor, 2 cores");
    expect(text).toContain("over the seeds 1, 2; the value after the last round.");
    expect(text).toContain("budget of 50 MB down and up. 4 of 4 runs ended at their number of rounds");
    expect(text).toContain("2 runs went side by side, on one core each");
    expect(text).toContain("(a processor, 2 cores)");
  });

  it("lines its columns up", () => {
    const lines = tableMarkdown(planOf(), rows, "").trim().split("\n").slice(2);
    const places = lines.map((line) => [...line.matchAll(/(?<!\\)\|/g)].map(({ index }) => index));
    expect(lines).toHaveLength(4);
    expect(new Set(places.map(String)).size).toBe(1);
    expect(lines[1]).toMatch(/^(?:\| -+ )+\|$/);
  });

  it("names the partition where there are several", () => {
    const partitions = ["even", "skewed"].map((label) => ({ label, slug: label }));
    const text = compact(tableMarkdown(planOf({ partitions }), rows, ""));
    expect(text).toContain("| method | partition | runs |");
    expect(text).toContain("| A | skewed | 0 | - | - |");
  });
});

describe("a table in a document", () => {
  const document =
    "# A\n\n<!-- sweep: letters -->\nold\n<!-- end of sweep -->\n\n<!-- sweep: b -->\n<!-- end of sweep -->\n";

  it("takes the place of the one before, of this sweep alone", () => {
    const made = withTable(document, "| new |\n", "letters", "README.md");
    expect(made).toBe(document.replace("old", "\n| new |\n"));
    expect(withTable(made, "| new |", "letters", "README.md")).toBe(made);
  });

  it("needs its lines", () => {
    expect(() => withTable(document, "", "words", "README.md")).toThrow(
      "README.md: has no place for the table, expected the lines <!-- sweep: words --> and <!-- end of sweep -->",
    );
  });
});
