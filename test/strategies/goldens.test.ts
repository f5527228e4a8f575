import { describe, expect, it } from "vitest";
import { strategyCases } from "../../scripts/parity/strategies.ts";
import { shared } from "../shared.ts";

describe("strategies against independent numbers", () => {
  it.skipIf(shared === undefined)(
    "agree with every golden case that is supported (needs the shared folder)",
    async () => {
      const lines = [];
      for await (const line of strategyCases(`${shared}/goldens`)) lines.push(line);
      expect(lines.filter(({ verdict }) => verdict === "failed")).toEqual([]);
      expect(lines.filter(({ verdict }) => verdict === "passed").length).toBeGreaterThanOrEqual(28);
    },
  );
});
