import { existsSync, readdirSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { describe, expect, it } from "vitest";
import { loadJob } from "../../src/job/load.node.ts";

const folder = fileURLToPath(new URL("../../examples", import.meta.url));
const names = readdirSync(folder).filter((name) => existsSync(`${folder}/${name}/job.yaml`));

describe("the job of every example", () => {
  it.each(names)("is sound, is called %s, and is told of beside it", async (name) => {
    const { job } = await loadJob({ path: `${folder}/${name}/job.yaml`, cwd: folder });
    expect(job.name).toBe(name);
    expect(existsSync(`${folder}/${name}/README.md`)).toBe(true);
  });
});
