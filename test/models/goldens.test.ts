import { existsSync, readdirSync } from "node:fs";
import { describe, expect, it } from "vitest";
import type { ParityLine } from "../../scripts/parity/line.ts";
import { modelCases } from "../../scripts/parity/models.ts";
import { shared } from "../shared.ts";

describe("models", () => {
  it.skipIf(shared === undefined || !existsSync(`${shared}/goldens/models`))(
    "give the outputs, gradients, training and decoding of Transformers and PEFT (skipped without the goldens)",
    async () => {
      const lines: ParityLine[] = [];
      for await (const line of modelCases(`${shared}/goldens`)) lines.push(line);
      expect(lines.filter(({ verdict }) => verdict === "failed")).toEqual([]);
      expect(lines.filter(({ verdict }) => verdict === "unsupported")).toEqual([]);
      const cases = readdirSync(`${shared}/goldens/models`).map((name) => `models/${name}`);
      expect(new Set(lines.map(({ name }) => name))).toEqual(new Set(cases));
    },
  );
});
