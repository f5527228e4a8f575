import { join } from "node:path";
import { parseArgs } from "node:util";
import { deviation } from "./deviation.ts";
import { galoreMemory } from "./galore.ts";
import { gradient } from "./gradient.ts";
import { type Findings, writeFindings } from "./output.ts";
import { rank } from "./rank.ts";

const analyses: Readonly<Record<string, () => Promise<Findings>>> = {
  deviation,
  rank,
  gradient,
  galore: galoreMemory,
};

const { positionals, values } = parseArgs({ allowPositionals: true, options: { out: { type: "string" } } });
const [name = ""] = positionals;
const analyse = analyses[name];
if (!analyse) {
  console.error(
    `analyses: got "${name}", expected one of ${Object.keys(analyses).join(", ")}; for example: npm run analyses -- rank`,
  );
  process.exitCode = 2;
} else {
  const folder = values.out ?? join("runs", "analyses", name);
  console.log(writeFindings(folder, await analyse()));
  console.log(`written to ${join(folder, "README.md")}`);
}
