import type { EChartsCoreOption } from "echarts/core";
import { bytes } from "../job/units.ts";
import type { Axis, Line, Point } from "./chart.ts";
import { clipped, duration, figure as shown } from "./text.ts";

/** Width of every plot; at 390 pixels of a phone the letters are still 10 pixels high. */
export const width = 480;
/** Height of the letters. */
export const font = 13;
/** Text and axes have the colour of the text around the plot, dark or light. */
export const ink = "currentColor";

/** Okabe and Ito's colours for colour-blind readers, without the yellow that is lost on white. */
export const colours: readonly string[] = [
  "#0072b2",
  "#d55e00",
  "#009e73",
  "#cc79a7",
  "#e69f00",
  "#56b4e9",
  "#7f7f7f",
];
/** Without colours, lines differ by their dashes and marks. */
const dashes: readonly (number[] | "solid")[] = ["solid", [7, 4], [2, 3], [9, 3, 2, 3], [12, 4]];
/** Shapes of points. */
export const marks: readonly string[] = ["circle", "rect", "triangle", "diamond"];
/** Cividis: light is much, in grey too. */
export const shades: readonly string[] = ["#00224e", "#35456c", "#666970", "#948e77", "#c8b866", "#fee838"];

/** An axis that ends where its lines do. */
export function extentOf(
  lines: readonly Line[],
  { log }: Axis,
): { readonly min?: number; readonly max?: number } {
  const xs = lines.flatMap(({ points }) => points.map(([at]) => at));
  return log || xs.length === 0 ? {} : { min: Math.min(...xs), max: Math.max(...xs) };
}

/** The dashes of a line by its place. */
export function dashOf(i: number): number[] | "solid" {
  return dashes[i % dashes.length] ?? "solid";
}

/** The area between two lines. Its points are its data too, so that the axes make room for it. */
export function bandSeries(
  { band = { lower: [], upper: [] } }: Line,
  i: number,
  x: Axis,
  y: Axis,
): EChartsCoreOption {
  const outline = drawable([...band.upper, ...band.lower.toReversed()], x, y);
  return {
    type: "custom",
    silent: true,
    data: outline,
    renderItem: (
      { dataIndex }: { readonly dataIndex: number },
      { coord }: { coord(point: Point): number[] },
    ) =>
      dataIndex > 0
        ? undefined
        : {
            type: "polygon",
            shape: { points: outline.map((point) => coord(point)) },
            style: { fill: colourOf(i), opacity: 0.18 },
          },
  };
}

/** Room around the axes; their numbers come on top. */
export const frame: EChartsCoreOption = {
  left: 10,
  right: 14,
  top: 34,
  bottom: 46,
  outerBoundsMode: "same",
  outerBounds: { left: 6, right: 6, top: 6, bottom: 6 },
  outerBoundsContain: "axisLabel",
};

const faint = { show: true, lineStyle: { color: ink, opacity: 0.15 } } as const;
const edge = { show: true, lineStyle: { color: ink, opacity: 0.6 } } as const;

/** An axis with numbers, without its title. */
export function numbers(axis: Axis): EChartsCoreOption {
  return {
    type: axis.log ? "log" : "value",
    ...(axis.whole ? { minInterval: 1 } : {}),
    axisLabel: labelOf(axis),
    axisLine: edge,
    axisTick: edge,
    splitLine: faint,
    minorSplitLine: { show: false },
  };
}

/** How the numbers of an axis are written. */
export function labelOf(axis: Axis): EChartsCoreOption {
  return {
    color: ink,
    fontSize: font,
    hideOverlap: true,
    formatter: (value: number) => written(value, axis),
  };
}

/** An axis below the plot, with its title. */
export function below(axis: Axis): EChartsCoreOption {
  return {
    ...numbers(axis),
    name: label(axis.title, 60),
    nameLocation: "middle",
    nameGap: 30,
    nameTextStyle: { color: ink, fontSize: font },
  };
}

/** The title of an upright axis, in a line of its own above it. */
export function titleOf({ title }: Axis): EChartsCoreOption {
  return {
    text: label(title, 60),
    left: 0,
    top: 0,
    textStyle: { color: ink, fontSize: font, fontWeight: "normal" },
  };
}

/** An upright axis with a name for each row, the first on top. */
export function categories(names: readonly string[]): EChartsCoreOption {
  return {
    type: "category",
    inverse: true,
    data: names,
    axisLabel: { color: ink, fontSize: font, interval: names.length <= 45 ? 0 : "auto" },
    axisLine: edge,
    axisTick: { show: false },
  };
}

function written(value: number, { unit }: Axis): string {
  if (unit === "bytes") return bytes(value);
  return unit === "seconds" ? duration(value) : shown(value);
}

/** Points that have a place on the axes. */
export function drawable(points: readonly Point[], x: Axis, y: Axis): Point[] {
  return points.filter(
    ([at, value]) =>
      Number.isFinite(at) && Number.isFinite(value) && !(x.log && at <= 0) && !(y.log && value <= 0),
  );
}

/**
 * Text for the library, cut to a number of characters. It keeps widths of texts in a plain object: a text such as
 * `__proto__` would change what all objects inherit, so an invisible word joiner goes before it.
 */
export function label(text: string, most: number): string {
  const cut = clipped(text, most);
  return cut in {} ? `\u2060${cut}` : cut;
}

/** The colour of a line or group by its place. */
export function colourOf(i: number): string {
  return colours[i % colours.length] ?? ink;
}

/** The mean; NaN of nothing. */
export function mean(values: readonly number[]): number {
  return values.reduce((sum, value) => sum + value, 0) / values.length;
}
