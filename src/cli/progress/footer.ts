import type { RunSummary } from "../../job/events.ts";
import { bytes } from "../../job/units.ts";
import { duration, hanging, measure, percent, shortPath, wrapped } from "./format.ts";
import { shownMeasure } from "./rounds.ts";
import type { Style } from "./style.ts";

export interface FooterOptions {
  readonly style: Style;
  /** How a person starts this program. */
  readonly program: string;
  /** Characters in a line. */
  readonly width?: number;
  /** Leaves the lines of figures whole, for programs that read them. */
  readonly whole?: boolean;
  /** The working folder, below which paths are shown short. */
  readonly cwd?: string | undefined;
}

/** What a run has come to, as lines. */
export function footerLines(
  summary: RunSummary,
  { style, program, width = 100, whole = true, cwd }: FooterOptions,
): string[] {
  const across = whole ? Number.POSITIVE_INFINITY : width;
  return [
    "",
    ...hanging("  ", resultLine(summary), across).map(style.good),
    ...hanging("  ", trafficLine(summary), across),
    ...sampleLines(summary, style, width),
    "",
    ...whereLines(summary, { style, program, cwd }),
  ];
}

function resultLine({ before, after, rounds, seconds }: RunSummary): string {
  const name = shownMeasure(after);
  const shown = [...(after.loss === undefined ? [] : ["loss"]), ...(name === undefined ? [] : [name])];
  const changes = shown.map((key) => {
    const [old, next] = [before[key], after[key]];
    const change =
      key === "perplexity" && old !== undefined && next !== undefined
        ? ` (${signedPercent(next / old - 1)})`
        : "";
    return `${key} ${measure(key, old)} -> ${measure(key, next)}${change}`;
  });
  const held = changes.length === 0 ? "" : `; held-out ${changes.join(", ")}`;
  return `${rounds} ${rounds === 1 ? "round" : "rounds"} in ${duration(seconds)}${held}`;
}

function trafficLine({ bytesDown, bytesUp, bytesFull }: RunSummary): string {
  const both = bytesDown + bytesUp;
  const beside =
    bytesFull > 0
      ? `; full weights would have cost ${bytes(bytesFull)}, this is ${percent(both / bytesFull)} of it`
      : "";
  return `traffic: ${bytes(bytesDown)} down, ${bytes(bytesUp)} up${beside}`;
}

function sampleLines({ samples }: RunSummary, style: Style, width: number): string[] {
  if (samples === undefined) return [];
  const show = (title: string, text: string): string[] => [
    style.quiet(title),
    ...`${samples.prompt}${text}`.split("\n").flatMap((line) => wrapped(line, width, "  ")),
    ...(text.trim() === "" ? [style.quiet("  (the model ends the text here)")] : []),
  ];
  return ["", ...show("sample before", samples.before), ...show("sample after", samples.after)];
}

function whereLines({ folder, adapter, task }: RunSummary, { style, program, cwd }: FooterOptions): string[] {
  const run = quoted(shortPath(folder, cwd));
  if (adapter === undefined)
    return [
      `run folder: ${shortPath(folder, cwd)}`,
      "next:",
      `  ${program} inspect ${run}`,
      `  ${program} verify ${run}`,
    ];
  return [
    `adapter: ${style.heading(shortPath(adapter, cwd))} (PEFT layout)`,
    "next:",
    task === "causal-lm" ? `  ${program} generate ${run} --prompt "..."` : `  ${program} eval ${run}`,
    `  ${program} export merged ${run} --out merged`,
  ];
}

/** A path as a shell takes it. */
export function quoted(path: string): string {
  return /^[\w./@:+-]+$/.test(path) ? path : `'${path.replaceAll("'", "'\\''")}'`;
}

function signedPercent(share: number): string {
  return share < 0 ? `-${percent(-share)}` : `+${percent(share)}`;
}
