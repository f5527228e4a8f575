import { existsSync, readdirSync, readFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { beforeAll, describe, expect, it } from "vitest";
import { parse } from "yaml";
import { assemble } from "../../src/job/assemble.ts";
import { checkJob } from "../../src/job/check.ts";
import { methodCosts } from "../../src/job/cost.ts";
import { loadJob } from "../../src/job/load.node.ts";
import { type Method, methods } from "../../src/job/methods.ts";
import { rawJob } from "../job/job.ts";
import { shared } from "../shared.ts";

const root = fileURLToPath(new URL("../..", import.meta.url));
const folder = join(root, "docs/methods");
const texts = new Map(
  readdirSync(folder)
    .filter((name) => name.endsWith(".md"))
    .map((name) => [name, readFileSync(join(folder, name), "utf8")]),
);
const all = methods();
const pageOf = ({ page }: Method): string => texts.get(page) ?? "";

/** The text below a heading, up to the next one as high. */
function section(text: string, heading: string): string {
  const [level = ""] = /^#+/.exec(heading) ?? [];
  const start = text.indexOf(`\n${heading}\n`);
  if (start < 0) return "";
  const rest = text.slice(start + heading.length + 2);
  const end = rest.search(new RegExp(`^#{1,${level.length}} `, "m"));
  return end < 0 ? rest : rest.slice(0, end);
}

/** Rows of the tables of a text as cells, without titles. */
function rows(text: string): string[][] {
  const lines = text.split("\n").filter((line) => line.startsWith("|"));
  const rules = new Set(lines.flatMap((line, i) => (/^\|[ :|-]+\|$/.test(line) ? [i - 1, i] : [])));
  return lines.filter((_, i) => !rules.has(i)).map(cells);
}

function cells(line: string): string[] {
  return line
    .slice(1, -1)
    .split(/(?<!\\)\|/)
    .map((cell) => cell.trim().replaceAll("\\|", "|"));
}

const code = (text: string): string => text.replaceAll("`", "");

function written({ required, ...option }: Method["options"][number]): string {
  if (option.default === undefined) return required && !option.name.includes(".") ? "has to be given" : "–";
  return typeof option.default === "string" ? option.default : JSON.stringify(option.default);
}

describe("the pages of the methods", () => {
  it("are those that the program names, the wrappers and the table of all", () => {
    const named = new Set(all.map(({ page }) => page));
    expect([...texts.keys()].sort()).toEqual([...named, "README.md", "wrappers.md"].sort());
  });

  it("have a row in the table, with the name in a job, the sentence and the page of each", () => {
    const [table] = (texts.get("README.md") ?? "").split("\n## ");
    const expected = all.map(({ name, summary, page }) => [name, summary, `[${page}](${page})`]);
    expect(rows(table ?? "").map(([, name = "", ...rest]) => [code(name), ...rest.slice(0, 2)])).toEqual(
      expected,
    );
  });

  it.each(all.map((method) => [method.name, method] as const))(
    "name every option of %s with its default, and no other",
    (name, method) => {
      const options = rows(section(section(pageOf(method), "## Options"), `### \`${name}\``));
      expect(options.map(([option = "", value = ""]) => [code(option), code(value)])).toEqual(
        method.options.map((option) => [option.name, written(option)]),
      );
      const meanings = options.map(([, , meaning]) => meaning);
      expect(meanings).toEqual(method.options.map(({ meaning }) => meaning));
    },
  );

  it("have no options of methods that are elsewhere", () => {
    for (const [name, text] of texts) {
      const headings = [...section(text, "## Options").matchAll(/^### `(.*)`$/gm)].map(([, of]) => of);
      expect(headings).toEqual(all.filter(({ page }) => page === name).map((method) => method.name));
    }
  });

  it.each([...texts.keys()])("%s names files and pages that exist", (name) => {
    const text = texts.get(name) ?? "";
    const paths = [...text.matchAll(/`((?:src|test|scripts|examples|docs|bench)\/[^`\s<>]+)`/g)].map(
      ([, path = ""]) => path,
    );
    expect(paths.filter((path) => !existsSync(join(root, path)))).toEqual([]);
    const links = [...text.matchAll(/\]\((?!https?:)([^)#]+)/g)].map(([, link = ""]) => link);
    expect(links.filter((link) => !existsSync(join(dirname(join(folder, name)), link)))).toEqual([]);
    if (name !== "README.md") expect(paths.some((path) => path.startsWith("test/"))).toBe(true);
  });

  it.skipIf(shared === undefined)("name recorded cases that exist (needs the shared folder)", () => {
    const cases = [...texts.values()].flatMap((text) =>
      [...text.matchAll(/`([\w-]+\.json)`/g)].map(([, file = ""]) => file),
    );
    const known = ["strategies", "optim"].flatMap((kind) => readdirSync(join(shared ?? "", "goldens", kind)));
    expect(cases.length).toBeGreaterThan(30);
    expect(cases.filter((file) => !known.includes(file))).toEqual([]);
  });

  it.each([...texts].filter(([name]) => name !== "README.md"))("%s shows a job that is sound", (_, text) => {
    const snippets = [...text.matchAll(/^```yaml\n([\s\S]*?)^```/gm)].map(([, yaml = ""]) => yaml);
    expect(snippets.length).toBeGreaterThan(0);
    for (const snippet of snippets) expect(() => checkJob(rawJob(parse(snippet)))).not.toThrow();
  });

  it.each([...texts].filter(([name]) => name !== "README.md"))("%s has the parts of a page", (name, text) => {
    const headings = [...text.matchAll(/^## (.*)$/gm)].map(([, heading]) => heading);
    const wrapper = name === "wrappers.md";
    expect(headings).toEqual([
      "Algorithm",
      "What travels",
      "When to choose it",
      ...(wrapper ? [] : ["Options"]),
      "In a job",
      "How it was verified",
      expect.stringMatching(/this code$/),
    ]);
    const lines = text.split("\n").length;
    expect(lines).toBeGreaterThanOrEqual(40);
    expect(lines).toBeLessThanOrEqual(110);
  });
});

describe("what travels on the pages", () => {
  // Options of the command that README.md shows.
  const [, path = "", typed = ""] =
    /npx tributary methods --cost (\S+)(.*)/.exec(texts.get("README.md") ?? "") ?? [];
  const flags = [...typed.matchAll(/--(\S+) (\S+)/g)].map(([, flag = "", value = ""]) => ({
    path: { rank: "adapter.rank", target: "adapter.target" }[flag] ?? flag,
    texts: [value],
  }));
  const bytes = new Map<string, readonly [number, number]>();

  beforeAll(async () => {
    const { job } = await loadJob({ path, flags, cwd: root });
    const { model: found, weights, clients, perRound, base } = await assemble(job);
    const model = { ...found, weights: await weights() };
    for (const cost of methodCosts({ job, model, clients, perRound, fullBytes: base.bytes })) {
      if ("reason" in cost) continue;
      expect(cost).toMatchObject({ name: cost.name, agrees: true });
      bytes.set(cost.name, [cost.bytesDown, cost.bytesUp]);
    }
  }, 60_000);

  it.each(all.map((method) => [method.name, method] as const))(
    "is what the program says and counts: %s",
    (name, method) => {
      const found = rows(section(pageOf(method), "## What travels")).find(
        ([first = ""]) => code(first) === name,
      );
      const [down = 0, up = 0] = bytes.get(name) ?? [];
      const thousands = (value: number): string => value.toLocaleString("en-US");
      expect(found?.slice(1)).toEqual([method.down, method.up, method.kept, thousands(down), thousands(up)]);
    },
  );
});
