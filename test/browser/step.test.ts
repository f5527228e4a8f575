import { createHash } from "node:crypto";
import { existsSync } from "node:fs";
import { mkdtemp, readFile, rm } from "node:fs/promises";
import { createServer, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { basename, dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { type BrowserContext, chromium } from "playwright-core";
import { build } from "tsdown";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { runtime } from "#ort";
import { inputsOf } from "../../src/graph/value.ts";
import type { SessionOptions } from "../../src/runtime/session.ts";
import type { Params } from "../../src/tensor/params.ts";
import { array64, evaluate } from "../graph/evaluator.ts";
import { loraFeeds, loraStep, loraStepOutputs, nextFeeds } from "./lora-step.ts";
import type { PageResult } from "./page.ts";

const executablePath = "/usr/bin/chromium";

/** Both runtimes compute in float32, in different orders of summation; Adam divides the gradient by its own size. */
const ONE_STEP = 3e-6;
/** Later steps start from different roundings, and Adam divides them by small numbers. */
const LATER_STEPS = 1e-5;
/** Float32 against float64. */
const FLOAT32 = 1e-5;

const graph = loraStep();
const sha256 = createHash("sha256").update(graph).digest("hex");

/** The largest difference relative to the largest expected number. */
function distance(got: Iterable<number | bigint>, expected: Iterable<number | bigint>): number {
  const values = Array.from(got, Number);
  const wanted = Array.from(expected, Number);
  if (values.length !== wanted.length) return Number.POSITIVE_INFINITY;
  const error = wanted.map((value, i) => Math.abs((values[i] ?? Number.NaN) - value));
  return Math.max(...error) / Math.max(...wanted.map(Math.abs));
}

async function nodeSteps(): Promise<Params[]> {
  const session = await runtime.openSession(graph);
  const steps: Params[] = [];
  let feeds = loraFeeds();
  for (let step = 0; step < 3; step++) {
    const results = await session.run(feeds);
    steps.push(results);
    feeds = nextFeeds(feeds, results);
  }
  await session.dispose();
  return steps;
}

describe.skipIf(!existsSync(executablePath))(
  `a training step in Chromium${existsSync(executablePath) ? "" : ` (skipped: ${executablePath} is absent)`}`,
  () => {
    const runtimeFolder = dirname(fileURLToPath(import.meta.resolve("onnxruntime-web")));
    let folder = "";
    let server: Server;
    let context: BrowserContext;
    let origin = "";

    beforeAll(async () => {
      folder = await mkdtemp(join(tmpdir(), "tributary-browser-"));
      await build({
        config: false,
        entry: { page: fileURLToPath(new URL("page.ts", import.meta.url)) },
        outDir: join(folder, "bundle"),
        platform: "browser",
        format: "esm",
        dts: false,
        logLevel: "silent",
        noExternal: [/./],
        inputOptions: { resolve: { conditionNames: ["@tributary/source", "browser", "import", "default"] } },
      });
      server = createServer((request, response) => {
        void serve(request.url ?? "/").then(
          ([type, body]) => {
            response.writeHead(200, {
              "content-type": type,
              "cross-origin-opener-policy": "same-origin",
              "cross-origin-embedder-policy": "require-corp",
            });
            response.end(body);
          },
          () => response.writeHead(404).end(),
        );
      });
      await new Promise<void>((resolve) => {
        server.listen(0, "127.0.0.1", resolve);
      });
      origin = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
      context = await chromium.launchPersistentContext(join(folder, "profile"), {
        executablePath,
        headless: true,
        args: [
          "--no-sandbox",
          "--disable-gpu",
          "--disable-quic",
          "--no-first-run",
          "--disable-background-networking",
          "--disable-component-update",
          "--disable-sync",
        ],
      });
    });

    async function serve(url: string): Promise<readonly [string, Uint8Array | string]> {
      const name = basename(new URL(url, "http://localhost").pathname);
      if (name === "") return ["text/html", '<!doctype html><script type="module" src="page.js"></script>'];
      if (name === "step.onnx") return ["application/octet-stream", graph];
      const type = name.endsWith(".wasm") ? "application/wasm" : "text/javascript";
      const place = name.startsWith("ort-wasm") ? runtimeFolder : join(folder, "bundle");
      return [type, await readFile(join(place, name))];
    }

    afterAll(async () => {
      await context?.close();
      server?.close();
      await rm(folder, { recursive: true, force: true });
    });

    async function pageSteps(options: SessionOptions): Promise<PageResult> {
      const page = await context.newPage();
      await page.goto(origin);
      await page.waitForFunction(() => "trainThreeSteps" in globalThis);
      const result = await page.evaluate(`trainThreeSteps(${JSON.stringify(options)})`);
      await page.close();
      return result as PageResult;
    }

    for (const threads of [1, 2]) {
      test(`of the same bytes equals Node.js in loss, gradient norm and parameters, on ${threads} threads`, async () => {
        const [expected, got] = [await nodeSteps(), await pageSteps({ threads })];
        expect(got).toMatchObject({ runtime: "onnxruntime-web", isolated: true, threads, sha256 });
        expected.forEach((results, step) => {
          for (const [name, { data }] of results) {
            const error = distance(got.steps[step]?.[name] ?? [], data);
            expect(error, `${name} after step ${step + 1}`).toBeLessThanOrEqual(
              step === 0 ? ONE_STEP : LATER_STEPS,
            );
          }
        });
      });
    }
  },
);

test("the step in Node.js equals the float64 evaluator, clips, and learns", async () => {
  const steps = await nodeSteps();
  const outputs = [...loraStepOutputs()];
  const values = outputs.map(([, value]) => value);
  const feeds = new Map(
    [...loraFeeds()].map(([name, value]) => [name, array64(value.shape, Array.from(value.data, Number))]),
  );
  const exact = evaluate(values, [...inputsOf(values).values()], feeds);
  outputs.forEach(([name], i) => {
    expect(distance(steps[0]?.get(name)?.data ?? [], exact[i]?.data ?? []), name).toBeLessThanOrEqual(
      FLOAT32,
    );
  });
  const [losses, norms] = ["loss", "norm"].map((name) =>
    steps.map((results) => Number(results.get(name)?.data[0])),
  );
  expect(norms?.[0]).toBeGreaterThan(1);
  expect(losses?.[2]).toBeLessThan(losses?.[0] ?? 0);
});
