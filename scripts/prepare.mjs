// Installs what package-lock.json asks for and builds dist/, each only where it is not there yet.
import { execFileSync } from "node:child_process";
import { createHash } from "node:crypto";
import { existsSync, mkdirSync, readdirSync, readFileSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";

const root = fileURLToPath(new URL("..", import.meta.url));
const at = (...parts) => join(root, ...parts);
const say = (text) => process.stderr.write(`tributary: ${text}\n`);

const [major, minor] = process.versions.node.split(".").map(Number);
if (major < 20 || (major === 20 && minor < 19)) {
  say(`Node.js ${process.versions.node} is too old; 20.19 or newer is needed (https://nodejs.org)`);
  process.exit(2);
}

const hashOf = (...files) => {
  const hash = createHash("sha256");
  for (const file of files) hash.update(file).update(readFileSync(at(file)));
  return hash.digest("hex");
};

const filesUnder = (folder) =>
  readdirSync(at(folder))
    .sort()
    .flatMap((name) => {
      const path = `${folder}/${name}`;
      return statSync(at(path)).isDirectory() ? filesUnder(path) : [path];
    });

const stamped = (file, value) => existsSync(at(file)) && readFileSync(at(file), "utf8") === value;

/** npm's own record of what it installed holds every package of the lock file, in its version. */
const installedByHand = () => {
  const record = "node_modules/.package-lock.json";
  if (!existsSync(at(record))) return false;
  const read = (file) => JSON.parse(readFileSync(at(file), "utf8")).packages;
  const [locked, installed] = [read("package-lock.json"), read(record)];
  return Object.entries(locked).every(([name, { version, optional, link }]) => {
    const found = installed[name];
    return name === "" || link || (found ? found.version === version : optional === true);
  });
};

const npm = (...args) => {
  try {
    execFileSync(process.platform === "win32" ? "npm.cmd" : "npm", args, {
      cwd: root,
      // onnxruntime-node would fetch CUDA libraries from outside the npm registry.
      env: { ONNXRUNTIME_NODE_INSTALL: "skip", ...process.env },
      stdio: ["ignore", 2, 2],
      shell: process.platform === "win32",
    });
  } catch {
    say(`"npm ${args.join(" ")}" failed; its own words are above. Mend that and run the command again`);
    process.exit(1);
  }
};

const lock = hashOf("package-lock.json");
if (!stamped("node_modules/.tributary-lock", lock)) {
  if (!installedByHand()) {
    say("installing packages (once; about half a minute)");
    // Not "npm ci": it refuses a lock file without the optional packages of other platforms.
    npm("install", "--no-save", "--no-audit", "--no-fund", "--loglevel=error");
  }
  writeFileSync(at("node_modules/.tributary-lock"), lock);
}

const sources = hashOf(
  ...filesUnder("src"),
  "tsdown.config.ts",
  "package.json",
  "tsconfig.json",
  "package-lock.json",
);
if (!stamped("dist/.sources", sources)) {
  say("building (once; a few seconds)");
  npm("run", "--silent", "build");
  mkdirSync(at("dist"), { recursive: true });
  writeFileSync(at("dist/.sources"), sources);
}

// The text of the example comes from an installed package; it is cut into passages once.
if (!existsSync(at("examples/presidents/data/silos.jsonl"))) {
  say("cutting the addresses of the example into passages (once; a few seconds)");
  npm("exec", "--offline", "--", "tsx", "scripts/presidents/corpus.ts");
}
