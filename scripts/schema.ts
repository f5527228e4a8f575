import { writeFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { jobJsonSchema } from "../src/job/schema.ts";

const path = fileURLToPath(new URL("../schema/job.schema.json", import.meta.url));
writeFileSync(path, `${JSON.stringify(jobJsonSchema(), undefined, 2)}\n`);
console.log(path);
