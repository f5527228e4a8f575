import { readdir, readFile, stat } from "node:fs/promises";
import { basename, join } from "node:path";
import { holdsRecords, readRecords } from "../../data/files.node.ts";
import { imageText } from "../../data/images/pixels.ts";
import { TributaryError } from "../../errors.ts";
import type { ByteSource } from "../../formats/byte-source.ts";
import { fileSource, openFolder } from "../../formats/files.node.ts";
import { isGgufName, openGguf } from "../../formats/gguf/gguf.ts";
import { rankOf, readPeftAdapter, scalingOf } from "../../formats/peft.ts";
import { openSafetensors, type TensorFile } from "../../formats/safetensors.ts";
import { assemble } from "../../job/assemble.ts";
import { isSpent } from "../../job/budget.ts";
import { localPath } from "../../job/hub.node.ts";
import { loadJob, placedModel, readResolvedJob, resolvedJobName } from "../../job/load.node.ts";
import { freeMemory, memoryLines, precisionPlans } from "../../job/memory-plan.node.ts";
import { readRounds, runFiles } from "../../job/run-files.node.ts";
import { bytes, count } from "../../job/units.ts";
import { describeModel, openModel } from "../../models/load.ts";
import { PROGRAM_BYTES } from "../../plan/memory.ts";
import { sizeOf } from "../../tensor/tensor.ts";
import type { Command } from "../command.ts";
import { numberFlag } from "../number-flag.ts";
import { clipped, duration, measure, size } from "../progress/format.ts";
import { shownMeasure } from "../progress/rounds.ts";
import { table } from "../progress/table.ts";
import { lines } from "../terminal.ts";

/** What was found, for people and for machines. */
interface Finding {
  readonly kind: string;
  readonly lines: readonly string[];
  readonly json: Readonly<Record<string, unknown>>;
}

/** `tributary inspect`. */
export const inspect: Command = {
  name: "inspect",
  summary: "what is in a model, an adapter, a run, a safetensors or GGUF file, or a data file",
  usage: "FILE|DIR [--plan [--job JOB]]",
  arguments: [1, 1],
  flags: [
    { name: "limit", value: "N", description: "most tensors or records shown (default: 40)" },
    { name: "plan", description: "the memory that training this model needs, before it starts" },
    { name: "job", value: "JOB", description: "plan for this job, and for the data that it names" },
    {
      name: "batch-size",
      value: "N",
      description: "examples of a batch in a plan without a job (default: 8)",
    },
    { name: "max-length", value: "N", description: "tokens of an example in such a plan (default: 512)" },
  ],
  examples: [
    ["tributary inspect model.safetensors", "names, shapes and dtypes"],
    ["tributary inspect model.gguf", "metadata, names, shapes and block types"],
    ["tributary inspect org/name", "a model or an adapter of the Hugging Face hub"],
    ["tributary inspect model.gguf --plan", "memory of training in each base precision"],
    ["tributary inspect runs/my-job", "rounds, measurements and traffic of a run"],
    ["tributary inspect train.jsonl --json", "fields and number of records, for a machine"],
  ],
  async run({ positionals: [path = ""], flags }, { terminal, json }) {
    const limit = numberFlag(flags, "limit", { fallback: 40, minimum: 1, whole: true });
    const full = await localPath(placedModel(path, terminal.cwd));
    const found = flags.has("plan")
      ? await planFinding(full, flags, terminal.cwd)
      : await finding(full, limit);
    if (json) terminal.out(`${JSON.stringify({ path: full, kind: found.kind, ...found.json })}\n`);
    else terminal.out(lines([terminal.style.heading(`${path}: ${found.kind}`), ...found.lines]));
  },
};

