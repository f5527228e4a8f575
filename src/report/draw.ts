import { BarChart, CustomChart, HeatmapChart, LineChart, ScatterChart } from "echarts/charts";
import { GridComponent, TitleComponent, VisualMapComponent } from "echarts/components";
import type { EChartsCoreOption } from "echarts/core";
import { init, use as register } from "echarts/core";
import { SVGRenderer } from "echarts/renderers";
import type { Chart, Figure, Point } from "./chart.ts";
import { type Label, labelSeries, rightOf } from "./labels.ts";
import {
  bandSeries,
  below,
  categories,
  colourOf,
  colours,
  dashOf,
  drawable,
  extentOf,
  font,
  frame,
  ink,
  label,
  marks,
  mean,
  numbers,
  shades,
  titleOf,
  width,
} from "./look.ts";
import { panelsHeight, panelsOption } from "./panels.ts";
import { escaped, figure as shown } from "./text.ts";

register([
  LineChart,
  ScatterChart,
  BarChart,
  HeatmapChart,
  CustomChart,
  GridComponent,
  TitleComponent,
  VisualMapComponent,
  SVGRenderer,
]);

/** A figure as an SVG document with title and description. */
export function draw({ name, title, text, chart }: Figure): string {
  const height = heightOf(chart);
  const drawing = init(null, null, { renderer: "svg", ssr: true, width, height });
  try {
    drawing.setOption({
      animation: false,
      textStyle: { color: ink, fontSize: font, fontFamily: "sans-serif" },
      ...optionOf(chart),
    });
    const [, body = ""] = /^<svg[^>]*>([\s\S]*)<\/svg>\s*$/.exec(drawing.renderToSVGString()) ?? [];
    return `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${width} ${height}" width="${width}" height="${height}" role="img" aria-labelledby="${name}-title ${name}-text">
<title id="${name}-title">${escaped(title)}</title>
<desc id="${name}-text">${escaped(text)}</desc>${cleaned(body, name)}</svg>
`;
  } finally {
    drawing.dispose();
  }
}

