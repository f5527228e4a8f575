import { stat } from "node:fs/promises";
import { join } from "node:path";
import { TributaryError } from "../errors.ts";
import { writeFileAtomic } from "../formats/files.node.ts";
import { runFiles } from "../job/run-files.node.ts";
import type { Figure } from "./chart.ts";
import { draw } from "./draw.ts";
import { type DrawnFigure, type Page, pageText } from "./page.ts";
import { runPage } from "./run-page.ts";
import { runRanks } from "./run-ranks.node.ts";
import { readRun } from "./run-record.node.ts";
import { sweepPage } from "./sweep-page.ts";
import { readSweep } from "./sweep-record.node.ts";

/** What a report has written. */
export interface Report {
  /** The HTML file. */
  readonly path: string;
  /** The plots, each in a file of its own. */
  readonly plots: readonly string[];
}

export interface ReportOptions {
  /** The HTML file; its plots come into a folder of the same name beside it. Default: `report/report.html` in the folder. */
  readonly out?: string;
}

/**
 * Writes the report of a run folder or of the folder of a sweep: one HTML file, and its plots as SVG files. Throws
 * TributaryError `missing-file` where the folder holds neither, `run-damaged` where one of its files is.
 */
export async function writeReport(folder: string, { out }: ReportOptions = {}): Promise<Report> {
  const drawn: DrawnFigure[] = [];
  const keep = (figure: Figure): DrawnFigure => {
    const one = { ...figure, svg: draw(figure) };
    drawn.push(one);
    return one;
  };
  const page = await pageOf(folder, keep);
  const path = out ?? join(folder, runFiles.report, "report.html");
  const beside = out === undefined ? join(folder, runFiles.report) : `${out.replace(/\.html?$/i, "")}-plots`;
  const encoder = new TextEncoder();
  const plots: string[] = [];
  for (const { name, svg } of drawn) {
    const file = join(beside, `${name}.svg`);
    await writeFileAtomic(file, encoder.encode(svg));
    plots.push(file);
  }
  await writeFileAtomic(path, encoder.encode(pageText(page)));
  return { path, plots };
}

async function pageOf(folder: string, keep: (figure: Figure) => DrawnFigure): Promise<Page> {
  if (!(await stat(folder).catch(() => undefined))?.isDirectory()) {
    throw new TributaryError(
      "missing-file",
      `${folder}: no such folder; give the folder of a run or of a sweep`,
    );
  }
  const sweep = await readSweep(folder);
  if (sweep !== undefined) return sweepPage(sweep, keep);
  const run = await readRun(folder);
  return runPage(run, await runRanks(run), keep);
}
