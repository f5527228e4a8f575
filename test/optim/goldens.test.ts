import { expect, it } from "vitest";
import type { ParityLine } from "../../scripts/parity/line.ts";
import { optimizerCases } from "../../scripts/parity/optim.ts";
import { shared } from "../shared.ts";

it.skipIf(shared === undefined)(
  "optimizers and schedules take the steps that PyTorch and Transformers take (skipped without the goldens)",
  async () => {
    const lines: ParityLine[] = [];
    for await (const line of optimizerCases(`${shared}/goldens`)) lines.push(line);
    expect(lines.filter(({ verdict }) => verdict === "failed")).toEqual([]);
    expect(lines.flatMap(({ verdict, name }) => (verdict === "unsupported" ? [name] : []))).toEqual([]);
    expect(lines.length).toBeGreaterThan(15);
  },
);
