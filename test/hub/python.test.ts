import { execFile, spawnSync } from "node:child_process";
import { mkdtemp, readFile, realpath, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import { describe, expect, it } from "vitest";
import { fetchModel } from "../../src/hub/hub.node.ts";
import { fakeHub } from "./server.ts";

const python = process.env.TRIBUTARY_PYTHON ?? "python3";
const able = spawnSync(python, ["-c", "import huggingface_hub"]).status === 0;
const skipped = able ? "" : ` (skipped: ${python} has no huggingface_hub; TRIBUTARY_PYTHON names another)`;
const commit = "1".repeat(40);
const files = {
  "config.json": new TextEncoder().encode("{}"),
  "model.safetensors": new Uint8Array(5000).fill(7),
};
const script = `
import sys
from huggingface_hub import snapshot_download
print(snapshot_download("org/tiny", allow_patterns=["config.json", "model.safetensors"]))
`;

describe.skipIf(!able)(`the cache, shared with huggingface_hub of Python${skipped}`, () => {
  it.each(["Python fetches first", "Python finds what is there"])("%s", async (order) => {
    const hub = await fakeHub([{ kind: "model", repo: "org/tiny", commit, files }]);
    const cache = await mkdtemp(join(tmpdir(), "tributary-hub-"));
    const settings = { endpoint: hub.endpoint, cache, offline: false };
    const env = { ...process.env, HF_ENDPOINT: hub.endpoint, HF_HUB_CACHE: cache, HF_HUB_DISABLE_XET: "1" };
    const viaPython = async () => (await promisify(execFile)(python, ["-c", script], { env })).stdout.trim();
    const viaHere = () => fetchModel({ kind: "model", repo: "org/tiny", revision: "main" }, { settings });
    const [first, second] = order.startsWith("Python fetches") ? [viaPython, viaHere] : [viaHere, viaPython];
    try {
      const made = await first();
      const contents = () =>
        hub.requests.filter(({ at, method }) => at === "storage" && method === "GET").length;
      const fetched = contents();
      expect(await second()).toBe(made);
      expect(contents()).toBe(fetched);
      expect(new Uint8Array(await readFile(join(made, "model.safetensors")))).toEqual(
        files["model.safetensors"],
      );
      expect(await realpath(join(made, "config.json"))).toContain(join(cache, "models--org--tiny", "blobs"));
    } finally {
      await hub.close();
      await rm(cache, { recursive: true });
    }
  });
});
