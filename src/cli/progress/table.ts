/** A column of a text table. */
export interface Column {
  readonly title: string;
  readonly align?: "left" | "right";
  /** Characters at least. */
  readonly width?: number;
}

/** Widths that fit the titles, the minimum widths and the rows. */
export function widths(columns: readonly Column[], rows: readonly (readonly string[])[] = []): number[] {
  return columns.map(({ title, width = 0 }, i) =>
    rows.reduce((most, row) => Math.max(most, (row[i] ?? "").length), Math.max(title.length, width)),
  );
}

/** One line of a table. */
export function row(columns: readonly Column[], cells: readonly string[], sizes: readonly number[]): string {
  return columns
    .map(({ align = "left" }, i) => {
      const cell = cells[i] ?? "";
      return align === "right" ? cell.padStart(sizes[i] ?? 0) : cell.padEnd(sizes[i] ?? 0);
    })
    .join("  ")
    .trimEnd();
}

/** A table as lines: the titles, then the rows. */
export function table(columns: readonly Column[], rows: readonly (readonly string[])[]): string[] {
  const sizes = widths(columns, rows);
  return [columns.map(({ title }) => title), ...rows].map((cells) => row(columns, cells, sizes));
}
