import { execFile } from "node:child_process";
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, describe, expect, it } from "vitest";

/** How a command of the documents is known to work. */
type Proof =
  /** It runs here, ends with exit code 0 and prints this; `extra` arguments make it short or harmless. */
  | { readonly prints: RegExp; readonly extra?: string; readonly filled?: readonly [string, string] }
  /** This test file does what it does. */
  | { readonly covered: string }
  /** It runs tests, those of the paths that it names or all. */
  | "tests";

const short = "--maxLength 64 --steps 1 --batchSize 2 --workers 1";

/** Every command, in an order in which they can run: some read what others wrote. */
const proofs: Readonly<Record<string, Proof>> = {
  "npm install": { prints: /up to date|added|changed/, extra: "--dry-run --offline" },
  "npm start": { prints: /^adapter: /m, extra: `-- --quick --out runs/start ${short}` },
  "npm test": "tests",
  "npm run verify": "tests",
  "npm run check": { covered: "test/package/checks.test.ts" },
  "npm run lint": { covered: "test/package/checks.test.ts" },
  "npm run shape": { covered: "test/package/checks.test.ts" },
  "npm run package": { covered: "test/package/package.test.ts" },
  "npm run format": { prints: /--write/, extra: "-- --help" },
  "npm run schema": { covered: "test/job/schema.test.ts" },
  "npx tributary serve job.yaml --clients 3": { covered: "test/job/serve.test.ts" },
  "npx tributary join http://127.0.0.1:7788 --data mine.jsonl --token TOKEN": {
    covered: "test/job/serve.test.ts",
  },
  "npx tributary serve a.yaml b.yaml --home server": { covered: "test/job/serve-several.test.ts" },
  "npx tributary status SERVER": { covered: "test/cli/operate.test.ts" },
  "npx tributary clients SERVER": { covered: "test/cli/operate.test.ts" },
  "npx tributary pause SERVER": { covered: "test/cli/operate.test.ts" },
  "npx tributary resume SERVER": { covered: "test/cli/operate.test.ts" },
  "npx tributary stop SERVER": { covered: "test/cli/operate.test.ts" },
  'npx tributary kick SERVER bern --reason "sends noise"': { covered: "test/cli/operate.test.ts" },
  "npx tributary invite SERVER --count 2": { covered: "test/cli/operate.test.ts" },
  "npx tributary serve examples/presidents/job.yaml --clients 3 --rounds 2 --out runs/three": {
    covered: "test/docs/newcomer.test.ts",
  },
  'npx tributary join http://127.0.0.1:7788 --data runs/truman.jsonl --name truman --folder runs/silo-1 --token "$(sed -n 1p runs/three/tokens.txt)" --yes':
    {
      covered: "test/docs/newcomer.test.ts",
    },
  'npx tributary join http://127.0.0.1:7788 --data runs/kennedy.jsonl --name kennedy --folder runs/silo-2 --token "$(sed -n 2p runs/three/tokens.txt)" --yes':
    {
      covered: "test/docs/newcomer.test.ts",
    },
  'npx tributary join http://127.0.0.1:7788 --data runs/obama.jsonl --name obama --folder runs/silo-3 --token "$(sed -n 3p runs/three/tokens.txt)" --yes':
    {
      covered: "test/docs/newcomer.test.ts",
    },
  "npx tributary status runs/three": { covered: "test/cli/operate.test.ts" },
  "npx tributary run examples/medquad-smollm2/answers.yaml": {
    covered: "test/presets/federated.test.ts",
  },
  "npx tributary eval runs/medquad-answers --split test --max-examples 128 --out answers.jsonl": {
    covered: "test/presets/federated.test.ts",
  },
  "npx tributary run examples/gsm8k-smollm2/job.yaml": {
    covered: "test/presets/federated.test.ts",
  },
  "npx tributary run examples/gsm8k-smollm2/job.yaml --model FILE.gguf --data train.jsonl.gz --data.splits.test test.jsonl.gz":
    {
      covered: "test/presets/federated.test.ts",
    },
  "npx tributary eval runs/gsm8k-smollm2 --split test --max-examples 192 --out answers.jsonl": {
    covered: "test/presets/federated.test.ts",
  },
  "npm run faults -- --seeds 1000": { covered: "test/simulation/first-seeds.test.ts" },
  "npm run faults -- --soak 10000": { covered: "test/processes/campaign.test.ts" },
  "npm run faults -- --campaign kills --seeds 20": { covered: "test/processes/campaign.test.ts" },
  "npm run faults -- --seed 1234 --trace": { covered: "test/simulation/simulation.test.ts" },
  "npm run bench -- exchange": { covered: "test/bench/exchange.test.ts" },
  "npm run parity -- DIR": { prints: /^passed {2}optim\/schedules#0 linear/m, filled: ["DIR", "goldens"] },
  "npm run bench -- step": {
    prints: /"bench":"step"/,
    extra: "--model minilm --batch 2 --length 16 --steps 1",
  },
  "npm run bench -- aggregate": {
    prints: /"bench":"aggregate","method":"flexlora"/,
    extra: "--method flexlora --layers 1 --clients 2 --rank 2 --dense 32",
  },
  "npm run bench -- step --model smollm2 --batch 4 --length 512 --threads 1 --steps 2 --recompute layers": {
    covered: "test/bench/bench.test.ts",
  },
  "npm run bench -- step --model presidents --threads 1 --recompute cheap": {
    covered: "test/bench/bench.test.ts",
  },
  'npm run bench -- generate --model FILE.gguf --precision 4bit --tokens 64 --beside "python bench/peers/llama_cpp.py FILE.gguf 64"':
    { covered: "test/bench/bench.test.ts" },
  "npm run bench -- round": { prints: /"bench":"round"/, extra: "--clients 20" },
  'npm run bench -- step --model minilm --repeat 3 --beside "python hf_minilm.py"': {
    covered: "test/bench/bench.test.ts",
  },
  'npm run bench -- step --model smollm2 --repeat 3 --beside "python hf_smollm2.py DIR train"': {
    covered: "test/bench/bench.test.ts",
  },
  'npm run bench -- mixed --folder DIR --data train.jsonl.gz --repeat 3 --beside "python bench/peers/hf_mixed.py DIR train.jsonl.gz"':
    { covered: "test/bench/bench.test.ts" },
  "npm run bench -- mixed --folder DIR --data medquad.jsonl.gz --batch 4 --examples 64 --max-length 512": {
    covered: "test/bench/bench.test.ts",
  },
  ...Object.fromEntries(
    ["deviation", "rank", "gradient", "galore"].map((name) => [
      `npm run analyses -- ${name}`,
      { covered: "test/analyses/analyses.test.ts" },
    ]),
  ),
  "npm run fuzz -- --times 10000": { covered: "test/formats/gguf.test.ts" },
  "npm run kills -- --times 50": { covered: "test/e2e/kills.test.ts" },
  "npx tributary verify FOLDER": { covered: "test/cli/cli.test.ts" },
  "npx vitest run test/exports --update": "tests",
  "npx vitest run test/contracts test/strategies": "tests",
  "npx vitest run test/models": "tests",
  "npx vitest run test/graph test/runtime": "tests",
  "npx vitest run test/optim": "tests",
  "npx vitest run test/storage": "tests",
  "npx tsx --conditions=@tributary/source scripts/presidents/corpus.ts": {
    covered: "test/data/presidents.test.ts",
  },
  "npx tsx --conditions=@tributary/source scripts/presidents/tokenizer.ts": {
    covered: "test/data/presidents.test.ts",
  },
  "npx tsx --conditions=@tributary/source scripts/presidents/pretrain.ts --epochs 9": {
    covered: "test/models/base.test.ts",
  },

  // Jobs over models and data that a reader has to fetch.
  "npx tributary run examples/flower-sst2/job.yaml --model DIR --adapter.from DIR/lora-init --data train.jsonl.gz":
    { covered: "test/e2e/flower.test.ts" },
  "npx tributary run examples/sst2-minilm/job.yaml": { covered: "test/job/examples.test.ts" },
  "npx tributary run examples/sst2-minilm/job.yaml --model DIR --data train.jsonl.gz --data.splits.validation validation.jsonl.gz":
    { covered: "test/job/examples.test.ts" },
  "npx tributary run examples/cola-minilm/job.yaml": { covered: "test/job/examples.test.ts" },
  "npx tributary run examples/cola-minilm/job.yaml --model DIR --data train.jsonl.gz --data.splits.validation validation.jsonl.gz":
    { covered: "test/job/examples.test.ts" },
  "npx tributary sweep examples/cola-minilm/methods.yaml --into docs/results.md": {
    covered: "test/sweep/plan.test.ts",
  },
  "npx tributary sweep examples/cola-minilm/dirichlet.yaml --into docs/results.md": {
    covered: "test/sweep/plan.test.ts",
  },
  "npx tributary run examples/medquad-smollm2/job.yaml": { covered: "test/job/examples.test.ts" },
  "npx tributary run examples/medquad-smollm2/job.yaml --model DIR --data medquad.jsonl.gz": {
    covered: "test/job/examples.test.ts",
  },

  "npx tributary run examples/brain-mri/pretrain.yaml": { covered: "test/job/examples.test.ts" },
  "npx tributary eval runs/brain-mri-pretrain --tuned": { covered: "test/presets/images.test.ts" },
  "npx tributary export merged runs/brain-mri-pretrain --out examples/models/vit-fashion-mnist": {
    covered: "test/presets/images.test.ts",
  },
  "npx tributary run examples/brain-mri/job.yaml": { covered: "test/job/examples.test.ts" },
  "npx tributary eval runs/brain-mri --split test": { covered: "test/presets/images.test.ts" },
  "npx tributary sweep examples/brain-mri/starts.yaml --into docs/results.md": {
    covered: "test/sweep/plan.test.ts",
  },

  "npx tributary data presets": { prints: /^gsm8k +causal-lm/m },
  "npx tributary data presets gsm8k": { prints: /^license +MIT$/m },
  "npx tributary inspect HuggingFaceTB/SmolLM2-135M-Instruct": { covered: "test/hub/job.test.ts" },
  "npx tributary run job.yaml --model HuggingFaceTB/SmolLM2-135M-Instruct": {
    covered: "test/hub/job.test.ts",
  },

  "npx tributary methods": { prints: /^fedit +L\(r\) \+ H/m },
  "npx tributary methods fedex-lora": { prints: /^fedex-lora: FedEx-LoRA$/m },
  "npx tributary methods --cost examples/presidents/job.yaml --rank 8 --target q_proj,v_proj --clientsPerRound 4":
    { prints: /^fedex-lora +410 kB +102 kB/m },
  "npx tributary sweep examples/presidents/sweep.yaml": { covered: "test/sweep/sweep.test.ts" },
  "npx tributary sweep examples/presidents/sweep.yaml --into examples/presidents/README.md": {
    covered: "test/sweep/sweep.test.ts",
  },
  "npx tributary sweep examples/presidents/methods.yaml --into docs/results.md": {
    covered: "test/sweep/plan.test.ts",
  },
  "npx tributary report runs/my-job": { covered: "test/report/report.test.ts" },
  "npx tributary report runs/my-sweep --out compared.html": { covered: "test/report/report.test.ts" },

  "npx tributary data show examples/presidents/job.yaml": { prints: /^Joseph R Biden +\d+/m },
  "npx tributary run examples/presidents/job.yaml --quick --out runs/quick": {
    prints: /^adapter: .*runs\/quick\/adapter/m,
    extra: short,
  },
  "npx tributary verify runs/quick": { prints: /^verified: \d+ events, 2 rounds, adapter files$/m },
  'npx tributary generate runs/quick --prompt "My fellow Americans" --maxTokens 20': {
    prints: /^My fellow Americans/,
  },
  "npx tributary export merged runs/quick --out runs/merged": { prints: /model\.safetensors/ },
  "npx tributary report runs/quick": { prints: /^report: .*report\.html, with \d+ plots/m },
  "npx tributary export merged runs/quick --gguf runs/model.gguf --type q8_0": {
    prints: /model\.gguf: \d+ tensors/,
  },
  "npx tributary export adapter runs/quick --gguf runs/adapter.gguf": {
    prints: /adapter\.gguf: \d+ tensors/,
  },
  "npx tributary inspect runs/model.gguf": { prints: /llama/ },
  "npx tributary inspect examples/presidents/base --plan": {
    prints: /^weights +\d.* MB +\d.* MB +\d.* MB$/m,
  },
  "npx tributary inspect examples/presidents/base --plan --job examples/presidents/job.yaml": {
    prints: /^each worker +\d/m,
  },
  "npx tributary run examples/presidents/job.yaml --basePrecision 4bit --quick --out runs/four-bit": {
    prints: /^adapter: .*runs\/four-bit\/adapter/m,
    extra: short,
  },
  "npx tributary export merged runs/four-bit --out runs/four-bit-merged": { prints: /model\.safetensors/ },
  "npx tsx --conditions=@tributary/source scripts/random-model.ts DIR": {
    prints: /^model-00001-of-00001\.safetensors$/m,
    extra: "--layers 1 --vocabulary 64 --dtype float16",
    filled: ["DIR", "runs/random"],
  },
  "npx tributary eval runs/quick --limit 32": { prints: /perplexity/ },
  "npx tributary inspect runs/quick": { prints: /^rounds +2 of 2/m },

  "npx tributary data show examples/presidents/job.yaml --partition iid --clients 8": {
    prints: /^client-7 +\d+/m,
  },
  "npx tributary run examples/presidents/job.yaml --quick --strategy fedex-lora --out runs/fedex": {
    prints: /FedEx-LoRA[\s\S]*^adapter: /m,
    extra: short,
  },
  "npx tributary inspect runs/fedex": { prints: /^rounds +2 of 2/m },
  "npx tributary eval runs/fedex --limit 32": {
    prints: /^perplexity +[\d.]+ +[\d.]+ to [\d.]+ +[\d.]+ +[\d.]+ to [\d.]+$/m,
  },
  "npx tributary eval examples/presidents/base --job examples/presidents/job.yaml --max-examples 8": {
    prints: /^perplexity +[\d.]+ +[\d.]+ to [\d.]+$/m,
  },
  "npx tributary eval DIR --data test.jsonl.gz --metrics rougeL,bleu --max-examples 100 --out answers.jsonl":
    {
      covered: "test/eval/command.test.ts",
    },
  "npx tributary eval DIR --preset gsm8k --data test.jsonl.gz --out answers.jsonl": {
    covered: "test/eval/command.test.ts",
  },
  "npx tsx examples/01-fedit.ts runs/adapter": { covered: "test/examples/examples.test.ts" },
  "npx tsx examples/02-generate.ts runs/adapter": { covered: "test/examples/examples.test.ts" },
  "npx tsx examples/03-compare.ts runs/compare": { covered: "test/examples/examples.test.ts" },
  "npx tsx examples/04-own-strategy.ts": { covered: "test/examples/examples.test.ts" },
  "npx tsx examples/05-browser-step.ts": { covered: "test/examples/examples.test.ts" },

  "npx tributary init runs/job.yaml --yes --model examples/presidents/base --data examples/presidents/data/silos.jsonl --partition natural --partition.field president":
    { prints: /^runs\/job\.yaml is written/ },
  "npx tributary run runs/job.yaml --quick --rounds 1 --out runs/first": {
    prints: /^adapter: .*runs\/first\/adapter/m,
    extra: "--maxLength 64 --batchSize 2 --workers 1",
  },
  "npx tributary run runs/first": { prints: /has all its 1 rounds already/ },
  "npx tributary verify runs/first": { prints: /^verified: \d+ events, 1 rounds, adapter files$/m },
  "npx tributary export adapter runs/first --out runs/adapter": { prints: /adapter_model\.safetensors/ },
  "npx tributary export merged runs/first --out runs/model": {
    prints: /^largest difference of a logit, adapter against merged: \d/m,
  },
  'npx tributary generate examples/presidents/base --precision 4bit --prompt "My fellow citizens" --max-tokens 20':
    { prints: /^My fellow citizens/m },
  'npx tributary generate runs/model --prompt "My fellow citizens" --max-tokens 20': {
    prints: /^My fellow citizens/,
  },
};

const root = fileURLToPath(new URL("../..", import.meta.url));
const scripts: Readonly<Record<string, string>> = JSON.parse(
  readFileSync(join(root, "package.json"), "utf8"),
).scripts;

function documents(): string[] {
  const inside = (folder: string): string[] =>
    readdirSync(join(root, folder), { recursive: true, encoding: "utf8" })
      .filter((name) => name.endsWith(".md"))
      .map((name) => `${folder}/${name}`);
  const examples = inside("examples").filter((name) => name.endsWith("/README.md"));
  return ["README.md", "CONTRIBUTING.md", ...inside("docs"), ...examples];
}

/** The commands of a document: lines of code blocks, and code in the text, that begin with npm, npx or node. */
function commandsOf(text: string): string[] {
  const lines: string[] = [];
  const prose = text.replace(/^```.*\n([\s\S]*?)^```/gm, (_, block: string) => {
    lines.push(...block.split("\n"));
    return "";
  });
  lines.push(...prose.split("\n").filter((line) => line.startsWith("    ")));
  lines.push(...[...prose.matchAll(/`([^`]+)`/g)].map(([, code = ""]) => code));
  return lines
    .map((line) =>
      line
        .replace(/\s+#.*$/, "")
        .replace(/\s+/g, " ")
        .trim(),
    )
    .filter((line) => /^(npm|npx|node) /.test(line));
}

const found = new Map<string, string[]>();
for (const name of documents()) {
  for (const command of commandsOf(readFileSync(join(root, name), "utf8")))
    found.set(command, [...(found.get(command) ?? []), name]);
}

// A copy in which commands may write: everything is a link to the checkout but the folder of runs.
const workspace = mkdtempSync(join(tmpdir(), "tributary-commands-"));
const own = new Set(["runs", ".git", "scratch"]);

beforeAll(() => {
  for (const name of readdirSync(root))
    if (!own.has(name)) symlinkSync(join(root, name), join(workspace, name));
  mkdirSync(join(workspace, "goldens/optim"), { recursive: true });
  writeFileSync(join(workspace, "goldens/optim/problem.json"), "{}");
  const schedule = { name: "linear", lr: 1, num_warmup_steps: 2, num_training_steps: 4 };
  writeFileSync(
    join(workspace, "goldens/optim/schedules.json"),
    JSON.stringify({ schedules: [{ ...schedule, rates: [0, 0.5, 1, 0.5, 0] }] }),
  );
});
afterAll(() => rmSync(workspace, { recursive: true, force: true }));

interface Outcome {
  readonly code: number;
  readonly output: string;
}

function run(command: string): Promise<Outcome> {
  // npm looks for its lock file and packages where they are no links; a dry run writes nothing.
  const cwd = command.startsWith("npm install") ? root : workspace;
  return new Promise((resolve) => {
    execFile("sh", ["-c", command], { cwd, env: { ...process.env, NO_COLOR: "1" } }, (error, out, err) =>
      resolve({ code: error === null ? 0 : Number(error.code ?? 1), output: `${out}${err}` }),
    );
  });
}

describe("the commands of the documents", () => {
  it("are all in the list of proofs, and the list has no others", () => {
    expect([...found.keys()].sort()).toEqual(Object.keys(proofs).sort());
  });

  it("name scripts of package.json", () => {
    const called = [...found.keys()].flatMap((command) => /^npm run (\S+)/.exec(command)?.[1] ?? []);
    expect(called.filter((name) => scripts[name] === undefined)).toEqual([]);
  });

  for (const [command, proof] of Object.entries(proofs)) {
    if (proof === "tests") {
      it(`${command}: every path that it names holds tests`, () => {
        for (const path of command.match(/\btest\/\S+/g) ?? [])
          expect(readdirSync(join(root, path)).some((name) => name.endsWith(".test.ts"))).toBe(true);
      });
    } else if ("covered" in proof) {
      it(`${command}: ${proof.covered} exists`, () => {
        expect(existsSync(join(root, proof.covered))).toBe(true);
      });
    } else {
      it(`${command}: runs and prints what it is meant to`, async () => {
        const filled = proof.filled === undefined ? command : command.replace(...proof.filled);
        const { code, output } = await run(proof.extra === undefined ? filled : `${filled} ${proof.extra}`);
        expect(output).toMatch(proof.prints);
        expect(code).toBe(0);
      }, 120_000);
    }
  }
});
