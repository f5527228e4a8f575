/** One position in a plot. */
export type Point = readonly [x: number, y: number];

/** An axis with numbers. */
export interface Axis {
  readonly title: string;
  /** How the numbers are written. Default: as they are. */
  readonly unit?: "bytes" | "seconds";
  /** Equal ratios are equally far apart; numbers that are not positive are left out. */
  readonly log?: boolean;
  /** Only whole numbers are marked. */
  readonly whole?: boolean;
}

/** A line, with a band around it where it is a mean or a median. */
export interface Line {
  readonly name: string;
  readonly points: readonly Point[];
  readonly band?: { readonly lower: readonly Point[]; readonly upper: readonly Point[] };
}

/** Points that belong together. */
export interface Group {
  readonly name: string;
  readonly points: readonly Point[];
}

/** What a plot shows, told apart from how it is drawn. */
export type Chart =
  | { readonly kind: "lines"; readonly x: Axis; readonly y: Axis; readonly lines: readonly Line[] }
  /** One panel a line, the others faint behind it. */
  | { readonly kind: "panels"; readonly x: Axis; readonly y: Axis; readonly lines: readonly Line[] }
  /** Groups of points, each with its name beside their middle. */
  | { readonly kind: "points"; readonly x: Axis; readonly y: Axis; readonly groups: readonly Group[] }
  /** One row a group: its values as points, their mean as a bar across. */
  | {
      readonly kind: "rows";
      readonly x: Axis;
      readonly rows: readonly { readonly name: string; readonly values: readonly number[] }[];
    }
  /** One bar a row. */
  | {
      readonly kind: "bars";
      readonly x: Axis;
      readonly bars: readonly { readonly name: string; readonly value: number }[];
    }
  /** Values by row and column as shades. */
  | {
      readonly kind: "heat";
      readonly x: string;
      readonly columns: readonly string[];
      readonly rows: readonly string[];
      /** What the shades say. */
      readonly title: string;
      readonly cells: readonly { readonly row: number; readonly column: number; readonly value: number }[];
    };

/** A plot with what is written around it. */
export interface Figure {
  /** Of its file; letters, digits and hyphens. */
  readonly name: string;
  readonly title: string;
  /** What one sees, in plain sentences. */
  readonly text: string;
  readonly chart: Chart;
}
