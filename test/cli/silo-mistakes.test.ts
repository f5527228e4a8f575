import { mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { createServer, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, expect, it } from "vitest";
import type { Command } from "../../src/cli/command.ts";
import { join as joinCommand } from "../../src/cli/commands/join.ts";
import { status } from "../../src/cli/commands/operate.ts";
import { serve } from "../../src/cli/commands/serve.ts";
import { exitCodeOf, exitCodes } from "../../src/cli/exit.ts";
import { lockRun } from "../../src/storage/run-lock.ts";
import { type ToyServer, toyServer } from "../transports/toy-server.ts";
import { printed } from "./printed.ts";

const base = fileURLToPath(new URL("../../examples/presidents/base", import.meta.url));
const token = "A".repeat(22);
let folder = "";
let toy: ToyServer;
let page: Server;
let pagePort = 0;

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "tributary-mistakes-"));
  toy = await toyServer();
  page = createServer((_, response) => response.end("<html>"));
  await new Promise<void>((resolve) => page.listen(0, "127.0.0.1", resolve));
  pagePort = (page.address() as AddressInfo).port;
  await writeFile(join(folder, "silo.jsonl"), '{"text":"a silo"}\n');
  for (const name of ["one", "two"])
    await writeFile(
      join(folder, `${name}.yaml`),
      `schema: 1
name: ${name}
model: ${base}
data: { path: silo.jsonl }
partition: { kind: iid, clients: 1 }
adapter: { kind: lora, rank: 2, target: [q_proj] }
strategy: { name: fedit }
local: { optimizer: { name: adamw, learningRate: 1e-2 }, steps: 1, batchSize: 2 }
rounds: 1
out: ${name}
`,
    );
  await mkdir(join(folder, "stranger"));
  await writeFile(join(folder, "stranger", "enrolled.json"), '{"client":"oslo"}');
});
afterAll(async () => {
  await toy.close();
  await new Promise((resolve) => page.close(resolve));
  await rm(folder, { recursive: true });
});

const data = ["--data", "silo.jsonl", "--yes"];
const mistakes: readonly (readonly [
  what: string,
  command: Command,
  args: () => readonly string[],
  message: RegExp,
])[] = [
  [
    "an address without its scheme",
    joinCommand,
    () => ["127.0.0.1:7788", ...data],
    /^join: got 127\.0\.0\.1:7788, expected the address that tributary serve prints/,
  ],
  ["another scheme", joinCommand, () => ["ftp://127.0.0.1:7788", ...data], /got ftp:.* expected .*http:/],
  ["an address with a path", joinCommand, () => [`${toy.url}/v1`, ...data], /\/v1, expected the address/],
  [
    "what is no token",
    joinCommand,
    () => [toy.url, ...data, "--token", "abc"],
    /^--token: got "abc", expected 22 letters.* tokens\.txt/,
  ],
  [
    "data that are not there",
    joinCommand,
    () => [toy.url, "--data", "nowhere.jsonl", "--token", token],
    /nowhere\.jsonl: no such file or folder/,
  ],
  [
    "a folder that is a file",
    joinCommand,
    () => [toy.url, ...data, "--folder", "silo.jsonl"],
    /silo\.jsonl cannot be made: .*; give another --folder/,
  ],
  [
    "a policy that is not there",
    joinCommand,
    () => [toy.url, ...data, "--policy", "nowhere.yaml"],
    /nowhere\.yaml: no such file; give the policy/,
  ],
  [
    "a web page in place of a coordinator",
    joinCommand,
    () => [`http://127.0.0.1:${pagePort}`, ...data],
    /is no coordinator: .*; give the address that tributary serve prints/,
  ],
  [
    "the folder of a silo of another server",
    joinCommand,
    () => [toy.url, ...data, "--folder", "stranger"],
    /no client oslo is enrolled here.*stranger holds the key of oslo.*give another --folder with a new --token/,
  ],
  [
    "a port that is in use",
    serve,
    () => ["one.yaml", "--port", String(pagePort)],
    /^--port: 127\.0\.0\.1:\d+ is in use by another process; give another port/,
  ],
  [
    "an address of another machine",
    serve,
    () => ["one.yaml", "--host", "192.0.2.1", "--plain"],
    /^--host: got 192\.0\.2\.1, expected an address or name of this machine/,
  ],
  [
    "other machines without TLS",
    serve,
    () => ["one.yaml", "--host", "0.0.0.0"],
    /--cert FILE --key FILE, or --plain/,
  ],
  [
    "a certificate that is not there",
    serve,
    () => ["one.yaml", "--cert", "no.pem", "--key", "no.key"],
    /^--cert: got no\.pem, expected a file in PEM/,
  ],
  [
    "a certificate that is none",
    serve,
    () => ["one.yaml", "--cert", "one.yaml", "--key", "one.yaml"],
    /one\.yaml and one\.yaml are no certificate and its private key in PEM/,
  ],
  [
    "one job twice",
    serve,
    () => ["one.yaml", "one.yaml", "--home", "home"],
    /^serve: one\.yaml and one\.yaml write to the same folder/,
  ],
  [
    "a log in no folder",
    serve,
    () => ["one.yaml", "--log", "nowhere/log.jsonl"],
    /^--log: got .*nowhere\/log\.jsonl, expected a file in a folder that exists/,
  ],
  [
    "an operator's token that is not there",
    status,
    () => [toy.url, "--operator-token", "nowhere"],
    /^--operator-token: got nowhere, expected a copy of operator\.token/,
  ],
];

it.each(mistakes)(
  "%s is an error of the person who typed, with what was expected",
  async (_, command, args, message) => {
    const error: unknown = await printed(folder, command, ...args()).catch((thrown: unknown) => thrown);
    expect(error).toBeInstanceOf(Error);
    expect(error instanceof Error ? error.message : "").toMatch(message);
    expect(exitCodeOf(error)).toBe(exitCodes.user);
  },
);

it("a second server does not take the home of one that runs", async () => {
  const lock = lockRun(join(folder, "home"));
  await expect(
    printed(folder, serve, "one.yaml", "two.yaml", "--home", "home", "--port", "0"),
  ).rejects.toThrow(/home is in use by process \d+/);
  lock.release();
});
