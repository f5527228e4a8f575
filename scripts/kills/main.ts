/**
 * Kills a job again and again and compares what it comes to with the undisturbed run:
 *
 *     npm run kills -- [--times 50] [--seed 1] [--strategy fedex-lora]
 *
 * One line a kill and a run; exit status 1 if anything differs.
 */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { storm } from "./storm.ts";

const { values } = parseArgs({
  options: {
    times: { type: "string", default: "50" },
    seed: { type: "string", default: "1" },
    strategy: { type: "string", default: "fedex-lora" },
  },
});
const [times, seed] = [Number(values.times), Number(values.seed)];
if (!(Number.isInteger(times) && times >= 1 && Number.isInteger(seed) && seed >= 0)) {
  console.error(
    `kills: got --times ${values.times} --seed ${values.seed}, expected whole numbers; for example: npm run kills -- --times 50 --seed 1`,
  );
  process.exit(2);
}

const folder = mkdtempSync(join(tmpdir(), "tributary-kills-"));
const { kills, runs, byPhase, differs } = await storm({
  folder,
  program: [process.execPath, fileURLToPath(new URL("../../dist/cli/main.js", import.meta.url))],
  times,
  seed,
  strategy: values.strategy,
  rounds: 5,
  silos: 5,
  steps: 24,
  onLine: (line) => console.log(line),
});
console.log([...byPhase].map(([phase, count]) => `${count} in ${phase}`).join(", "));
if (differs.length === 0) rmSync(folder, { recursive: true, force: true });
else {
  for (const line of differs) console.error(line);
  console.error(`the runs are kept in ${folder}`);
  process.exitCode = 1;
}
console.log(`${kills} kills, ${runs} runs, ${differs.length === 0 ? "identical" : "DIFFERENT"}`);