/** The memory of training a model: as a job says, or by adapters of rank 8 in each precision. */
async function planFinding(path: string, flags: ReadonlyMap<string, string>, cwd: string): Promise<Finding> {
  const jobPath = flags.get("job");
  if (jobPath !== undefined) {
    const { job } = await loadJob({ path: jobPath, flags: [{ path: "model", texts: [path] }], cwd });
    const { memory, plan } = await assemble(job);
    return {
      kind: `memory of the job ${job.name}`,
      json: { precision: job.basePrecision ?? "float32", memory, plan },
      lines: [`base ${job.basePrecision ?? "float32"}, ${plan.why}`, "", ...memoryLines(memory)],
    };
  }
  const rows = numberFlag(flags, "batch-size", { fallback: 8, minimum: 1, whole: true });
  const length = numberFlag(flags, "max-length", { fallback: 512, minimum: 2, whole: true });
  const plans = await precisionPlans(path, { rows, length });
  const columns = plans.map(({ precision }) => ({ title: precision, align: "right" as const }));
  const row = (name: string, part: (plan: (typeof plans)[number]) => number): string[] => [
    name,
    ...plans.map((plan) => bytes(part(plan))),
  ];
  return {
    kind: "memory of training by LoRA of rank 8 on all linear layers",
    json: { batch: { rows, length }, plans, free: freeMemory() },
    lines: [
      `batches of ${rows} x ${length} tokens, all of them labelled; --batch-size, --max-length or --job for others`,
      "",
      ...table(
        [{ title: "" }, ...columns],
        [
          row("weights", ({ memory }) => memory.weights),
          row("adapter", ({ memory }) => memory.adapter),
          row("optimizer state", ({ memory }) => memory.optimizer),
          row("activations", ({ memory }) => memory.activations),
          row("runtime", ({ memory }) => memory.runtime),
          row("each worker", ({ memory }) => memory.total),
        ],
      ),
      "",
      `and ${bytes(PROGRAM_BYTES)} for the program; ${bytes(freeMemory())} are free here`,
    ],
  };
}

async function finding(path: string, limit: number): Promise<Finding> {
  const found = await stat(path).catch((cause: unknown) => {
    throw new TributaryError("missing-file", `${path}: no such file or folder; correct the path`, { cause });
  });
  if (!found.isDirectory()) {
    if (isGgufName(path)) return ggufFinding(path, found.size, limit);
    if (path.endsWith(".safetensors"))
      return tensorsFinding(await openSafetensors(await fileSource(path), basename(path)), found.size, limit);
    return dataFinding(path, limit);
  }
  const names = await readdir(path);
  if (names.includes(resolvedJobName)) return runFinding(path);
  if (names.includes("adapter_config.json")) return adapterFinding(path, limit);
  if (names.includes("config.json") || names.some(isGgufName)) return modelFinding(path, limit);
  if (await holdsRecords(path)) return dataFinding(path, limit);
  throw new TributaryError(
    "unknown-folder",
    `${path}: holds no run, adapter, model or data (${names.slice(0, 5).join(", ") || "it is empty"}); give one of those`,
  );
}

function tensorsFinding(file: TensorFile, fileBytes: number, limit: number): Finding {
  const tensors = file.names.map((name) => {
    const { dtype, shape, start, end } = file.info(name);
    return { name, dtype, shape, bytes: end - start };
  });
  const parameters = tensors.reduce((sum, { shape }) => sum + sizeOf(shape), 0);
  const metadata = Object.fromEntries(file.metadata);
  return {
    kind: "safetensors",
    json: { parameters, bytes: fileBytes, metadata, tensors },
    lines: [
      `${count(tensors.length)} tensors, ${size(parameters)} parameters, ${bytes(fileBytes)}`,
      ...Object.entries(metadata).map(([key, value]) => `metadata ${key}: ${clipped(value, 80)}`),
      "",
      ...table(
        [{ title: "tensor" }, { title: "dtype" }, { title: "shape" }, { title: "bytes", align: "right" }],
        tensors
          .slice(0, limit)
          .map((tensor) => [tensor.name, tensor.dtype, `[${tensor.shape.join(", ")}]`, bytes(tensor.bytes)]),
      ),
      ...more(tensors.length, limit, "tensors"),
    ],
  };
}

