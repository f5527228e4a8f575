import type { EChartsCoreOption } from "echarts/core";
import type { Point } from "./chart.ts";
import { colourOf, dashOf, font, ink } from "./look.ts";

/** A name beside a point. */
export interface Label {
  readonly name: string;
  readonly at: Point;
  /** Which line or group it belongs to. */
  readonly line: number;
}

const key = 16;

/** The room at the right that names take. */
export function rightOf(labels: readonly Label[]): number {
  const longest = labels.reduce((most, { name }) => Math.max(most, name.length), 0);
  return longest === 0 ? 18 : 24 + key + 7.4 * longest;
}

/**
 * Names in a column at the right in the order of their points, none over another, a thin line from each to its point; before
 * the name of a line stand its dashes.
 */
export function labelSeries(
  labels: readonly Label[],
  { dashed }: { readonly dashed: boolean },
): EChartsCoreOption {
  return {
    type: "custom",
    silent: true,
    clip: false,
    data: labels.map(({ at }) => at),
    renderItem: (
      { dataIndex, coordSys }: { readonly dataIndex: number; readonly coordSys: Area },
      { coord }: { coord(point: Point): number[] },
    ) => {
      if (dataIndex > 0) return undefined;
      const placed = labels.map((label) => {
        const [left = 0, top = 0] = coord(label.at);
        return { ...label, left, top };
      });
      const edge = coordSys.x + coordSys.width;
      const tops = apart(
        placed.map(({ top }) => top),
        coordSys.y + coordSys.height,
      );
      return {
        type: "group",
        children: placed.flatMap(({ name, line, left, top }, i) => {
          const y = tops[i] ?? top;
          return [
            stroke([left + 5, top, edge + 6, y], {
              stroke: dashed ? ink : colourOf(line),
              opacity: dashed ? 0.35 : 0.7,
              lineWidth: 0.8,
            }),
            stroke([edge + 6, y, edge + 6 + key, y], {
              stroke: colourOf(line),
              lineWidth: dashed ? 2.5 : 0.8,
              ...(dashed ? { lineDash: dashOf(line) } : {}),
            }),
            {
              type: "text",
              x: edge + 10 + key,
              y,
              style: { text: name, fill: ink, fontSize: font, verticalAlign: "middle" },
            },
          ];
        }),
      };
    },
  };
}

interface Area {
  readonly x: number;
  readonly y: number;
  readonly width: number;
  readonly height: number;
}

function stroke(
  [x1, y1, x2, y2]: readonly number[],
  style: Readonly<Record<string, unknown>>,
): EChartsCoreOption {
  return { type: "line", shape: { x1, y1, x2, y2 }, style: { fill: "none", ...style } };
}

/** Heights at least a line of text apart, in the same order, none below `bottom`, each near what it was. */
function apart(heights: readonly number[], bottom: number): number[] {
  const order = heights.map((_, i) => i).sort((a, b) => (heights[a] ?? 0) - (heights[b] ?? 0));
  const moved = [...heights];
  const line = font + 2;
  order.forEach((i, rank) => {
    const above = moved[order[rank - 1] ?? -1] ?? Number.NEGATIVE_INFINITY;
    moved[i] = Math.max(moved[i] ?? 0, above + line);
  });
  let below = bottom + line;
  for (const i of order.toReversed()) {
    moved[i] = Math.min(moved[i] ?? 0, below - line);
    below = moved[i] ?? 0;
  }
  return moved;
}
