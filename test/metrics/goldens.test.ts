import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { metricCases } from "../../scripts/parity/metrics.ts";
import { shared } from "../shared.ts";

describe.skipIf(shared === undefined)("the metrics of the reference libraries", () => {
  it("are met on every golden case", async () => {
    const failed: string[] = [];
    let passed = 0;
    for await (const { name, what, verdict, note } of metricCases(join(shared ?? "", "goldens"))) {
      if (verdict === "passed") passed++;
      else failed.push(`${name} ${what}: ${note}`);
    }
    expect(failed).toEqual([]);
    expect(passed).toBeGreaterThan(50);
  });
});
