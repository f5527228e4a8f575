import { escaped } from "./text.ts";

/** A plot as it stands in a page. */
export interface DrawnFigure {
  readonly name: string;
  readonly title: string;
  readonly text: string;
  readonly svg: string;
}

/** A table of text; numbers stand at the right. */
export interface PageTable {
  readonly title?: string;
  /** What one sees, in plain sentences. */
  readonly text?: string;
  readonly head: readonly string[];
  readonly rows: readonly (readonly string[])[];
  /** Which columns hold words. Default: the first. */
  readonly words?: readonly number[];
}

/** A part of a page: plots, then sentences, then tables. */
export interface PageSection {
  readonly title: string;
  readonly figures?: readonly DrawnFigure[];
  readonly notes?: readonly string[];
  readonly tables?: readonly PageTable[];
  /** Text as it is, such as a job file. */
  readonly listing?: string;
}

/** A report. */
export interface Page {
  readonly title: string;
  /** One sentence that says what it is about and how it went. */
  readonly lead: string;
  readonly facts: readonly (readonly [name: string, value: string])[];
  readonly sections: readonly PageSection[];
}

/** The whole report in one HTML file: no script, nothing from elsewhere, and a policy that forbids both. */
export function pageText({ title, lead, facts, sections }: Page): string {
  return `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<meta name="color-scheme" content="light dark">
<title>${escaped(title)}</title>
<style>${style}</style>
</head>
<body>
<main>
<h1>${escaped(title)}</h1>
<p class="lead">${escaped(lead)}</p>
<dl>
${facts.map(([name, value]) => `<div><dt>${escaped(name)}</dt><dd>${escaped(value)}</dd></div>`).join("\n")}
</dl>
${sections.map(sectionText).join("\n")}
</main>
</body>
</html>
`;
}

function sectionText({ title, figures = [], notes = [], tables = [], listing }: PageSection): string {
  const drawn = figures.map(
    ({ title, text, svg }) =>
      `<figure><h3>${escaped(title)}</h3>\n${inlined(svg)}<figcaption>${escaped(text)}</figcaption></figure>`,
  );
  return [
    `<section>\n<h2>${escaped(title)}</h2>`,
    ...(drawn.length === 0 ? [] : [`<div class="figures">`, ...drawn, "</div>"]),
    ...notes.map((note) => `<p>${escaped(note)}</p>`),
    ...tables.map(tableText),
    ...(listing === undefined ? [] : [`<pre>${listing.split("\n").map(escaped).join("\n")}</pre>`]),
    "</section>",
  ].join("\n");
}

/** An SVG document as an element of HTML, which knows its namespace. */
function inlined(svg: string): string {
  return svg.replace(' xmlns="http://www.w3.org/2000/svg"', "");
}

function tableText({ title, text, head, rows, words = [0] }: PageTable): string {
  const cell = (tag: string, value: string, column: number): string =>
    `<${tag}${words.includes(column) ? "" : ' class="number"'}>${escaped(value)}</${tag}>`;
  const line = (tag: string, values: readonly string[]): string =>
    `<tr>${values.map((value, column) => cell(tag, value, column)).join("")}</tr>`;
  return [
    ...(title === undefined ? [] : [`<h3>${escaped(title)}</h3>`]),
    ...(text === undefined ? [] : [`<p>${escaped(text)}</p>`]),
    `<div class="table"><table>\n<thead>${line("th", head)}</thead>\n<tbody>`,
    ...rows.map((row) => line("td", row)),
    "</tbody>\n</table></div>",
  ].join("\n");
}

const style = `
:root { --ink: #1b1f24; --paper: #fff; --quiet: #57606a; --edge: #d0d7de; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e3e8ee; --paper: #14181d; --quiet: #9aa5b1; --edge: #3a424c; }
}
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink); font: 16px/1.5 system-ui, sans-serif; }
main { max-width: 1120px; margin: 0 auto; padding: 1rem; }
h1 { font-size: 1.6rem; line-height: 1.2; margin: .5rem 0; overflow-wrap: anywhere; }
h2 { font-size: 1.25rem; margin: 2rem 0 .5rem; border-bottom: 1px solid var(--edge); }
h3 { font-size: 1rem; margin: .75rem 0 .25rem; }
.lead { font-size: 1.1rem; max-width: 70ch; overflow-wrap: anywhere; }
section > p { max-width: 70ch; overflow-wrap: anywhere; }
dl { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 20rem), 1fr)); gap: .25rem 2rem; margin: 0; }
dt { color: var(--quiet); font-size: .85rem; }
dd { margin: 0 0 .25rem; overflow-wrap: anywhere; }
.figures { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 30rem), 1fr)); gap: 1rem 2rem; }
figure { margin: 0; min-width: 0; }
figure svg { display: block; width: 100%; height: auto; }
figcaption { color: var(--quiet); font-size: .9rem; overflow-wrap: anywhere; }
.table { overflow-x: auto; }
table { border-collapse: collapse; font-size: .9rem; }
th, td { text-align: left; padding: .2rem .75rem .2rem 0; border-bottom: 1px solid var(--edge); vertical-align: top; }
th { color: var(--quiet); font-weight: 600; }
.number { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
pre { font-size: .8rem; white-space: pre-wrap; overflow-wrap: anywhere; border-left: 3px solid var(--edge); padding-left: .75rem; }
@media print {
  :root { --ink: #000; --paper: #fff; --quiet: #333; --edge: #999; }
  body { font-size: 10pt; }
  main { max-width: none; padding: 0; }
  .figures { grid-template-columns: 1fr 1fr; }
  figure, tr { break-inside: avoid; }
  h2, h3 { break-after: avoid; }
  .table { overflow: visible; }
}
`;
