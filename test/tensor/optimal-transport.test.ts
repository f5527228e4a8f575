import fc from "fast-check";
import { expect, it } from "vitest";
import { matrix } from "../../src/tensor/matrix.ts";
import { transportCost } from "../../src/tensor/optimal-transport.ts";

const mass = fc.array(fc.integer({ min: 0, max: 9 }), { minLength: 1, maxLength: 5 });

it("costs what moving sorted masses costs on a line, where the cost is the distance", () => {
  fc.assert(
    fc.property(mass, mass, (left, right) => {
      const [from, to] = [left, right].map((list) => {
        const total = list.reduce((a, b) => a + b, 0);
        return list.map((x) => (total > 0 ? x / total : 1 / list.length));
      });
      if (!from || !to) return;
      const cost = matrix(
        from.length,
        to.length,
        from.flatMap((_, i) => to.map((__, j) => Math.abs(i - j))),
      );
      // The area between the cumulative distributions.
      let [area, above] = [0, 0];
      for (let i = 0; i < Math.max(from.length, to.length); i++) {
        above += (from[i] ?? 0) - (to[i] ?? 0);
        area += Math.abs(above);
      }
      expect(transportCost(cost, from, to)).toBeCloseTo(area, 9);
    }),
  );
});

it("takes mass back where the cheapest first step was not the best", () => {
  // The first source is near both sinks, the second near one: greedy pairs 0 -> 0 at 1 and 1 -> 1 at 10.
  expect(transportCost(matrix(2, 2, [1, 2, 1.5, 10]), [0.5, 0.5], [0.5, 0.5])).toBeCloseTo((2 + 1.5) / 2, 12);
});
