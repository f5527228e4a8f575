import { cpus, totalmem } from "node:os";
import { parseArgs } from "node:util";
import { runtime } from "#ort";
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
if (what === "step") {
  for (const model of (values.model ?? ["smollm2", "minilm"]) as ShapeName[]) {
    const figures = await benchStep({
      model,
      batch: number(values.batch),
      length: number(values.length),
      threads: number(values.threads),
      steps: number(values.steps),
    });
    console.log(JSON.stringify({ ...figures, ...machine }));
  }
} else if (what === "round") {
  const figures = await benchRound({ clients: 1000, bytes: 1_000_000 });
  console.log(JSON.stringify({ bench: "round", ...figures, ...machine }));
} else {
  console.error(
    `bench: got "${what ?? ""}", expected step or round; for example: npm run bench -- step --model smollm2`,
  );
  process.exitCode = 2;
}
