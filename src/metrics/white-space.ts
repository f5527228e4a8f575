/** The separators of ASCII from file to unit, which Python counts as white space and Unicode does not. */
const separators = `${String.fromCharCode(28)}-${String.fromCharCode(31)}`;

/** White space as Python knows it, at which the reference libraries split. */
const whiteSpace: RegExp = new RegExp(`[\\p{White_Space}${separators}]+`, "gu");

const atEnd: RegExp = new RegExp(`[\\p{White_Space}${separators}]+$`, "u");

/** The stretches of a text between white space; none of an empty text. */
export function words(text: string): string[] {
  return text.split(whiteSpace).filter((word) => word !== "");
}

/** A text without its white space. */
export function withoutWhiteSpace(text: string): string {
  return text.replaceAll(whiteSpace, "");
}

/** A text without white space at its end. */
export function endTrimmed(text: string): string {
  return text.replace(atEnd, "");
}

/** How many pieces a text falls into at white space; a text that begins or ends with some has an empty piece there. */
export function pieceCount(text: string): number {
  return text.split(whiteSpace).length;
}
