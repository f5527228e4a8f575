import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import type { Figure } from "../../src/report/chart.ts";
import { draw } from "../../src/report/draw.ts";

/** Rows of values under column names. */
export interface Table {
  readonly columns: readonly string[];
  readonly rows: readonly (readonly (string | number)[])[];
}

/** What an analysis found. */
export interface Findings {
  readonly title: string;
  /** What was done and what the tables say, in plain sentences. */
  readonly text: string;
  /** Every measured value. */
  readonly values: Table;
  /** What is read. */
  readonly summary: Table;
  readonly figures: readonly Figure[];
}

/** Writes the values as CSV, the summary as Markdown and the figures as SVG; gives the Markdown text. */
export function writeFindings(folder: string, findings: Findings): string {
  const { title, text, values, summary, figures } = findings;
  mkdirSync(folder, { recursive: true });
  writeFileSync(join(folder, "values.csv"), csv(values));
  for (const figure of figures) writeFileSync(join(folder, `${figure.name}.svg`), draw(figure));
  const images = figures.map(({ name, title, text }) => `![${title}](${name}.svg)\n\n${text}`);
  const page = [`# ${title}`, text, markdown(summary), ...images].join("\n\n");
  writeFileSync(join(folder, "README.md"), `${page}\n`);
  return `${[text, markdown(summary)].join("\n\n")}\n`;
}

function csv({ columns, rows }: Table): string {
  return [columns, ...rows].map((row) => `${row.map(cell).join(",")}\n`).join("");
}

function cell(value: string | number): string {
  const text = String(value);
  return /[",\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}

function markdown({ columns, rows }: Table): string {
  const line = (cells: readonly (string | number)[]): string => `| ${cells.map(written).join(" | ")} |`;
  return [line(columns), `|${" --- |".repeat(columns.length)}`, ...rows.map(line)].join("\n");
}

function written(value: string | number): string {
  if (typeof value === "string" || Number.isInteger(value)) return String(value);
  return Math.abs(value) >= 1 ? value.toFixed(2) : value.toPrecision(3);
}
