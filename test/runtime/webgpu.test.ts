import { execFile } from "node:child_process";
import { existsSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { describe, expect, test } from "vitest";
import { z } from "zod";

/** Chromium brings a Vulkan loader and SwiftShader, a driver that computes on the processor. */
const drivers = "/usr/lib/chromium";
const icd = `${drivers}/vk_swiftshader_icd.json`;
const present = existsSync(icd) && existsSync(`${drivers}/libvulkan.so.1`);

/** Float32 in other orders of summation, and exponentials of WebGPU's lower accuracy. */
const TOLERANCE = 2e-5;

const Step = z.record(z.string(), z.array(z.number()));

async function stepOn(device: "cpu" | "webgpu"): Promise<z.infer<typeof Step>> {
  const script = fileURLToPath(new URL("webgpu-steps.ts", import.meta.url));
  // The Vulkan loader is found through the environment that a process starts with.
  const { stdout } = await promisify(execFile)(
    process.execPath,
    ["--import", "tsx", "--conditions=@tributary/source", script, device],
    { env: { ...process.env, LD_LIBRARY_PATH: drivers, VK_ICD_FILENAMES: icd }, maxBuffer: 1e8 },
  );
  return Step.parse(JSON.parse(stdout));
}

describe.skipIf(!present)(`WebGPU in Node.js${present ? "" : ` (skipped: no ${icd})`}`, () => {
  test("gives the loss, gradient norm and parameters of a training step that the processor gives", async () => {
    const [expected, got] = [await stepOn("cpu"), await stepOn("webgpu")];
    expect(Object.keys(got).sort()).toEqual(Object.keys(expected).sort());
    for (const [name, values] of Object.entries(expected)) {
      const size = Math.max(...values.map(Math.abs));
      const error = values.map((value, i) => Math.abs((got[name]?.[i] ?? Number.NaN) - value));
      expect(Math.max(...error) / size, name).toBeLessThanOrEqual(TOLERANCE);
    }
  });
});
