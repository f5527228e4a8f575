import { type ChildProcess, execFileSync, spawn, spawnSync } from "node:child_process";
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, symlinkSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, expect, it } from "vitest";

const root = fileURLToPath(new URL("../..", import.meta.url));
const workspace = mkdtempSync(join(tmpdir(), "tributary-newcomer-"));
const started: ChildProcess[] = [];
afterAll(() => {
  for (const { pid, exitCode } of started) if (pid !== undefined && exitCode === null) process.kill(-pid);
  rmSync(workspace, { recursive: true, force: true });
});

const python = process.env.TRIBUTARY_PYTHON ?? "python3";
const able = spawnSync(python, ["-c", "import peft, transformers, torch"]).status === 0;

/** The blocks of commands of one section of the README. */
function blocks(section: string): string[] {
  const readme = readFileSync(join(root, "README.md"), "utf8");
  const text = readme.split(`## ${section}\n`)[1]?.split("\n## ")[0] ?? "";
  return [...text.matchAll(/^```\n([\s\S]*?)^```/gm)].map(([, block = ""]) => block);
}

/** Runs commands as a person pastes them, in a process group of its own. */
function pasted(commands: string): { readonly output: () => string; readonly ended: Promise<number | null> } {
  const child = spawn("bash", ["-e", "-c", commands], { cwd: workspace, detached: true });
  started.push(child);
  let output = "";
  child.stdout.on("data", (piece) => (output += piece));
  child.stderr.on("data", (piece) => (output += piece));
  return {
    output: () => output,
    ended: new Promise((resolve) => child.on("close", (code) => resolve(code))),
  };
}

it("the README's way from one coordinator and three silos to an adapter works as it is written", async () => {
  // Everything but the folder of runs is the repository's own.
  for (const name of readdirSync(root))
    if (name !== "runs") symlinkSync(join(root, name), join(workspace, name));
  const [first = "", joins = "", shown = ""] = blocks("Silos on several machines");
  const began = performance.now();
  const server = pasted(first);
  const tokens = join(workspace, "runs/three/tokens.txt");
  let over = false;
  void server.ended.then(() => {
    over = true;
  });
  for (let tries = 0; !existsSync(tokens) && !over && tries < 1200; tries++)
    await new Promise((resolve) => setTimeout(resolve, 50));
  expect(existsSync(tokens), server.output()).toBe(true);
  const silos = joins
    .trim()
    .split("\n")
    .map((line) => pasted(line));
  expect(silos).toHaveLength(3);
  while (!server.output().includes("round 1 is done") && !over)
    await new Promise((resolve) => setTimeout(resolve, 50));
  const seconds = (performance.now() - began) / 1000;
  const codes = await Promise.all([server.ended, ...silos.map(({ ended }) => ended)]);
  expect(codes, [server, ...silos].map(({ output }) => output()).join("\n")).toEqual([0, 0, 0, 0]);
  for (const line of shown
    .trim()
    .split("\n")
    .filter((text) => !text.includes("has joined")))
    expect(server.output()).toContain(line);
  for (const { output } of silos) expect(output()).toContain("What leaves this machine:");
  // Generous: other tests run beside it.
  expect(seconds).toBeLessThan(120);
  expect(existsSync(join(workspace, "runs/three/adapter/adapter_config.json"))).toBe(true);
  if (able) {
    const load = [
      "import sys, torch, transformers, peft",
      "base = transformers.AutoModelForCausalLM.from_pretrained(sys.argv[1])",
      "model = peft.PeftModel.from_pretrained(base, sys.argv[2])",
      "print(sum(float(p.abs().sum()) > 0 for n, p in model.named_parameters() if 'lora_B' in n))",
    ].join("\n");
    const trained = execFileSync(python, [
      "-c",
      load,
      join(root, "examples/presidents/base"),
      join(workspace, "runs/three/adapter"),
    ]);
    expect(Number(String(trained))).toBeGreaterThan(0);
  }
}, 240_000);
