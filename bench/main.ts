import { cpus, totalmem } from "node:os";
import { parseArgs } from "node:util";
import { runtime } from "#ort";
import type { Activations } from "../src/graph/ops/blocks.ts";
import type { RecomputeLevel } from "../src/graph/passes/recompute.ts";
import type { BasePrecision } from "../src/models/precision.ts";
import { type AggregateMethod, benchAggregate, LLAMA_7B, measureDense, measureLapack } from "./aggregate.ts";
import { benchStoredAggregate } from "./aggregate-stored.ts";
import { benchBeside } from "./beside.ts";
import { benchExchange } from "./exchange.ts";
import { benchGenerate } from "./generate.ts";
import { benchMixed } from "./mixed.ts";
import { benchRound } from "./round.ts";
import { benchStep, type ShapeName } from "./step.ts";

const { positionals, values } = parseArgs({
  allowPositionals: true,
  options: {
    model: { type: "string", multiple: true },
    batch: { type: "string" },
    length: { type: "string" },
    threads: { type: "string" },
    steps: { type: "string" },
    recompute: { type: "string" },
    tokens: { type: "string" },
    prompt: { type: "string" },
    precision: { type: "string" },
    activations: { type: "string" },
    folder: { type: "string" },
    data: { type: "string" },
    examples: { type: "string" },
    "max-length": { type: "string" },
    beside: { type: "string" },
    repeat: { type: "string" },
    clients: { type: "string" },
    method: { type: "string", multiple: true },
    layers: { type: "string" },
    rank: { type: "string" },
    drift: { type: "string" },
    dense: { type: "string" },
    python: { type: "string" },
    stored: { type: "boolean", default: false },
    quick: { type: "boolean", default: false },
    only: { type: "string", multiple: true },
    flower: { type: "string" },
  },
});
const number = (text: string | undefined): number | undefined =>
  text === undefined ? undefined : Number(text);

/** Every row says on what it was taken. */
const machine = {
  cpu: cpus()[0]?.model,
  cores: cpus().length,
  memoryGB: Math.round(totalmem() / 1e9),
  node: process.version,
  runtime: `${runtime.name} ${runtime.version}`,
};

const [what] = positionals;
if (values.beside !== undefined) {
  const at = process.argv.indexOf("--beside");
  const own = process.argv.filter((_, i) => i !== at && i !== at + 1);
  const figures = await benchBeside({
    own: [process.execPath, ...process.execArgv, ...own.slice(1)],
    command: values.beside,
    repeat: number(values.repeat) ?? 3,
    onLine: (line) => console.log(line),
  });
  console.log(JSON.stringify({ ...figures, ...machine }));
} else if (what === "mixed") {
  const { folder, data } = values;
  if (folder === undefined || data === undefined)
    throw new Error("bench: mixed needs --folder MODEL and --data FILE");
  const figures = await benchMixed({
    folder,
    data,
    examples: number(values.examples) ?? 640,
    batch: number(values.batch) ?? 32,
    maxLength: number(values["max-length"]) ?? 128,
    ...(values.threads === undefined ? {} : { threads: Number(values.threads) }),
  });
  console.log(JSON.stringify({ ...figures, ...machine }));
} else if (what === "step") {
  for (const model of (values.model ?? ["smollm2", "minilm"]) as ShapeName[]) {
    const figures = await benchStep({
      model,
      batch: number(values.batch),
      length: number(values.length),
      threads: number(values.threads),
      steps: number(values.steps),
      recompute: values.recompute as RecomputeLevel | undefined,
    });
    console.log(JSON.stringify({ ...figures, ...machine }));
  }
} else if (what === "generate") {
  for (const model of values.model ?? ["smollm2"]) {
    const figures = await benchGenerate({
      model,
      batch: number(values.batch),
      length: number(values.length),
      tokens: number(values.tokens),
      prompt: values.prompt?.split(",").map(Number),
      precision: values.precision as BasePrecision | undefined,
      activations: values.activations as Activations | undefined,
      threads: number(values.threads),
    });
    console.log(JSON.stringify({ ...figures, ...machine }));
  }
} else if (what === "round") {
  const figures = await benchRound({ clients: number(values.clients) ?? 1000, bytes: 1_000_000 });
  console.log(JSON.stringify({ bench: "round", ...figures, ...machine }));
} else if (what === "exchange") {
  await benchExchange({
    quick: values.quick,
    ...(values.only && { only: values.only }),
    ...(values.flower !== undefined && { flower: values.flower }),
    onFigures: (figures) => console.log(JSON.stringify({ ...figures, ...machine })),
  });
} else if (what === "aggregate") {
  const shape = {
    ...LLAMA_7B,
    layers: number(values.layers) ?? LLAMA_7B.layers,
    clients: number(values.clients) ?? LLAMA_7B.clients,
    rank: number(values.rank) ?? LLAMA_7B.rank,
    drift: number(values.drift) ?? LLAMA_7B.drift,
  };
  const { python, stored } = values;
  const size = number(values.dense) ?? 512;
  const dense = stored
    ? undefined
    : python === undefined
      ? measureDense(size)
      : await measureLapack(python, size);
  for (const method of (values.method ?? ["flexlora", "fedex-lora", "frlora"]) as AggregateMethod[]) {
    const figures = dense
      ? await benchAggregate(method, shape, { dense })
      : { bench: "aggregate-stored", method, ...shape, ...(await benchStoredAggregate(method, shape)) };
    console.log(JSON.stringify({ ...figures, ...machine }));
  }
} else {
  console.error(
    `bench: got "${what ?? ""}", expected step, generate, mixed, round, exchange or aggregate; for example: npm run bench -- step --model smollm2`,
  );
  process.exitCode = 2;
}
