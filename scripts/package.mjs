// Packs the package, installs the tarball into an empty folder, and uses it there as others do: every entry on Node.js, the
// types of every entry and of the examples, the command line, a bundle for browsers. The sizes have budgets.
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { cpSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { gzipSync } from "node:zlib";
import { build } from "esbuild";

/** Bytes: of the tarball, and of what the package adds to a page that trains (minified; onnxruntime-web apart). */
const budgets = { tarball: 650_000, page: 140_000 };

const root = fileURLToPath(new URL("..", import.meta.url));
const manifest = JSON.parse(readFileSync(join(root, "package.json"), "utf8"));
const folder = mkdtempSync(join(tmpdir(), "tributary-package-"));
const kilobytes = (bytes) => `${(bytes / 1000).toFixed(1)} kB`;

// Under "npm run" the environment speaks of this folder; npm in another one must not hear of it.
const env = { ...process.env, ONNXRUNTIME_NODE_INSTALL: "skip" };
for (const name of Object.keys(env)) {
  if (/^npm_(package|lifecycle|command|config_local_prefix|config_prefix|config_json)/i.test(name))
    delete env[name];
}

function run(command, args, cwd) {
  const windows = process.platform === "win32";
  try {
    return execFileSync(windows && command === "npm" ? "npm.cmd" : command, args, {
      cwd,
      env,
      encoding: "utf8",
      stdio: ["ignore", "pipe", "pipe"],
      shell: windows,
    });
  } catch (error) {
    throw new Error(`${command} ${args.join(" ")} failed in ${cwd}:\n${error.stdout}${error.stderr}`);
  }
}

/** The import names of the package: those of `exports`, with every file that a pattern stands for. */
function entries(installed) {
  return Object.entries(manifest.exports).flatMap(([key, target]) => {
    const name = key.replace(/^\./, manifest.name);
    if (!key.endsWith("/*")) return [name];
    const files = readdirSync(join(installed, target.default, ".."));
    return files.filter((file) => file.endsWith(".js")).map((file) => name.replace("*", file.slice(0, -3)));
  });
}

function pack() {
  // What npm's own scripts print would stand before the JSON.
  const output = run("npm", ["pack", "--json", "--silent", "--pack-destination", folder], root);
  const [{ filename, size, files }] = JSON.parse(output.slice(output.indexOf("[\n")));
  assert.ok(size <= budgets.tarball, `the tarball has ${size} bytes, its budget is ${budgets.tarball}`);
  const strangers = files.filter(({ path }) => !/^(dist|schema)\/[^.]|^[A-Za-z]+(\.md|\.json)?$/.test(path));
  assert.deepEqual(strangers, [], "the tarball holds files that nobody needs");
  console.log(`packed      ${files.length} files, ${kilobytes(size)}`);
  return join(folder, filename);
}

function install(tarball) {
  writeFileSync(join(folder, "package.json"), '{ "private": true, "type": "module" }\n');
  const browser = `onnxruntime-web@${manifest.peerDependencies["onnxruntime-web"]}`;
  const quiet = ["--no-audit", "--no-fund", "--loglevel=error", "--prefer-offline"];
  run("npm", ["install", tarball, browser, ...quiet], folder);
  return join(folder, "node_modules", manifest.name);
}

function importEntries(names) {
  const program = `for (const name of ${JSON.stringify(names)})
    await import(name, name.endsWith(".json") ? { with: { type: "json" } } : {});`;
  run(process.execPath, ["--no-warnings", "--input-type=module", "--eval", program], folder);
  console.log(`imported    ${names.length} entries on Node.js ${process.versions.node}`);
}

function checkTypes(names) {
  const examples = readdirSync(join(root, "examples")).filter((name) => name.endsWith(".ts"));
  for (const name of examples) cpSync(join(root, "examples", name), join(folder, name));
  const imports = names.filter((name) => !name.endsWith(".json"));
  writeFileSync(
    join(folder, "entries.ts"),
    imports.map((name, i) => `export * as e${i} from ${JSON.stringify(name)};\n`).join(""),
  );
  const settings = {
    compilerOptions: {
      target: "ES2023",
      module: "NodeNext",
      strict: true,
      noEmit: true,
      skipLibCheck: true,
      types: ["node"],
      typeRoots: [join(root, "node_modules/@types")],
    },
    files: ["entries.ts", ...examples],
  };
  writeFileSync(join(folder, "tsconfig.json"), JSON.stringify(settings));
  run(process.execPath, [join(root, "node_modules/typescript/bin/tsc"), "--project", folder], folder);
  console.log(`types       ${imports.length} entries, ${examples.length} examples`);
}

function runCommand() {
  const words = run("npm", ["exec", "--offline", "--", "tributary", "version"], folder).trim();
  assert.match(
    words,
    new RegExp(`^tributary ${manifest.version.replaceAll(".", "\\.")}, node .*onnxruntime-node \\d`),
  );
  console.log(`command     ${words}`);
}

async function bundle() {
  const { metafile, outputFiles } = await build({
    entryPoints: [join(folder, "05-browser-step.ts")],
    absWorkingDir: folder,
    bundle: true,
    format: "esm",
    platform: "browser",
    minify: true,
    metafile: true,
    write: false,
    outdir: "page",
    logLevel: "silent",
  });
  const [page] = outputFiles;
  const [{ imports, inputs }] = Object.values(metafile.outputs);
  assert.deepEqual(
    imports.map(({ path }) => path),
    [],
    "the page imports what a browser has not",
  );
  const parts = Object.entries(inputs).map(([path, { bytesInOutput }]) => ({ path, bytes: bytesInOutput }));
  const own = parts.filter(({ path }) => !path.includes("onnxruntime-web"));
  const size = own.reduce((sum, { bytes }) => sum + bytes, 0);
  assert.ok(
    size <= budgets.page,
    `the page has ${size} bytes beside its runtime, its budget is ${budgets.page}`,
  );
  console.log(
    `page        ${kilobytes(size)} minified, with onnxruntime-web ${kilobytes(page.contents.length)}` +
      ` (${kilobytes(gzipSync(page.contents).length)} with gzip)`,
  );
}

try {
  const installed = install(pack());
  const names = entries(installed);
  importEntries(names);
  checkTypes(names);
  runCommand();
  await bundle();
} finally {
  rmSync(folder, { recursive: true, force: true });
}
