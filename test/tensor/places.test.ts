import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { packPlaces, placesBytes, scatter } from "../../src/tensor/places.ts";
import { tensor } from "../../src/tensor/tensor.ts";

const subset = fc
  .array(fc.boolean(), { minLength: 0, maxLength: 90 })
  .map((chosen) => ({ size: chosen.length, places: chosen.flatMap((is, i) => (is ? [i] : [])) }));

describe("packed places", () => {
  it("bring values back to where they were", () => {
    fc.assert(
      fc.property(subset, ({ size, places }) => {
        const values = places.map((i) => i + 0.5);
        const expected = Array.from({ length: size }, (_, i) => (places.includes(i) ? i + 0.5 : 0));
        expect([...scatter(values, packPlaces(places, size), size)]).toEqual(expected);
      }),
    );
  });

  it("take the shorter of a bit an entry and 2 bytes a place, 4 beyond 65,536 entries", () => {
    expect(packPlaces([1, 7], 100)).toEqual(tensor("uint16", [2], Uint16Array.from([1, 7])));
    expect(packPlaces([0, 9, 10], 12)).toEqual(tensor("uint8", [2], Uint8Array.from([1, 6])));
    expect(packPlaces([65_536], 65_537).dtype).toBe("uint32");
    expect(packPlaces([], 0).shape).toEqual([0]);
    fc.assert(
      fc.property(subset, ({ size, places }) => {
        expect(packPlaces(places, size).data.byteLength).toBe(placesBytes(places.length, size));
      }),
    );
  });

  it("that a sender made up neither reach beyond the vector nor make numbers of nothing", () => {
    const all = tensor("uint8", [1], Uint8Array.from([0xff]));
    expect([...scatter([1, 2], all, 5)]).toEqual([1, 2, 0, 0, 0]);
    const far = tensor("uint16", [3], Uint16Array.from([4, 9, 1]));
    expect([...scatter([1, 2], far, 5)]).toEqual([0, 0, 0, 0, 1]);
  });
});
