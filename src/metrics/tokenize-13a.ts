import { words } from "./white-space.ts";

/**
 * Tokens of mteval-v13a as sacrebleu has them: ASCII punctuation stands alone, but for `.` and `,` between digits and a `-`
 * that no digit precedes; Unicode punctuation is not split.
 */
export function tokenize13a(text: string): string[] {
  const joined = text
    .replaceAll("<skipped>", "")
    .replaceAll("-\n", "")
    .replaceAll("\n", " ")
    .replaceAll("&quot;", '"')
    .replaceAll("&amp;", "&")
    .replaceAll("&lt;", "<")
    .replaceAll("&gt;", ">");
  return words(
    ` ${joined} `
      .replaceAll(/([{-~[-` -&(-+:-@/])/g, " $1 ")
      .replaceAll(/([^0-9])([.,])/gu, "$1 $2 ")
      .replaceAll(/([.,])([^0-9])/gu, " $1 $2")
      .replaceAll(/([0-9])(-)/g, "$1 $2 "),
  );
}
