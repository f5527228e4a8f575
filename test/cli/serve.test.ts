import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, afterEach, beforeAll, expect, it } from "vitest";
import { loadJob } from "../../src/job/load.node.ts";
import { runJob } from "../../src/job/run.ts";
import { freePort, type Program, type Programs, programsIn } from "./program.ts";

const base = fileURLToPath(new URL("../../examples/presidents/base", import.meta.url));
const silos = ["bern", "lima"] as const;
let folder = "";
let programs: Programs;

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "tributary-silos-"));
  programs = programsIn(folder);
  for (const [i, silo] of silos.entries()) {
    const rows = Array.from({ length: 4 + 3 * i }, (_, n) => ({
      text: `Report ${n} of ${silo} to the people of the United States, in year ${1950 + n}.`,
    }));
    await writeFile(join(folder, `${silo}.jsonl`), rows.map((row) => `${JSON.stringify(row)}\n`).join(""));
  }
});
afterEach(() => programs.close());
afterAll(() => rm(folder, { recursive: true }));

interface JobOptions {
  readonly rounds?: number;
  readonly learningRate?: string;
}

/** Writes a job over the two silos, its run in a folder of its own. */
async function writeJob(name: string, { rounds = 1, learningRate = "1e-2" }: JobOptions = {}): Promise<void> {
  await writeFile(
    join(folder, `${name}.yaml`),
    `schema: 1
name: ${name}
model: ${base}
data: { path: [${silos.map((silo) => `${silo}.jsonl`).join(", ")}], maxLength: 32, splits: { validation: 0 } }
partition: { kind: files }
adapter: { kind: lora, rank: 2, target: [q_proj] }
strategy: { name: fedit }
local: { optimizer: { name: adamw, learningRate: ${learningRate} }, steps: 3, batchSize: 2 }
rounds: ${rounds}
quorum: ${silos.length}
workers: 1
threads: 1
out: ${name}
`,
  );
}

const read = (...path: readonly string[]): Promise<string> => readFile(join(folder, ...path), "utf8");

/** The one-time tokens of a server, once it says where they are. */
async function tokensOf(server: Program, home: string): Promise<string[]> {
  await server.heard(/one-time tokens are in/);
  return (await read(home, "tokens.txt")).trim().split("\n");
}

const joining = (url: string, silo: string, ...more: readonly string[]): string[] =>
  `join ${url} --data ${silo}.jsonl --name ${silo} --folder silo-${silo}`.split(" ").concat(more);

/** Names of the journal's events and of what only a server tells. */
const logged =
  /^(run-created|round-opened|assignment-leased|assignment-ended|update-accepted|update-rejected|round-closed|checkpoint-committed|round-evaluated|round-failed|run-ended|run-paused|run-stopped|run-resumed|client-revoked|client-joined|listening|run-failed|waiting|request-refused|server-error)$/;

