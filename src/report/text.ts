import { count } from "../job/units.ts";

/**
 * Text of a run as one line that XML 1.0 can carry: line breaks and control characters become spaces, halves of surrogate
 * pairs and noncharacters the replacement character, directions of writing are dropped.
 */
export function plain(text: string): string {
  return text
    .replaceAll(/[\p{Cc}\u2028\u2029]+/gu, " ")
    .replaceAll(/[\p{Cs}\ufffe\uffff]/gu, "\ufffd")
    .replaceAll(/[\u202a-\u202e\u2066-\u2069]/g, "");
}

/** Text for HTML and XML, in elements and in quoted attributes. */
export function escaped(text: string): string {
  return plain(text)
    .replaceAll("&", "&amp;")
    .replaceAll("<", "&lt;")
    .replaceAll(">", "&gt;")
    .replaceAll('"', "&quot;")
    .replaceAll("'", "&#39;");
}

/** Text cut to a number of characters, none of them split. */
export function clipped(text: string, most: number): string {
  const characters = [...plain(text)];
  return characters.length <= most ? characters.join("") : `${characters.slice(0, most - 1).join("")}…`;
}

/** A number with four digits that matter. */
export function figure(value: number | undefined): string {
  if (value === undefined || !Number.isFinite(value)) return "-";
  const size = Math.abs(value);
  if (value !== 0 && (size < 1e-3 || size >= 1e7)) return value.toExponential(2);
  return size >= 1000 ? count(Math.round(value)) : String(Number(value.toPrecision(4)));
}

/** A number and its noun, in the plural unless it is one. */
export function counted(value: number, noun: string): string {
  return `${count(value)} ${noun}${value === 1 ? "" : "s"}`;
}

/** Seconds as a person says them. */
export function duration(seconds: number): string {
  if (seconds < 120) return `${Number(seconds.toPrecision(3))} s`;
  return seconds < 7200 ? `${(seconds / 60).toFixed(1)} min` : `${(seconds / 3600).toFixed(1)} h`;
}

/** Names that begin alike, without what all of them begin with; whole parts between dots are dropped. */
export function withoutPrefix(names: readonly string[]): string[] {
  const parts = names.map((name) => name.split("."));
  const [first = []] = parts;
  let shared = 0;
  while (
    shared < first.length - 1 &&
    parts.every((one) => one[shared] === first[shared] && one.length > shared + 1)
  )
    shared++;
  return parts.map((one) => one.slice(names.length > 1 ? shared : 0).join("."));
}
