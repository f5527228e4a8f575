import { isAbsolute, relative } from "node:path";
import { count, digits } from "../../job/units.ts";
import { decimalsOf } from "../../metrics/table.ts";

/** A large count in millions or billions. */
export function size(value: number): string {
  if (value >= 999.5e6) return `${digits(value / 1e9)} B`;
  return value >= 1e6 ? `${digits(value / 1e6)} M` : count(value);
}

/** Seconds below a minute, minutes and seconds above, hours and minutes from there. */
export function duration(seconds: number): string {
  if (seconds < 9.95) return `${seconds.toFixed(1)} s`;
  const whole = Math.round(seconds);
  if (whole < 60) return `${whole} s`;
  const two = (value: number): string => String(value).padStart(2, "0");
  if (whole < 3600) return `${Math.floor(whole / 60)}:${two(whole % 60)} min`;
  return `${Math.floor(whole / 3600)}:${two(Math.floor((whole % 3600) / 60))} h`;
}

/** A share as a percentage with two figures that matter. */
export function percent(share: number): string {
  const value = 100 * share;
  if (value === 0) return "0 %";
  return `${Math.abs(value) >= 10 ? value.toFixed(0) : Math.abs(value) >= 1 ? value.toFixed(1) : value.toPrecision(2)} %`;
}

/** A bar of `width` characters, filled by a share. */
export function bar(share: number, width: number): string {
  const filled = Math.round(Math.min(1, Math.max(0, share)) * width);
  return "█".repeat(filled) + "░".repeat(width - filled);
}

/** A value of a metric, or a dash where there is none. */
export function measure(name: string, value: number | undefined): string {
  if (value === undefined || !Number.isFinite(value)) return "-";
  if (name === "accuracy") return `${(100 * value).toFixed(1)} %`;
  return value >= 1000 ? count(Math.round(value)) : value.toFixed(decimalsOf(name));
}

/** A path below the working folder as a person there would type it; any other path as it is. */
export function shortPath(path: string, cwd: string | undefined): string {
  const short = cwd === undefined ? path : relative(cwd, path);
  return short === "" || short.startsWith("..") || isAbsolute(short) ? path : short;
}

/** Text cut to a number of characters. */
export function clipped(text: string, width: number): string {
  return text.length <= width ? text : `${text.slice(0, Math.max(0, width - 1))}…`;
}

/** Text in lines of at most `width` characters, broken between words. */
export function wrapped(text: string, width: number, indent = ""): string[] {
  const lines: string[] = [];
  let line = "";
  for (const word of text.split(/\s+/).filter((part) => part !== "")) {
    if (line !== "" && indent.length + line.length + 1 + word.length > width) {
      lines.push(indent + line);
      line = word;
    } else line = line === "" ? word : `${line} ${word}`;
  }
  return line === "" ? lines : [...lines, indent + line];
}

/** Text in lines of at most `width` characters after a head of its own; the lines below hang under the first. */
export function hanging(head: string, text: string, width: number): string[] {
  const indent = " ".repeat(head.length);
  return wrapped(text, width, indent).map((line, i) => (i === 0 ? line.slice(indent.length) : line));
}
