import { existsSync } from "node:fs";
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
      const passed = new Set(lines.filter(({ verdict }) => verdict === "passed").map(({ name }) => name));
      expect([...passed]).toEqual([
        "models/bert",
        "models/bert-mean-pooling",
        "models/llama",
        "models/llama-tied-rope",
      ]);
    },
  );
});
