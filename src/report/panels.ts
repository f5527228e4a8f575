import type { EChartsCoreOption } from "echarts/core";
import type { Chart } from "./chart.ts";
import {
  bandSeries,
  colourOf,
  drawable,
  extentOf,
  font,
  ink,
  label,
  labelOf,
  numbers,
  titleOf,
} from "./look.ts";

/** Panels side by side in rows of three; only those at the edges have numbers. */
export function panelsOption({ x, y, lines }: Extract<Chart, { kind: "panels" }>): EChartsCoreOption {
  const named = lines.map((line) => ({ ...line, points: drawable(line.points, x, y) }));
  const places = lines.map((_, i) => ({ column: i % panel.columns, row: Math.floor(i / panel.columns) }));
  const values = named.flatMap(({ points, band = { lower: [], upper: [] } }) =>
    [...points, ...drawable(band.lower, x, y), ...drawable(band.upper, x, y)].map(([, value]) => value),
  );
  const lowest = values.reduce((a, b) => Math.min(a, b), Number.POSITIVE_INFINITY);
  const highest = values.reduce((a, b) => Math.max(a, b), Number.NEGATIVE_INFINITY);
  const edges = lowest < highest ? rounded(lowest, highest) : {};
  return {
    title: [
      titleOf(y),
      { ...titleOf(x), left: "center", top: panelsHeight(lines.length) - 20 },
      ...named.map(({ name }, i) => ({
        text: label(name, 18),
        left: panel.left + (places[i]?.column ?? 0) * panel.width,
        top: panel.top + (places[i]?.row ?? 0) * panel.height - 20,
        padding: 0,
        textStyle: { color: ink, fontSize: font, fontWeight: "bold" },
      })),
    ],
    grid: places.map(({ column, row }) => ({
      left: panel.left + column * panel.width,
      top: panel.top + row * panel.height,
      width: panel.width - 16,
      height: panel.height - 34,
      outerBoundsMode: "none",
    })),
    xAxis: places.map((_, i) => ({
      ...numbers(x),
      ...extentOf(named, x),
      gridIndex: i,
      splitNumber: 2,
      axisLabel: { ...labelOf(x), show: i + panel.columns >= lines.length, fontSize: font - 1 },
    })),
    yAxis: places.map(({ column }, i) => ({
      ...numbers(y),
      scale: true,
      ...edges,
      gridIndex: i,
      splitNumber: 2,
      axisLabel: { ...labelOf(y), show: column === 0, fontSize: font - 1 },
    })),
    series: named.flatMap((line, i) => {
      const at = { xAxisIndex: i, yAxisIndex: i };
      return [
        ...named.flatMap(({ points }, j) =>
          j === i
            ? []
            : [
                {
                  ...at,
                  type: "line",
                  data: points,
                  showSymbol: false,
                  lineStyle: { color: ink, opacity: 0.2, width: 1 },
                },
              ],
        ),
        ...(line.band === undefined ? [] : [{ ...bandSeries(line, 0, x, y), ...at }]),
        {
          ...at,
          type: "line",
          data: line.points,
          color: colourOf(0),
          showSymbol: line.points.length < 3,
          lineStyle: { width: 2 },
        },
      ];
    }),
  };
}

const panel = { columns: 3, left: 48, top: 52, width: 142, height: 112 } as const;

/** The height that so many panels take. */
export function panelsHeight(count: number): number {
  return panel.top + panel.height * Math.ceil(count / panel.columns) + 14;
}

/** A range that begins and ends with few digits. */
function rounded(lowest: number, highest: number): { readonly min: number; readonly max: number } {
  const step = 10 ** Math.floor(Math.log10((highest - lowest) / 2));
  const min = Math.floor(lowest / step) * step;
  const max = Math.ceil(highest / step) * step;
  return { min: Number(min.toPrecision(12)), max: Number(max.toPrecision(12)) };
}