it("a coordinator and a silo that SIGTERM stops say how to go on, and the same commands go on to the same bytes", async () => {
  await writeJob("parted", { rounds: 3 });
  const { job } = await loadJob({ path: join(folder, "parted.yaml"), cwd: folder });
  await runJob({ ...job, out: join(folder, "whole") });

  const port = await freePort();
  const url = `http://127.0.0.1:${port}`;
  const serving = ["serve", "parted.yaml", "--clients", "2", "--port", String(port), "--log", "log.jsonl"];
  const first = programs.start(...serving);
  const tokens = await tokensOf(first, "parted");
  const bern = programs.start(...joining(url, "bern", "--token", tokens[0] ?? "", "--yes"));
  const lima = programs.start(...joining(url, "lima", "--token", tokens[1] ?? "", "--yes"));
  await first.heard(/^round 2 is open for 2 silos, quorum 2$/m);
  first.kill();
  const stopped = await first.ended;
  expect(stopped).toMatchObject({ code: 130, signal: null });
  expect(stopped.err).toBe(
    "stopping; run the same command to go on\nstopped; everything is kept, run the same command to go on\n",
  );

  // While one silo is held, the run cannot end before the other is back.
  bern.kill("SIGSTOP");
  const second = programs.start(...serving);
  await second.heard(/^going on (in round 2|after round 1)/m);
  lima.kill();
  const left = await lima.ended;
  expect(left).toMatchObject({ code: 130, signal: null });
  expect(left.err).toBe("stopping; run the same command to go on\nstopped; run the same command to go on\n");
  // No token and no --yes: it is enrolled, and what leaves is agreed to.
  const again = programs.start(...joining(url, "lima"));
  await again.heard(/^in run parted/m);
  bern.kill("SIGCONT");
  const ends = await Promise.all([second, bern, again].map(({ ended }) => ended));
  expect(ends.map(({ code, err }) => ({ code, err }))).toEqual(ends.map(() => ({ code: 0, err: "" })));
  expect(ends[2]?.out).not.toContain("What leaves this machine:");
  const adapter = ["adapter", "adapter_model.safetensors"];
  expect(
    (await readFile(join(folder, "parted", ...adapter))).equals(
      await readFile(join(folder, "whole", ...adapter)),
    ),
  ).toBe(true);

  const text = await read("log.jsonl");
  const types = text
    .trimEnd()
    .split("\n")
    .map((line) => String(JSON.parse(line).type));
  expect(types.filter((type) => !logged.test(type))).toEqual([]);
  for (const [type, count] of [
    ["listening", 2],
    ["run-created", 1],
    ["checkpoint-committed", 4],
    ["run-ended", 1],
  ] as const)
    expect(
      types.filter((one) => one === type),
      type,
    ).toHaveLength(count);
  const secrets = [await read("parted", "operator.token"), ...tokens];
  for (const silo of silos)
    secrets.push(...(await read(`silo-${silo}`, "key.pem")).trim().split("\n").slice(1, -1));
  expect(secrets.length).toBeGreaterThan(4);
  for (const secret of secrets) expect(text.includes(secret.trim())).toBe(false);
}, 120_000);

it("of two runs in one server one fails: its silo hears why and waits, the other run ends, and the server's exit code says so", async () => {
  await writeJob("sound");
  await writeJob("broken", { learningRate: "1e38" });
  const server = programs.start(
    ..."serve sound.yaml broken.yaml --home server --clients 2 --port 0 --log both.jsonl --grace 0".split(
      " ",
    ),
  );
  const [token = "", other = ""] = await tokensOf(server, "server");
  const { url } = JSON.parse(await read("server", "server.json")) as { readonly url: string };
  const inRun = (run: string, silo: string, ...more: readonly string[]): Program =>
    programs.start(...joining(url, silo, "--run", run, "--folder", `both-${silo}`, "--yes", ...more));
  const failing = [inRun("broken", "bern", "--token", token), inRun("broken", "lima", "--token", other)];
  await server.heard(/^broken: stopped: /m);

  const ready = await fetch(`${url}/readyz`);
  expect(ready.status).toBe(503);
  expect(await ready.json()).toEqual({
    ok: false,
    problems: [expect.stringMatching(/^run broken has failed: round 1 failed/)],
  });
  expect((await fetch(`${url}/healthz`)).status).toBe(200);
  const status = programs.start("status", "server");
  expect((await status.ended).out).toMatch(/^broken: failed, 0 of 1 rounds.*\n {2}round 1 failed/m);

  const sound = silos.map((silo) => inRun("sound", silo));
  const ends = await Promise.all(sound.map(({ ended }) => ended));
  expect(ends.map(({ code, err }) => ({ code, err }))).toEqual(ends.map(() => ({ code: 0, err: "" })));
  // Silos of a run that has failed ask again now and then, not at once.
  const asked = /route="\/v1\/runs\/{run}\/next",status="200"} (\d+)/.exec(
    await (await fetch(`${url}/metrics`)).text(),
  );
  expect(Number(asked?.[1])).toBeLessThan(30);
  const end = await server.ended;
  expect(end.code).toBe(1);
  expect(end.err).toMatch(/^error: 1 of 2 runs failed\nbroken: round 1 failed 3 times.*Start it again.*\n$/);
  expect(end.out).toMatch(/^sound: done after 1 round$/m);
  await Promise.all(failing.map((silo) => silo.heard(/^round 1 failed 3 times.*loss-not-finite/m)));
}, 120_000);

