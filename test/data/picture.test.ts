import { describe, expect, it } from "vitest";
import { picture } from "../../src/data/picture.ts";

const silos = new Map([
  ["north", [0, 1, 2, 3, 4, 5, 6, 7]],
  ["south-east", [8, 9]],
  ["none", []],
]);

describe("picture", () => {
  it("shows each client's size to scale", () => {
    expect(picture(silos, { width: 8 })).toBe(
      [
        "client      examples",
        "north              8  ████████",
        "south-east         2  ██",
        "none               0",
        "all               10",
      ].join("\n"),
    );
  });

  it("shades each label by its share in the client", () => {
    const labels = ["a", "a", "a", "a", "a", "a", "b", "c", "c", "c"];
    const lines = picture(silos, { width: 4, labels }).split("\n");
    expect(lines[0]).toBe("client      examples  labels");
    expect(lines[1]).toBe("north              8  █░░     ████");
    expect(lines[2]).toBe("south-east         2  ··█     █");
    expect(lines.at(-1)).toMatch(/^labels: a, b, c \(share in the client: · none/);
  });

  it("joins labels beyond the columns that there are", () => {
    const labels = Array.from({ length: 10 }, (_, i) => i);
    const lines = picture(silos, { labels, maxLabels: 3 }).split("\n");
    expect(lines.at(-1)).toContain("labels: 0, 1 and 8 more");
    expect(lines[1]).toMatch(/ {2}░░▓|░░█/);
  });
});
