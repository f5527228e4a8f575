import { execFile, execFileSync, spawn, spawnSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { describe, expect, it } from "vitest";
import { federate } from "../../src/federation/federate.ts";
import { fedexLora } from "../../src/strategies/fedex-lora.ts";
import { toyTrainer } from "../federation/toy.ts";
import { settings, toyServer } from "./toy-server.ts";

const able = ["nginx -v", "openssl version"].every((line) => {
  const [program = "", ...args] = line.split(" ");
  return spawnSync(program, args).status === 0;
});

/** A port that was free a moment ago. */
function freePort(): Promise<number> {
  return new Promise((resolve) => {
    const probe = createServer().listen(0, "127.0.0.1", () => {
      const address = probe.address();
      probe.close(() => resolve(typeof address === "object" && address ? address.port : 0));
    });
  });
}

describe.skipIf(!able)("behind nginx with TLS", () => {
  it("a federation ends with the bytes of one in a process, with the configuration of the documents", async () => {
    const folder = mkdtempSync(join(tmpdir(), "tributary-nginx-"));
    const server = await toyServer();
    const port = await freePort();
    const [cert, key] = [join(folder, "cert.pem"), join(folder, "key.pem")];
    execFileSync(
      "openssl",
      `req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 1 -subj /CN=localhost -addext subjectAltName=IP:127.0.0.1 -keyout ${key} -out ${cert}`.split(
        " ",
      ),
      { stdio: "ignore" },
    );
    const page = readFileSync(fileURLToPath(new URL("../../docs/silos.md", import.meta.url)), "utf8");
    const [, block = ""] = /```nginx\n([\s\S]*?)```/.exec(page) ?? [];
    const site = block
      .replace("listen 443 ssl", `listen 127.0.0.1:${port} ssl`)
      .replace("/etc/ssl/fl.pem", cert)
      .replace("/etc/ssl/fl.key", key)
      .replace("http://127.0.0.1:7788", server.url);
    const temporary = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
      .map((name) => `${name}_temp_path ${folder}/${name};`)
      .join("\n");
    writeFileSync(
      join(folder, "nginx.conf"),
      `daemon off; pid ${folder}/pid; error_log ${folder}/error.log; worker_processes 1;
events { worker_connections 256; }
http { access_log off; ${temporary}
${site} }`,
    );
    const nginx = spawn("nginx", ["-p", folder, "-c", join(folder, "nginx.conf")], { stdio: "ignore" });
    const run = `
      import { readFileSync } from "node:fs";
      const page = await (await fetch("https://127.0.0.1:${port}/v1/hello")).json();
      const closed = (await fetch("https://127.0.0.1:${port}/metrics")).status;
      process.stdout.write(JSON.stringify({ runs: page.runs, closed }));`;
    try {
      for (let tries = 0; tries < 100; tries++) {
        if (spawnSync("bash", ["-c", `exec 3<>/dev/tcp/127.0.0.1/${port}`], { stdio: "ignore" }).status === 0)
          break;
        await new Promise((resolve) => setTimeout(resolve, 50));
      }
      // The certificate is made here; a process of its own trusts it and no other.
      const { stdout: asked } = await promisify(execFile)(
        process.execPath,
        ["--input-type=module", "-e", run],
        {
          env: { ...process.env, NODE_EXTRA_CA_CERTS: cert },
        },
      );
      expect(JSON.parse(asked)).toEqual({ runs: ["toy"], closed: 404 });

      const clients = spawn(
        process.execPath,
        [
          "--import",
          "tsx",
          "--conditions=@tributary/source",
          fileURLToPath(new URL("nginx-clients.ts", import.meta.url)),
          `https://127.0.0.1:${port}`,
        ],
        { env: { ...process.env, NODE_EXTRA_CA_CERTS: cert }, stdio: ["pipe", "ignore", "inherit"] },
      );
      const tokens = [];
      for (const _ of settings.clients) tokens.push(await server.identities.issueToken(60));
      clients.stdin.end(JSON.stringify(tokens));
      const strategy = fedexLora();
      const rounds = await server.rounds(strategy, { onEvent: () => undefined });
      const code = await new Promise((resolve) => clients.on("close", resolve));
      expect(code).toBe(0);
      const calm: string[] = [];
      for await (const { state } of federate({ strategy, ...settings, trainer: toyTrainer() }))
        calm.push(state);
      expect(rounds.map(({ state }) => state)).toEqual(calm);
    } finally {
      nginx.kill();
      await server.close();
      rmSync(folder, { recursive: true, force: true });
    }
  }, 60_000);
});
