import { readdirSync, readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { expect, it } from "vitest";

const root = new URL("../../", import.meta.url);
const { exports: declared } = JSON.parse(readFileSync(new URL("package.json", root), "utf8")) as {
  readonly exports: Readonly<Record<string, string | { readonly default: string }>>;
};

/** The source of every entry of the package, patterns spelled out, by its import name. */
function entries(): [string, string][] {
  return Object.entries(declared).flatMap(([key, target]) => {
    if (typeof target === "string") return [];
    const name = key.replace(/^\./, "tributary");
    const source = target.default.replace("./dist/", "./src/").replace(/\.js$/, ".ts");
    if (!key.endsWith("/*")) return [[name, source] as [string, string]];
    const files = readdirSync(new URL(source.replace("*.ts", ""), root)).sort();
    return files
      .filter((file) => file.endsWith(".ts"))
      .map((file): [string, string] => [name.replace("*", file.slice(0, -3)), source.replace("*.ts", file)]);
  });
}

it("the package exports these names and no others", async () => {
  const lines: string[] = [];
  for (const [name, source] of entries()) {
    const module: object = await import(fileURLToPath(new URL(source, root)));
    const names = Object.keys(module).sort();
    lines.push(names.length === 0 ? `${name}: types only` : `${name}: ${names.join(" ")}`);
  }
  await expect(`${lines.join("\n")}\n`).toMatchFileSnapshot("./names.txt");
});
