/**
 * Runs every golden case under a folder through the project's public code:
 *
 *     npm run parity -- DIR [--json]
 *
 * DIR holds any of models/, optim/, strategies/, tokenizers/, quant/, metrics/, privacy/, partition/. One line a case; the
 * exit status is 1 if a case differs, 2 if there is none.
 */
import { existsSync, readdirSync } from "node:fs";
import { join } from "node:path";
import { parseArgs } from "node:util";
import type { ParityLine } from "./line.ts";
import { metricCases } from "./metrics.ts";
import { modelCases } from "./models.ts";
import { optimizerCases } from "./optim.ts";
import { quantCases } from "./quant.ts";
import { strategyCases } from "./strategies.ts";
import { tokenizerCases } from "./tokenizers.ts";

/** Kinds of cases that nothing here can run yet: each file or folder is listed, none is passed over. */
async function* unsupported(dir: string, kind: string): AsyncIterable<ParityLine> {
  const folder = join(dir, kind);
  if (!existsSync(folder)) return;
  for (const name of readdirSync(folder).sort()) {
    yield {
      name: `${kind}/${name}`,
      what: "all",
      maxAbs: 0,
      maxRel: 0,
      tolerance: 0,
      verdict: "unsupported",
      note: `${kind} cases are not supported yet`,
    };
  }
}

const kinds: readonly ((dir: string) => AsyncIterable<ParityLine>)[] = [
  modelCases,
  optimizerCases,
  strategyCases,
  tokenizerCases,
  quantCases,
  metricCases,
  ...["privacy", "partition"].map((kind) => (dir: string) => unsupported(dir, kind)),
];

const { positionals, values } = parseArgs({
  allowPositionals: true,
  options: { json: { type: "boolean", default: false } },
});
const [dir] = positionals;
if (dir === undefined || !existsSync(dir)) {
  console.error(
    `parity: got ${dir === undefined ? "no folder" : `"${dir}", which does not exist`}; expected a folder of golden cases, for example: npm run parity -- ./goldens`,
  );
  process.exit(2);
}

const counts = { passed: 0, failed: 0, unsupported: 0 };
const digits = (value: number): string => value.toExponential(1);
for (const cases of kinds) {
  for await (const line of cases(dir)) {
    counts[line.verdict]++;
    if (values.json) console.log(JSON.stringify(line));
    else if (line.verdict === "unsupported") console.log(`unsupported  ${line.name}  ${line.note ?? ""}`);
    else {
      const note = line.note ? `  ${line.note}` : "";
      console.log(
        `${line.verdict}  ${line.name}  ${line.what}  abs ${digits(line.maxAbs)}  rel ${digits(line.maxRel)}  tolerance ${digits(line.tolerance)}${note}`,
      );
    }
  }
}
const { passed, failed } = counts;
console.log(
  values.json
    ? JSON.stringify(counts)
    : `${passed} passed, ${failed} failed, ${counts.unsupported} unsupported`,
);
process.exitCode = failed > 0 ? 1 : passed === 0 ? 2 : 0;