async function modelFinding(path: string, limit: number): Promise<Finding> {
  const folder = await openFolder(path);
  const { json, file } = await openModel(folder);
  const { model, task, config: read } = describeModel(json);
  const tensors = tensorsFinding(file, sizesOf(folder.values()), limit);
  const facts = {
    family: model.type,
    task,
    hiddenSize: read.hiddenSize,
    vocabulary: read.vocabSize,
    positions: read.maxPositions,
  };
  return {
    kind: `${model.type} model`,
    json: { ...facts, ...tensors.json },
    lines: [...factLines(facts), ...tensors.lines],
  };
}

async function ggufFinding(path: string, fileBytes: number, limit: number): Promise<Finding> {
  const gguf = await openGguf(await fileSource(path), basename(path));
  const tensors = gguf.names.map((name) => {
    const { type, shape, start, end } = gguf.info(name);
    return { name, type, shape, bytes: end - start };
  });
  const parameters = tensors.reduce((sum, { shape }) => sum + sizeOf(shape), 0);
  const types = new Map<string, number>();
  for (const { type, shape } of tensors) types.set(type, (types.get(type) ?? 0) + sizeOf(shape));
  const metadata = [...gguf.metadata].map(([key, value]): [string, string | number | boolean] => {
    if (value.type === "array") return [key, `${value.values.length} ${value.of}s`];
    return [key, typeof value.value === "bigint" ? String(value.value) : value.value];
  });
  return {
    kind: `GGUF ${gguf.version}`,
    json: { parameters, bytes: fileBytes, metadata: Object.fromEntries(metadata), tensors },
    lines: [
      `${count(tensors.length)} tensors, ${size(parameters)} parameters, ${bytes(fileBytes)}`,
      [...types].map(([type, values]) => `${type} ${size(values)}`).join(", "),
      "",
      ...factLines(
        Object.fromEntries(
          metadata.map(([key, value]) => [key, clipped(String(value).replaceAll(/\s+/g, " "), 80)]),
        ),
      ),
      "",
      ...table(
        [{ title: "tensor" }, { title: "type" }, { title: "shape" }, { title: "bytes", align: "right" }],
        tensors
          .slice(0, limit)
          .map((each) => [each.name, each.type, `[${each.shape.join(", ")}]`, bytes(each.bytes)]),
      ),
      ...more(tensors.length, limit, "tensors"),
    ],
  };
}

async function adapterFinding(path: string, limit: number): Promise<Finding> {
  const { config, params } = await readPeftAdapter(await openFolder(path));
  const modules = [...params.keys()].flatMap((name) =>
    name.endsWith(".lora_A.weight") ? [name.slice(0, -".lora_A.weight".length)] : [],
  );
  const rows = modules.map((module) => {
    const [, from = 0] = params.get(`${module}.lora_A.weight`)?.shape ?? [];
    const [out = 0] = params.get(`${module}.lora_B.weight`)?.shape ?? [];
    return { module, rank: rankOf(config, module), scaling: scalingOf(config, module), in: from, out };
  });
  const parameters = [...params.values()].reduce((sum, { shape }) => sum + sizeOf(shape), 0);
  const facts = {
    rank: config.rank,
    alpha: config.alpha,
    rsLora: config.useRslora,
    dora: config.useDora ?? false,
    base: config.baseModel ?? "not named",
    whole: config.modulesToSave.join(", ") || "none",
    parameters: size(parameters),
  };
  return {
    kind: "LoRA adapter (PEFT)",
    json: { ...facts, parameters, modules: rows },
    lines: [
      ...factLines(facts),
      "",
      ...table(
        [
          { title: "module" },
          { title: "rank", align: "right" },
          { title: "scaling", align: "right" },
          { title: "shape" },
        ],
        rows
          .slice(0, limit)
          .map((each) => [each.module, String(each.rank), String(each.scaling), `[${each.out}, ${each.in}]`]),
      ),
      ...more(rows.length, limit, "modules"),
    ],
  };
}

