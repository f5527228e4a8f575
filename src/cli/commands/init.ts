import { mkdir, stat, writeFile } from "node:fs/promises";
import { basename, dirname, relative, resolve } from "node:path";
import { cancel, intro, outro, select, text } from "@clack/prompts";
import { stringify } from "yaml";
import { readRecords } from "../../data/files.node.ts";
import { openFolder } from "../../formats/files.node.ts";
import { checkJob } from "../../job/check.ts";
import { type TypedFlag, withFlags } from "../../job/flags.ts";
import { localData, localModel } from "../../job/hub.node.ts";
import { placedModel } from "../../job/load.node.ts";
import { valueAt } from "../../job/schema-node.ts";
import { describeModel, openModel } from "../../models/load.ts";
import { strategyEntries, usualStrategy } from "../../strategies/catalogue/entries.ts";
import type { Command } from "../command.ts";
import { interrupted, usageError } from "../exit.ts";
import { quoted } from "../progress/footer.ts";
import { lines } from "../terminal.ts";

/** `tributary init`. */
export const init: Command = {
  name: "init",
  summary: "write a job file, by questions on a terminal or by flags",
  usage: "[JOB] [flags]",
  arguments: [0, 1],
  takesJob: true,
  flags: [
    { name: "yes", short: "y", description: "ask nothing: take flags and defaults" },
    { name: "force", description: "overwrite an existing file" },
  ],
  examples: [
    ["tributary init", "by questions"],
    ["tributary init job.yaml --model ./SmolLM2-135M --data train.jsonl --clients 4", "by flags"],
    [
      "tributary init job.yaml --model ./MiniLM --data sst2.csv --task sequence-classification --data.classes 2",
      "a classification",
    ],
  ],
  async run({ positionals: [file = "job.yaml"], flags, job: typed }, { terminal, json }) {
    const path = resolve(terminal.cwd, file);
    const there = await stat(path)
      .then(() => true)
      .catch(() => false);
    if (there && !flags.has("force"))
      throw usageError(`init: ${file} exists already; give another name, or --force to overwrite it`);
    const ask = terminal.interactive && !flags.has("yes") && !json;
    const answers = ask ? await questions(typed) : typed;
    const raw = withFlags(await skeleton(answers, terminal.cwd), answers);
    checkJob(raw, (key) => (answers.some((flag) => flag.path === key) ? `--${key}` : undefined));
    await checkPaths(raw, terminal.cwd);
    const schema = "# yaml-language-server: $schema=https://unpkg.com/tributary/schema/job.schema.json\n";
    const placed = relativePaths(raw, terminal.cwd, dirname(path));
    await mkdir(dirname(path), { recursive: true });
    await writeFile(
      path,
      file.endsWith(".json") ? `${JSON.stringify(placed, undefined, 2)}\n` : schema + stringify(placed),
    );
    const next = [
      `${terminal.program} data show ${quoted(file)}`,
      `${terminal.program} run ${quoted(file)} --quick`,
    ];
    if (json) terminal.out(`${JSON.stringify({ file: path, next })}\n`);
    else if (ask) outro(`${file} is written; next: ${next.join(", then ")}`);
    else terminal.out(lines([`${file} is written; next:`, ...next.map((line) => `  ${line}`)]));
  },
};

async function questions(typed: readonly TypedFlag[]): Promise<TypedFlag[]> {
  intro("a federated fine-tuning job");
  const answers = [...typed];
  const given = (path: string): boolean => answers.some((flag) => flag.path === path);
  const answer = (path: string, value: string | symbol): void => {
    if (typeof value === "symbol") {
      cancel("nothing is written");
      throw interrupted("stopped; nothing is written");
    }
    answers.push({ path, texts: [value] });
  };
  const required = (value: string | undefined): string | undefined => (value ? undefined : "needed");
  if (!given("model")) {
    answer(
      "model",
      await text({
        message: "Base model: a folder in Hugging Face layout, a .gguf file, or org/name of the hub",
        validate: required,
      }),
    );
  }
  if (!given("data.path")) {
    answer(
      "data.path",
      await text({ message: "Data: a file or folder of .jsonl, .csv, .json or .txt", validate: required }),
    );
  }
  if (!given("strategy.name")) {
    const options = strategyEntries.map(({ name, schema }) => ({
      value: name,
      label: name,
      hint: schema.description ?? "",
    }));
    answer("strategy.name", await select({ message: "Strategy", options, initialValue: usualStrategy }));
  }
  if (!given("partition.kind") && !given("partition.clients")) {
    answer(
      "partition.clients",
      await text({ message: "Number of silos (dealt at random)", initialValue: "4", validate: required }),
    );
  }
  if (!given("rounds"))
    answer("rounds", await text({ message: "Rounds", initialValue: "8", validate: required }));
  return answers;
}

/** A job with what the flags do not say, for the model and the data that they name. */
async function skeleton(flags: readonly TypedFlag[], cwd: string): Promise<object> {
  const given = (path: string): string | undefined => flags.find((flag) => flag.path === path)?.texts[0];
  const model = given("model");
  const data = given("data.path");
  const missing = [
    ...(model === undefined ? ["--model DIR"] : []),
    ...(data === undefined ? ["--data FILE"] : []),
  ];
  if (missing.length > 0)
    throw usageError(
      `init: got no ${missing.join(" and no ")}, expected them as flags where there is no terminal to ask on`,
    );
  const task = given("task") ?? (await taskOf(await localModel(placedModel(model ?? "", cwd))));
  const kind = given("partition.kind") ?? "iid";
  return {
    schema: 1,
    name:
      basename(resolve(cwd, data ?? "job"))
        .toLowerCase()
        .replace(/\..*$/, "")
        .replaceAll(/[^a-z0-9]+/g, "-")
        .replaceAll(/^-+|-+$/g, "") || "job",
    model,
    task,
    data: { path: data, maxLength: 256 },
    partition: kind === "iid" ? { kind, clients: 4 } : { kind },
    adapter: { kind: "lora", rank: 8, alpha: 16, target: "all-linear" },
    strategy: { name: usualStrategy },
    local: { optimizer: { name: "adamw", learningRate: 5e-4 }, epochs: 1, batchSize: 8 },
    rounds: 8,
    seed: 0,
  };
}

async function taskOf(model: string): Promise<string> {
  const { json } = await openModel(await openFolder(model));
  const { task } = describeModel(json);
  return task === "embeddings" ? "sequence-classification" : task;
}

async function checkPaths(raw: unknown, cwd: string): Promise<void> {
  const paths = valueAt(raw, ["data", "path"]);
  for (const path of Array.isArray(paths) ? paths : [paths])
    await readRecords(
      await localData(String(path).startsWith("hf://") ? String(path) : resolve(cwd, String(path))),
      {
        dropMalformed: true,
      },
    );
}

function relativePaths(raw: unknown, cwd: string, folder: string): unknown {
  const moved = (path: string): string =>
    placedModel(path, cwd).startsWith("hf://") ? path : relative(folder, resolve(cwd, path)) || ".";
  const flagsOf = (keys: readonly string[]): TypedFlag[] => {
    const value = valueAt(raw, keys);
    const texts = (Array.isArray(value) ? value : [value]).filter((item) => typeof item === "string");
    return texts.length === 0 ? [] : [{ path: keys.join("."), texts: texts.map(moved) }];
  };
  return withFlags(raw, [...flagsOf(["model"]), ...flagsOf(["data", "path"])]);
}
