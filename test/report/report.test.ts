import { existsSync } from "node:fs";
import { mkdir, mkdtemp, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { basename, join } from "node:path";
import { fileURLToPath } from "node:url";
import { type Browser, chromium } from "playwright-core";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { lastStep } from "../../src/formats/tfevents.ts";
import { loadJob } from "../../src/job/load.node.ts";
import { runJob } from "../../src/job/run.ts";
import { draw } from "../../src/report/draw.ts";
import { writeReport } from "../../src/report/report.node.ts";
import { every, hostile } from "./charts.ts";
import { round, writeRunFolder, writeSweepFolder } from "./folders.ts";

let root = "";
beforeAll(async () => {
  root = await mkdtemp(join(tmpdir(), "report-"));
});
afterAll(() => rm(root, { recursive: true }));

/** Runs two rounds of a small job and reports them. */
async function reported(
  name: string,
  strategy: string,
): Promise<{ readonly folder: string; readonly html: string; readonly plots: readonly string[] }> {
  const base = fileURLToPath(new URL("../../examples/presidents/base", import.meta.url));
  const rows = Array.from({ length: 24 }, (_, i) => ({
    text: `The ${i} people of the United States.`,
    kind: i % 2 ? "odd" : "even",
  }));
  await writeFile(join(root, "train.jsonl"), rows.map((row) => `${JSON.stringify(row)}\n`).join(""));
  const job = `schema: 1
model: ${JSON.stringify(base)}
data: { path: train.jsonl, maxLength: 32 }
partition: { kind: shards, field: kind, clients: 2, shardsPerClient: 1 }
adapter: { kind: lora, rank: 2, target: [q_proj] }
strategy: { name: ${strategy} }
local: { optimizer: { name: adamw, learningRate: 1e-2 }, steps: 1, batchSize: 2 }
rounds: 2
evaluation: { maxExamples: 2, every: 1 }
workers: 1
out: ${name}
`;
  await writeFile(join(root, `${name}.yaml`), job);
  const folder = join(root, name);
  await runJob((await loadJob({ path: join(root, `${name}.yaml`), cwd: root })).job);
  const { path, plots } = await writeReport(folder);
  return { folder, html: await readFile(path, "utf8"), plots: plots.map((plot) => basename(plot, ".svg")) };
}

describe("the report of a run", () => {
  it("has all plots, who holds which labels and the rank, which a changed base raises above that of the adapter", async () => {
    const { folder, html, plots } = await reported("fedex", "fedex-lora");
    for (const name of [
      "loss",
      "held-out-perplexity",
      "traffic-held-out-loss",
      "holdings",
      "labels",
      "client-loss",
      "deviation",
      "rank",
      "seconds",
    ])
      expect(plots).toContain(name);
    const header = JSON.parse(await readFile(join(folder, "header.json"), "utf8"));
    const counts = header.silos.map(({ labels }: { labels: object }) => labels);
    expect(counts).toHaveLength(2);
    const all = counts.flatMap((labels: object) => Object.values(labels));
    expect(all.reduce((a: number, b: number) => a + b, 0)).toBe(
      header.silos[0].examples + header.silos[1].examples,
    );
    const [, rank] = /In the end (\d+) and/.exec(html) ?? [];
    expect(Number(rank)).toBeGreaterThan(2);
    const [events = ""] = await readdir(join(folder, "tensorboard"));
    expect(lastStep(await readFile(join(folder, "tensorboard", events)))).toBe(2);
    expect(html).toContain("tributary run job.resolved.yaml --out again");
  }, 60_000);

  it("of a strategy with personal models says why there is no rank", async () => {
    const { html, plots } = await reported("personal", "fedsa-lora");
    expect(plots).not.toContain("rank");
    expect(html).toContain("every client has a model of its own");
  }, 60_000);

  it("lists the clients that were dropped, with reasons", async () => {
    const rejected = [{ client: hostile, code: "norm-too-large", reason: "12 is more than <10>" }] as never;
    await writeRunFolder(join(root, "dropped"), { rounds: [round(1, { rejected, failedAttempts: 1 })] });
    const { path } = await writeReport(join(root, "dropped"));
    const html = await readFile(path, "utf8");
    expect(html).toContain("12 is more than &lt;10&gt;");
    expect(html).toContain("Round 1 needed 1 further attempt.");
  });

  it("goes to the file that is asked for, its plots beside it", async () => {
    await writeRunFolder(join(root, "elsewhere"), { rounds: [round(1)] });
    const { path, plots } = await writeReport(join(root, "elsewhere"), { out: join(root, "there.html") });
    expect(path).toBe(join(root, "there.html"));
    expect(plots).toContain(join(root, "there-plots", "loss.svg"));
    expect(await readdir(join(root, "elsewhere"))).not.toContain("report");
  });

  it("does without header and summary", async () => {
    await writeRunFolder(join(root, "old"), { rounds: [round(1)], header: null, before: null });
    const { plots } = await writeReport(join(root, "old"));
    expect(plots.map((plot) => basename(plot))).toContain("holdings.svg");
  });

  it.each([
    ["nothing", async () => {}, "missing-file", "nothing: no such folder"],
    ["emptiness", (folder: string) => mkdir(folder), "missing-file", "is no run folder"],
    [
      "no-rounds",
      (folder: string) => writeRunFolder(folder, { rounds: [], job: { rounds: 1 } }),
      "missing-file",
      "has no round in rounds.jsonl yet",
    ],
    [
      "no-manifest",
      async (folder: string) => {
        await writeRunFolder(folder, { rounds: [round(1)] });
        await rm(join(folder, "manifest.json"));
      },
      "missing-file",
      "has no manifest.json",
    ],
    [
      "bad-rounds",
      async (folder: string) => {
        await writeRunFolder(folder, { rounds: [round(1)] });
        await writeFile(join(folder, "rounds.jsonl"), '{"number":1}\n');
      },
      "run-damaged",
      "line 1 is no record of a round",
    ],
    [
      "bad-sweep",
      async (folder: string) => {
        await writeSweepFolder(folder, { methods: [{ label: "m", accuracies: [1], bytes: 1 }] });
        await writeFile(join(folder, "sweep.json"), '{"name":"x"}');
      },
      "run-damaged",
      "it has no methods, partitions, seeds, runs, rows, table",
    ],
  ])("of a folder with %s is a plain error", async (name, make, code, message) => {
    await make(join(root, name));
    const failure = await writeReport(join(root, name)).catch((error: unknown) => error);
    expect(failure).toMatchObject({ code, message: expect.stringContaining(message) });
  });
});

/** The pages whose every word is hostile. */
async function hostilePages(): Promise<readonly string[]> {
  const accepted = [{ client: hostile, numExamples: 3, norm: 1, loss: 1, metrics: {}, bytes: 1 }];
  const evaluation = { loss: 1, [hostile]: 2 };
  const measurements = { [`relativeDeviation/${hostile}`]: 1 };
  const silos = [{ name: hostile, examples: 3, labels: { [hostile]: 2, ["__proto__"]: 1 } }];
  const rounds = [1, 2].map((number) => round(number, { accepted, evaluation, measurements }));
  const header = { silos, notes: [hostile], adapter: hostile, strategy: { name: hostile, paper: hostile } };
  await writeRunFolder(join(root, "hostile"), {
    rounds,
    header,
    job: { name: "x", data: { path: "a<b>.jsonl" } },
  });
  await writeSweepFolder(join(root, "hostile-sweep"), {
    methods: [1, 2].map((bytes) => ({ label: `${hostile}${bytes}`, accuracies: [0.5, 1], bytes })),
    partitions: [hostile, "other"],
    failure: hostile,
  });
  return [
    (await writeReport(join(root, "hostile"))).path,
    (await writeReport(join(root, "hostile-sweep"))).path,
  ];
}

describe("a page", () => {
  it("holds untrusted text as text and reaches for nothing elsewhere", async () => {
    for (const path of await hostilePages()) {
      const html = await readFile(path, "utf8");
      expect(html).toContain("&lt;script&gt;");
      expect(html).not.toContain("<script");
      expect(html).not.toMatch(
        /<(?:link|img|iframe|object|embed|base|a)\b|\b(?:src|href|action)=|@import|url\((?!#)/i,
      );
      expect(html).toContain(`content="default-src 'none'; style-src 'unsafe-inline'"`);
      const ids = [...html.matchAll(/ id="([^"]*)"/g)].map(([, id]) => id);
      expect(new Set(ids).size).toBe(ids.length);
    }
  });
});

const executablePath = "/usr/bin/chromium";

describe.skipIf(!existsSync(executablePath))(
  `in Chromium${existsSync(executablePath) ? "" : ` (skipped: ${executablePath} is absent)`}`,
  () => {
    let browser: Browser;
    beforeAll(async () => {
      browser = await chromium.launch({ executablePath, args: ["--no-sandbox"] });
    }, 60_000);
    afterAll(() => browser.close());

    it("every plot is well-formed XML", async () => {
      const page = await browser.newPage();
      const texts = every.map((chart) => draw({ name: "plot", title: hostile, text: hostile, chart }));
      const wrong = await page.evaluate(
        (all) =>
          all.map(
            (text) =>
              new DOMParser().parseFromString(text, "image/svg+xml").querySelector("parsererror")
                ?.textContent ?? "",
          ),
        texts,
      );
      expect(wrong).toEqual(texts.map(() => ""));
    });

    it("pages fit a phone and a desk, ask for nothing, and their letters stay within the plots", async () => {
      for (const path of await hostilePages()) {
        for (const width of [390, 1200]) {
          const page = await browser.newPage({ viewport: { width, height: 800 } });
          const asked: string[] = [];
          page.on("request", (request) => asked.push(request.url()));
          await page.goto(`file://${path}`);
          expect(asked).toEqual([`file://${path}`]);
          const { scroll, outside } = await page.evaluate(() => ({
            scroll: document.documentElement.scrollWidth,
            outside: [...document.querySelectorAll("svg")].flatMap((svg) => {
              const frame = svg.getBoundingClientRect();
              return [...svg.querySelectorAll("text")]
                .map((text) => ({ text: text.textContent, box: text.getBoundingClientRect() }))
                .filter(
                  ({ box }) =>
                    box.left < frame.left - 1 || box.right > frame.right + 1 || box.bottom > frame.bottom + 1,
                )
                .map(({ text }) => `${svg.querySelector("title")?.textContent}: ${text}`);
            }),
          }));
          expect({ scroll, outside }).toEqual({ scroll: width, outside: [] });
          await page.close();
        }
      }
    }, 60_000);
  },
);
