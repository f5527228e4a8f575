import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, expect, it } from "vitest";
import { storm } from "../../scripts/kills/storm.ts";

const main = fileURLToPath(new URL("../../src/cli/main.ts", import.meta.url));
const folder = mkdtempSync(join(tmpdir(), "tributary-kills-"));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

it.skipIf(process.platform === "win32")(
  "a run that is killed at random moments and started again each time ends with the bytes of the undisturbed run",
  async () => {
    const { kills, differs } = await storm({
      folder,
      program: [
        process.execPath,
        "--conditions=@tributary/source",
        "--import",
        import.meta.resolve("tsx"),
        main,
      ],
      times: 5,
      seed: 4,
      strategy: "fedex-lora",
      rounds: 3,
      silos: 3,
      steps: 6,
    });
    expect(differs).toEqual([]);
    expect(kills).toBe(5);
  },
  120_000,
);
