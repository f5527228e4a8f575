import { expect, it } from "vitest";
import { benchExchange, type ExchangeFigures } from "../../bench/exchange.ts";

it("every measurement of an exchange runs, at small sizes", async () => {
  const rows: ExchangeFigures[] = [];
  await benchExchange({ quick: true, onFigures: (figures) => rows.push(figures) });
  expect(rows.map(({ what }) => what)).toEqual([
    "one tensor",
    "128 tensors",
    "ten clients",
    "a hundred clients",
    "many clients",
    "upload",
    "recovery",
    "idle",
    "delay",
  ]);
  for (const { what, bench: _, flower: __, ...figures } of rows)
    for (const [name, figure] of Object.entries(figures))
      for (const value of [figure].flat()) expect(value, `${what}: ${name}`).toBeGreaterThanOrEqual(0);
  const upload = rows.find(({ what }) => what === "upload");
  // Four chunks are on their way at one time, of sixteen.
  expect(upload?.sentAgain).toBeLessThanOrEqual(4 / 16);
}, 120_000);
