import { describe, expect, it } from "vitest";
import type { Chart, Figure } from "../../src/report/chart.ts";
import { draw } from "../../src/report/draw.ts";
import { every, hostile, line } from "./charts.ts";

const drawn = (chart: Chart, changes: Partial<Figure> = {}): string =>
  draw({ name: "plot", title: "A title", text: "What one sees.", chart, ...changes });

describe("a drawn plot", () => {
  it("has its points where they belong", () => {
    const svg = drawn(line);
    const [, path = ""] = /<path d="([^"]+)"[^>]* stroke="#0072b2" stroke-width="2"/.exec(svg) ?? [];
    const points = path
      .split(/[ML]/)
      .slice(1)
      .map((pair) => pair.split(" ").map(Number));
    expect(points).toHaveLength(3);
    const [[x0 = 0, y0 = 0] = [], [x1 = 0, y1 = 0] = [], [x2 = 0, y2 = 0] = []] = points;
    expect(x2 - x1).toBeCloseTo(x1 - x0, 0);
    expect(y0).toBeGreaterThan(y1);
    expect((y1 - y2) / (y0 - y1)).toBeCloseTo(3, 1);
  });

  it("has a title and a description that name it", () => {
    const svg = drawn(line, { title: hostile });
    expect(svg).toMatch(
      /^<svg xmlns="http:\/\/www.w3.org\/2000\/svg" [^>]*role="img" aria-labelledby="plot-title plot-text"/,
    );
    expect(svg).toContain('<title id="plot-title">&lt;script&gt;');
    expect(svg).toContain('<desc id="plot-text">What one sees.</desc>');
  });

  it("is the same text each time, with ids of its own", () => {
    expect(drawn(line)).toBe(drawn(line));
    const ids = [...drawn(line).matchAll(/ id="([^"]*)"/g)].map(([, id]) => id);
    expect(ids.every((id) => id?.startsWith("plot-"))).toBe(true);
    expect(new Set(ids).size).toBe(ids.length);
  });

  it.each(every.map((chart) => [chart.kind, chart] as const))(
    "of %s holds untrusted text as text",
    (_, chart) => {
      const svg = drawn(chart, { title: hostile, text: hostile });
      expect(svg).not.toMatch(/<script|<style|<!\[CDATA|NaN|undefined|Infinity/);
      expect(svg).not.toMatch(/(?!\n)\p{Cc}|\p{Cs}|\u202e/u);
      expect(svg).not.toMatch(/ (?:on\w+|href|class|ecmeta_\w+)=/);
    },
  );

  it("of names that every object inherits leaves objects as they are", () => {
    const before = Object.getOwnPropertyNames(Object.prototype);
    for (const name of ["__proto__", "constructor", "toString"]) {
      for (const chart of every) {
        const text = JSON.stringify(chart).replaceAll(JSON.stringify(hostile), JSON.stringify(name));
        const renamed: Chart = JSON.parse(text);
        expect(drawn(renamed).includes(name)).toBe(text.includes(name));
      }
    }
    expect(Object.getOwnPropertyNames(Object.prototype)).toEqual(before);
    expect(Object.getOwnPropertyNames(Object)).not.toContain("prev");
  });

  it("tells lines apart without colours", () => {
    const many: Chart = {
      ...line,
      lines: Array.from({ length: 12 }, (_, i) => ({
        name: `l${i}`,
        points: [
          [0, i],
          [1, i + 1],
        ],
      })),
    };
    const strokes = drawn(many).match(/<path [^>]*stroke-width="2"[^>]*>/g) ?? [];
    const dashes = strokes.map((stroke) => /stroke-dasharray="([^"]*)"/.exec(stroke)?.[1]);
    expect(strokes).toHaveLength(12);
    expect(new Set(dashes).size).toBeGreaterThanOrEqual(4);
  });
});
