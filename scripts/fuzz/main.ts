/**
 * Damages files of every format that is read, again and again; each must be read or refused by name, in little time and
 * memory:
 *
 *     npm run fuzz -- [--times 10000]
 *
 * Runs the tests that do so with each suite, with more files of each format; exit status 1 if one finds anything else.
 */
import { spawn } from "node:child_process";
import { parseArgs } from "node:util";

const { values } = parseArgs({ options: { times: { type: "string", default: "10000" } } });
const times = Number(values.times);
if (!(Number.isInteger(times) && times >= 100)) {
  console.error(
    `fuzz: got --times ${values.times}, expected a whole number from 100; for example: npm run fuzz -- --times 10000`,
  );
  process.exit(2);
}

const tests = "reads or refuses by name what is damaged";
const child = spawn(
  "npx",
  ["vitest", "run", "test/formats", "test/data", "-t", tests, "--testTimeout", "1200000"],
  { stdio: "inherit", env: { ...process.env, FUZZ_TIMES: String(times) } },
);
child.on("error", (error) => {
  console.error(`fuzz: npx was not started: ${error.message}`);
  process.exitCode = 1;
});
child.on("close", (code) => {
  console.log(code === 0 ? `${times} damaged files of each format: all read or refused by name` : "FAILED");
  process.exitCode = code ?? 1;
});
