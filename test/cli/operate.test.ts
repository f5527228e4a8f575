import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, it } from "vitest";
import { clients, invite, kick, pause, resume, status, stop } from "../../src/cli/commands/operate.ts";
import { fedAvg } from "../../src/strategies/fedavg.ts";
import { settings, type ToyServer, toyServer } from "../transports/toy-server.ts";
import { printed } from "./printed.ts";

let server: ToyServer;
let home = "";
beforeEach(async () => {
  server = await toyServer();
  home = await mkdtemp(join(tmpdir(), "tributary-operate-"));
  await writeFile(join(home, "operator.token"), "operator\n");
  await writeFile(join(home, "server.json"), JSON.stringify({ url: server.url, pid: 1 }));
});
afterEach(async () => {
  await server.close();
  await rm(home, { recursive: true });
});

it("operators see and steer a server by its folder or its URL", async () => {
  const strategy = fedAvg();
  let opened: () => void = () => {};
  const open = new Promise<void>((resolve) => {
    opened = resolve;
  });
  // One of them is removed, and says so.
  const loops = Promise.allSettled(settings.clients.map(({ id }) => server.join(id, strategy)));
  const made = server.rounds(strategy, {
    rounds: 1_000_000,
    onEvent: (event) => event.type === "round-opened" && opened(),
  });
  await open;
  expect(await printed(home, status, ".")).toMatch(/^toy 1, up [\s\S]*\ntoy: collecting/);
  expect(await printed(home, status, server.url, "--operator-token", "operator.token")).toMatch(/^toy 1/);
  expect(await printed(home, clients, ".")).toMatch(/^c00 {2}connected/m);
  expect(await printed(home, pause, ".")).toMatch(/^toy: paused/);
  expect(await printed(home, resume, ".", "--run", "toy")).toMatch(/^toy: collecting/);
  const tokens = (await printed(home, invite, ".", "--count", "2")).trim().split("\n");
  expect(tokens).toHaveLength(2);
  for (const token of tokens) expect(token).toMatch(/^[A-Za-z0-9_-]{22}$/);
  expect(await printed(home, kick, ".", "c03", "--reason", "sends noise")).toBe(
    "c03  removed: sends noise  toy: waiting, 0 updates in\n",
  );
  expect(JSON.parse(await printed(home, stop, ".", "--json")).phase).toBe("stopped");
  expect((await made).length).toBeGreaterThan(0);
  const ends = await loops;
  expect(ends.map((end) => end.status)).toEqual(["fulfilled", "fulfilled", "fulfilled", "rejected"]);
});

it("commands say what they lack", async () => {
  await expect(printed(home, status, server.url)).rejects.toThrow(/--operator-token/);
  await expect(printed(home, kick, ".", "c03")).rejects.toThrow(/--reason/);
  await expect(printed(home, kick, ".", "nobody", "--reason", "x")).rejects.toThrow(
    /no client nobody is enrolled/,
  );
  await expect(printed(home, pause, ".")).rejects.toThrow(/once its first round is open/);
  await expect(printed(home, pause, ".", "--run", "other")).rejects.toThrow(/the runs are: toy/);
  await rm(join(home, "server.json"));
  await expect(printed(home, status, ".")).rejects.toThrow(/not running/);
  await rm(join(home, "operator.token"));
  await expect(printed(home, status, ".")).rejects.toThrow(/not the home of a server/);
});