/** Without the styles and data that serve pointers; ids start with the name, since a page holds many drawings. */
function cleaned(body: string, name: string): string {
  return body
    .replaceAll(/<style[\s\S]*?<\/style>/g, "")
    .replaceAll(/ (?:class|ecmeta_\w+|pointer-events)="[^"]*"/g, "")
    .replaceAll(/id="zr\d+-/g, `id="${name}-`)
    .replaceAll(/"url\(#zr\d+-/g, `"url(#${name}-`)
    .trimEnd();
}

function heightOf(chart: Chart): number {
  switch (chart.kind) {
    case "lines":
      return Math.max(300, 90 + 17 * chart.lines.length);
    case "panels":
      return panelsHeight(chart.lines.length);
    case "points":
      return Math.max(320, 120 + 17 * chart.groups.length);
    case "rows":
      return 70 + 26 * chart.rows.length;
    case "bars":
      return 60 + 22 * chart.bars.length;
    case "heat":
      return Math.max(220, Math.min(900, 120 + 20 * chart.rows.length));
  }
}

function optionOf(chart: Chart): EChartsCoreOption {
  switch (chart.kind) {
    case "lines":
      return linesOption(chart);
    case "panels":
      return panelsOption(chart);
    case "points":
      return pointsOption(chart);
    case "rows":
      return rowsOption(chart);
    case "bars":
      return barsOption(chart);
    case "heat":
      return heatOption(chart);
  }
}

function linesOption({ x, y, lines }: Extract<Chart, { kind: "lines" }>): EChartsCoreOption {
  const named = lines.map((line) => ({ ...line, points: drawable(line.points, x, y) }));
  const most = Math.max(0, ...lines.map(({ points }) => points.length));
  const ends = named.flatMap(({ name, points }, i): Label[] => {
    const at = points.at(-1);
    return name === "" || at === undefined ? [] : [{ name: label(name, 20), at, line: i }];
  });
  return {
    title: titleOf(y),
    grid: { ...frame, top: y.title === "" ? 14 : 34, right: rightOf(ends) },
    xAxis: { ...below(x), ...extentOf(named, x) },
    yAxis: { ...numbers(y), scale: true },
    series: [
      ...named.flatMap((line, i) => (line.band === undefined ? [] : [bandSeries(line, i, x, y)])),
      ...named.map(({ points }, i) => ({
        type: "line",
        data: points,
        color: colourOf(i),
        symbol: marks[i % marks.length],
        symbolSize: points.length === 1 ? 9 : 6,
        showSymbol: most <= 40,
        lineStyle: { width: 2, type: dashOf(i) },
        clip: false,
      })),
      labelSeries(ends, { dashed: true }),
    ],
  };
}

function pointsOption({ x, y, groups }: Extract<Chart, { kind: "points" }>): EChartsCoreOption {
  const kept = groups.map(({ name, points }) => ({ name, points: drawable(points, x, y) }));
  const labels = kept.flatMap(({ name, points }, i): Label[] => {
    const middle: Point = [mean(points.map(([at]) => at)), mean(points.map(([, value]) => value))];
    return points.length === 0 ? [] : [{ name: label(name, 20), at: middle, line: i }];
  });
  return {
    title: titleOf(y),
    grid: { ...frame, right: rightOf(labels) },
    xAxis: { ...below(x), scale: true },
    yAxis: { ...numbers(y), scale: true },
    series: [
      ...kept.map(({ points }, i) => ({
        type: "scatter",
        data: points,
        color: colourOf(i),
        symbol: marks[i % marks.length],
        symbolSize: 9,
        itemStyle: { opacity: 0.8 },
        clip: false,
      })),
      labelSeries(labels, { dashed: false }),
    ],
  };
}

function rowsOption({ x, rows }: Extract<Chart, { kind: "rows" }>): EChartsCoreOption {
  const names = rows.map(({ name }) => label(name, 24));
  const middles = rows.map(({ values }) => mean(values));
  return {
    grid: { ...frame, right: 70, top: 12 },
    xAxis: { ...below(x), scale: true },
    yAxis: categories(names),
    series: [
      {
        type: "scatter",
        data: rows.flatMap(({ values }, row) => values.map((value) => [value, row])),
        symbolSize: 9,
        itemStyle: { color: "transparent", borderColor: colours[0], borderWidth: 1.6 },
        clip: false,
      },
      {
        type: "scatter",
        data: middles.flatMap((value, row) => (Number.isFinite(value) ? [[value, row]] : [])),
        symbol: "rect",
        symbolSize: [3, 18],
        itemStyle: { color: ink },
        clip: false,
      },
      {
        // The means in figures, in a column of their own at the right.
        type: "custom",
        silent: true,
        data: middles.flatMap((value, row) => (Number.isFinite(value) ? [[value, row]] : [])),
        renderItem: (
          { coordSys }: { readonly coordSys: { readonly x: number; readonly width: number } },
          api: { value(dimension: number): number; coord(point: Point): number[] },
        ) => ({
          type: "text",
          x: coordSys.x + coordSys.width + 10,
          y: api.coord([api.value(0), api.value(1)])[1],
          style: { text: shown(api.value(0)), fill: ink, fontSize: font, verticalAlign: "middle" },
        }),
      },
    ],
  };
}

function barsOption({ x, bars }: Extract<Chart, { kind: "bars" }>): EChartsCoreOption {
  return {
    grid: { ...frame, right: 64, top: 12 },
    xAxis: below(x),
    yAxis: categories(bars.map(({ name }) => label(name, 24))),
    series: [
      {
        type: "bar",
        data: bars.map(({ value }) => value),
        color: colours[0],
        barMaxWidth: 16,
        label: {
          show: true,
          position: "right",
          formatter: ({ value }: { readonly value: number }) => shown(value),
          color: ink,
          fontSize: font,
        },
      },
    ],
  };
}

function heatOption({ x, columns, rows, title, cells }: Extract<Chart, { kind: "heat" }>): EChartsCoreOption {
  const values = cells.map(({ value }) => value);
  const most = values.reduce((a, b) => Math.max(a, b), 0);
  const names = columns.map((name) => label(name, 16));
  const longest = names.reduce((size, { length }) => Math.max(size, length), 0);
  const tilted = longest * columns.length > 42;
  const all = columns.length <= 24;
  const drop = tilted && all ? 4.5 * longest : 0;
  return {
    grid: { ...frame, top: 12, right: 12, bottom: 88 + drop },
    xAxis: {
      ...below({ title: x }),
      nameGap: 30 + drop,
      type: "category",
      axisLabel: {
        color: ink,
        fontSize: font,
        hideOverlap: !all,
        ...(all ? { interval: 0, rotate: tilted ? 50 : 0 } : {}),
      },
      data: names,
      splitLine: { show: false },
    },
    yAxis: categories(rows.map((name) => label(name, 28))),
    visualMap: {
      type: "continuous",
      min: 0,
      max: most > 0 ? most : 1,
      calculable: false,
      orient: "horizontal",
      left: "center",
      bottom: 4,
      itemWidth: 12,
      itemHeight: 140,
      text: [`${shown(most)}  ${label(title, 40)}`, "0"],
      textStyle: { color: ink, fontSize: font },
      inRange: { color: shades },
    },
    series: [{ type: "heatmap", data: cells.map(({ row, column, value }) => [column, row, value]) }],
  };
}