async function runFinding(path: string): Promise<Finding> {
  const job = await readResolvedJob(path);
  const rounds = await readRounds(path);
  const summary: unknown = await readFile(join(path, runFiles.summary), "utf8")
    .then(JSON.parse)
    .catch(() => undefined);
  const name = shownMeasure(
    rounds.find(({ evaluation }) => Object.keys(evaluation).length > 0)?.evaluation ?? {},
  );
  const total = job?.rounds ?? rounds.length;
  const spent = isSpent(job?.budget, rounds);
  const left = spent
    ? "; its budget is used up"
    : rounds.length < total
      ? `; tributary run ${path} goes on`
      : "";
  const facts = {
    job: job?.name ?? "",
    model: job?.model ?? "",
    strategy: job?.strategy.name ?? "",
    rounds: `${rounds.length} of ${total}${left}`,
  };
  return {
    kind: "run",
    json: { job, rounds, summary },
    lines: [
      ...factLines(facts),
      "",
      ...table(
        [
          { title: "round", align: "right" },
          { title: "clients" },
          { title: "loss", align: "right" },
          { title: "held-out", align: "right" },
          ...(name === undefined ? [] : [{ title: name, align: "right" as const }]),
          { title: "down", align: "right" },
          { title: "up", align: "right" },
          { title: "time", align: "right" },
          { title: "model" },
        ],
        rounds.map((round) => [
          String(round.number),
          `${round.accepted.length}/${round.clients.length}`,
          measure("loss", round.loss),
          measure("loss", round.evaluation.loss),
          ...(name === undefined ? [] : [measure(name, round.evaluation[name])]),
          bytes(round.bytesDown),
          bytes(round.bytesUp),
          duration(round.seconds),
          round.model?.slice(0, 12) ?? "one a client",
        ]),
      ),
      ...rounds.flatMap((round) =>
        round.rejected.map(
          ({ client, code, reason }) => `round ${round.number}: ${client} dropped: ${code}: ${reason}`,
        ),
      ),
    ],
  };
}

async function dataFinding(path: string, limit: number): Promise<Finding> {
  const { rows, dropped } = await readRecords(path, { dropMalformed: true });
  const fields = new Map<string, { records: number; distinct: Set<string>; example: string; kind: string }>();
  for (const record of rows) {
    for (const [field, value] of Object.entries(record)) {
      const text = typeof value === "string" ? value : (imageText(value) ?? JSON.stringify(value) ?? "");
      const known = fields.get(field) ?? {
        records: 0,
        distinct: new Set(),
        example: text,
        kind: imageText(value) !== undefined ? "image" : Array.isArray(value) ? "list" : typeof value,
      };
      known.records++;
      if (known.distinct.size <= 1000) known.distinct.add(text.slice(0, 100));
      fields.set(field, known);
    }
  }
  const described = [...fields].slice(0, limit).map(([field, known]) => ({
    field,
    kind: known.kind,
    records: known.records,
    distinct: known.distinct.size > 1000 ? "over 1000" : String(known.distinct.size),
    example: clipped(known.example.replaceAll(/\s+/g, " "), 60),
  }));
  return {
    kind: "data",
    json: { records: rows.length, malformed: dropped.length, fields: described },
    lines: [
      `${count(rows.length)} records${dropped.length > 0 ? `, ${count(dropped.length)} malformed` : ""}`,
      "",
      ...table(
        [
          { title: "field" },
          { title: "kind" },
          { title: "records", align: "right" },
          { title: "distinct", align: "right" },
          { title: "first" },
        ],
        described.map((each) => [each.field, each.kind, count(each.records), each.distinct, each.example]),
      ),
    ],
  };
}

function factLines(facts: Readonly<Record<string, unknown>>): string[] {
  const width = Object.keys(facts).reduce((most, name) => Math.max(most, name.length), 0);
  return Object.entries(facts).map(([name, value]) => `${name.padEnd(width)}  ${String(value)}`);
}

function more(all: number, limit: number, what: string): string[] {
  return all > limit ? [`and ${count(all - limit)} more ${what}; --limit ${all} shows all`] : [];
}

function sizesOf(sources: Iterable<ByteSource>): number {
  return [...sources].reduce((sum, source) => sum + source.size, 0);
}
