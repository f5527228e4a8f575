import { resolve } from "node:path";
import { evaluateRun } from "../../job/evaluate.ts";
import { readResolvedJob } from "../../job/load.node.ts";
import { count } from "../../job/units.ts";
import type { Command } from "../command.ts";
import { usageError } from "../exit.ts";
import { numberFlag } from "../number-flag.ts";
import { measure } from "../progress/format.ts";
import { table } from "../progress/table.ts";
import { lines } from "../terminal.ts";

/** `tributary eval`. */
export const evaluate: Command = {
  name: "eval",
  summary: "measure the model of a run beside its base",
  usage: "RUN [flags]",
  arguments: [1, 1],
  flags: [
    { name: "split", value: "validation|test", description: "held-out part (default: as in the job)" },
    { name: "data", value: "FILE", description: "other data, read as the job reads its own" },
    { name: "limit", value: "N", description: "most examples" },
  ],
  examples: [
    ["tributary eval runs/my-job", "on the held-out data of the job"],
    ["tributary eval runs/my-job --data new.jsonl --json", "on other data, for a machine"],
  ],
  async run({ positionals: [path = ""], flags }, { terminal, signal, json, onInterrupt }) {
    const folder = resolve(terminal.cwd, path);
    const job = await readResolvedJob(folder);
    if (job === undefined)
      throw usageError(`eval: ${folder} is no run folder, expected one that tributary run has written`);
    const split = flags.get("split") ?? job.evaluation.split;
    if (split !== "validation" && split !== "test")
      throw usageError(`--split: got ${split}, expected validation or test`);
    const limit = flags.has("limit")
      ? numberFlag(flags, "limit", { fallback: 1, minimum: 1, whole: true })
      : undefined;
    const data = flags.get("data");
    onInterrupt(() => {});
    const found = await evaluateRun(
      { ...job, out: folder },
      {
        split,
        signal,
        ...(limit === undefined ? {} : { limit }),
        ...(data === undefined ? {} : { data: resolve(terminal.cwd, data) }),
      },
    );
    if (json) return terminal.out(`${JSON.stringify({ run: folder, split, ...found })}\n`);
    const rows = Object.keys(found.tuned).map((name) => [
      name,
      measure(name, found.base[name]),
      measure(name, found.tuned[name]),
    ]);
    terminal.out(
      lines([
        `${count(found.examples)} examples (${data ?? split})`,
        ...table(
          [{ title: "measure" }, { title: "base", align: "right" }, { title: "tuned", align: "right" }],
          rows,
        ),
      ]),
    );
  },
};
