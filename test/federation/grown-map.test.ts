import fc from "fast-check";
import { expect, it } from "vitest";
import { grown } from "../../src/federation/grown-map.ts";

it("every map that was ever made holds what a copied Map would, in the same order", () => {
  // Each step grows one of the maps so far: the newest, or an older one.
  const step = fc.record({
    from: fc.nat(20),
    key: fc.constantFrom("a", "b", "c", "d", "e"),
    value: fc.nat(9),
  });
  fc.assert(
    fc.property(fc.array(step, { maxLength: 30 }), (steps) => {
      const made: (readonly [ReadonlyMap<string, number>, Map<string, number>])[] = [
        [new Map([["b", 1]]), new Map([["b", 1]])],
      ];
      for (const { from, key, value } of steps) {
        const [map, copy] = made[Math.max(0, made.length - 1 - (from < 12 ? 0 : from))] ?? made[0]!;
        made.push([grown(map, key, value), new Map(copy).set(key, value)]);
      }
      for (const [map, copy] of made) {
        expect([...map]).toEqual([...copy]);
        expect([...map.keys()]).toEqual([...copy.keys()]);
        expect([...map.values()]).toEqual([...copy.values()]);
        expect(map.size).toBe(copy.size);
        const visited: [string, number][] = [];
        map.forEach((value, key) => {
          visited.push([key, value]);
        });
        expect(visited).toEqual([...copy]);
        for (const key of "abcdef")
          expect([map.has(key), map.get(key)]).toEqual([copy.has(key), copy.get(key)]);
      }
    }),
  );
});
