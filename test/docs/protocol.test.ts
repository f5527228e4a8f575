import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { expect, it } from "vitest";
import { rejectCodes } from "../../src/federation/message.ts";
import { toyServer } from "../transports/toy-server.ts";

const page = readFileSync(fileURLToPath(new URL("../../docs/protocol.md", import.meta.url)), "utf8");

it("the page on the protocol lists every route and who may ask", async () => {
  const server = await toyServer();
  await server.close();
  const listed = [...page.matchAll(/^\| `([A-Z]+) (\S+)` +\| (\w+)/gm)].map(([, method, path, who]) => [
    method,
    path,
    who,
  ]);
  expect(listed.map(String).sort()).toEqual(
    server.routes.map(({ method, path, who }) => String([method, path, who])).sort(),
  );
});

it("the page on the protocol lists every code of a receipt", () => {
  for (const code of rejectCodes) expect(page).toContain(`\`${code}\``);
});
