import { styleText } from "node:util";

/** How text is set off: by colour on a terminal that has it, else not at all. */
export interface Style {
  heading(text: string): string;
  good(text: string): string;
  bad(text: string): string;
  quiet(text: string): string;
}

type Format = Parameters<typeof styleText>[0];

/** Colours, or none. */
export function textStyle(colors: boolean): Style {
  const as =
    (format: Format) =>
    (text: string): string =>
      colors && text !== "" ? styleText(format, text, { validateStream: false }) : text;
  return { heading: as("bold"), good: as("green"), bad: as("red"), quiet: as("dim") };
}