/** The blocks of a document in one notation. */
function blocks(document: string, notation: string): string[] {
  return [...document.matchAll(new RegExp(`^\`\`\`${notation}\\n([\\s\\S]*?)^\`\`\``, "gm"))].map(
    ([, block = ""]) => block,
  );
}

it("a silo that nobody can ask, or whose policy a run breaks, sends nothing; with --yes it takes part", async () => {
  await writeJob("asked");
  const document = await readFile(new URL("../../docs/silos.md", import.meta.url), "utf8");
  await writeFile(join(folder, "policy.yaml"), blocks(document, "yaml")[0] ?? "");
  await writeFile(join(folder, "short.yaml"), "schema: 1\nstrategies: [ffa-lora]\nmaxRounds: 5\n");
  const server = programs.start(..."serve asked.yaml --clients 2 --port 0 --out asked".split(" "));
  const [token = "", other = ""] = await tokensOf(server, "asked");
  const { url } = JSON.parse(await read("asked", "server.json")) as { readonly url: string };
  const silo = (name: string, ...more: readonly string[]): Program =>
    programs.start(...joining(url, name, "--folder", `asked-${name}`, ...more));

  const refused = await Promise.all([silo("lima"), silo("bern", "--token", token)].map(({ ended }) => ended));
  expect(refused.map(({ code, signal }) => ({ code, signal }))).toEqual(
    refused.map(() => ({ code: 2, signal: null })),
  );
  expect(refused[0]?.err).toBe(
    `error: ${join(folder, "asked-lima")} is not enrolled at ${url} yet; give the one-time token of its operator with --token\n`,
  );
  expect(refused[1]?.out).toMatch(/What leaves this machine:[\s\S]*The data stay here\./);
  expect(refused[1]?.err).toMatch(/^error: join: nobody can be asked here .* expected --yes/);

  // It is enrolled by now; each of these ends before it joins.
  const against = await Promise.all(
    [
      silo("bern", "--yes", "--policy", "short.yaml"),
      silo("lima", "--token", other, "--yes", "--policy", "policy.yaml"),
    ].map(({ ended }) => ended),
  );
  expect(against.map(({ code }) => code)).toEqual([2, 2]);
  expect(against[0]?.err).toBe(
    "error: run asked breaks the policy of this silo: strategies does not list fedit\n",
  );
  for (const part of [
    /jobs does not list [0-9a-f]{64}/,
    /shareExampleCounts is false/,
    /minNoise is 1 and the job adds no noise/,
  ])
    expect(against[1]?.err).toMatch(part);
  expect(against[1]?.err).not.toMatch(/strategies|maxRounds|maxUpdateBytes/);
  await writeFile(join(folder, "wrong.jsonl"), '{"txt":"a"}\n{"txt":"b"}\n');
  const wrong = await silo("bern", "--yes", "--data", "wrong.jsonl").ended;
  expect(wrong.code).toBe(2);
  expect(wrong.err).toMatch(
    /wrong\.jsonl is not in the form that the run's job reads \(causal-lm, data {.*}\): .*the fields txt.*The job is the coordinator's/,
  );
  const status = await programs.start("status", "asked", "--json").ended;
  expect(JSON.parse(status.out).runs[0]).toMatchObject({ phase: "gathering", clients: { joined: 0, of: 2 } });

  const bern = silo("bern", "--yes");
  await bern.heard(/^in run asked/m);
  const twice = await silo("bern").ended;
  expect(twice.code).toBe(2);
  expect(twice.err).toMatch(/^error: .*asked-bern\/asked is in use by process \d+ .*; wait for it/);
  const both = [bern, silo("lima", "--yes")];
  const ends = await Promise.all([...both, server].map(({ ended }) => ended));
  expect(ends.map(({ code, err }) => ({ code, err }))).toEqual(ends.map(() => ({ code: 0, err: "" })));
}, 120_000);
