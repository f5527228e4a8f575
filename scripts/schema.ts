import { writeFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { jobJsonSchema } from "../src/job/schema.ts";
import { sweepJsonSchema } from "../src/sweep/schema.ts";

const schemas: Readonly<Record<string, object>> = {
  "job.schema.json": jobJsonSchema(),
  "sweep.schema.json": sweepJsonSchema(),
};
for (const [name, schema] of Object.entries(schemas)) {
  const path = fileURLToPath(new URL(`../schema/${name}`, import.meta.url));
  writeFileSync(path, `${JSON.stringify(schema, undefined, 2)}\n`);
  console.log(path);
}
