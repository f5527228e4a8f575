import { existsSync, readdirSync, readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { describe, expect, it } from "vitest";
import { loadJob } from "../../src/job/load.node.ts";
import { describeModel } from "../../src/models/load.ts";

const folder = fileURLToPath(new URL("../../examples", import.meta.url));
const names = readdirSync(folder).filter((name) => existsSync(`${folder}/${name}/job.yaml`));

describe("the job of every example", () => {
  it.each(names)("is sound, is called %s, and is told of beside it", async (name) => {
    const { job } = await loadJob({ path: `${folder}/${name}/job.yaml`, cwd: folder });
    expect(job.name).toBe(name);
    expect(existsSync(`${folder}/${name}/README.md`)).toBe(true);
  });

  it("may begin with a model that another job of the example trains from random weights", async () => {
    const { job } = await loadJob({ path: `${folder}/brain-mri/pretrain.yaml`, cwd: folder });
    expect([job.name, job.weights, job.task]).toEqual([
      "brain-mri-pretrain",
      "random",
      "image-classification",
    ]);
    const { config } = describeModel(JSON.parse(readFileSync(`${job.model}/config.json`, "utf8")));
    expect(config.image).toEqual({ channels: 1, height: 64, width: 64 });
  });
});
