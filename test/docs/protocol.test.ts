import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
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

it("the page on the protocol lists every refusal by its status, and no other", () => {
  const listed = [...page.matchAll(/^\| (\d{3}) +\| (.+?) +\|$/gm)].flatMap(([, status, codes = ""]) =>
    [...codes.matchAll(/`([a-z-]+)`/g)].map(([, code]) => `${status} ${code}`),
  );
  const src = fileURLToPath(new URL("../../src", import.meta.url));
  const made = new Set<string>();
  for (const folder of ["transports", "job"])
    for (const path of readdirSync(join(src, folder), { recursive: true, encoding: "utf8" }))
      if (path.endsWith(".ts"))
        for (const [, status, code] of readFileSync(join(src, folder, path), "utf8").matchAll(
          /new Refused\(\s*(\d{3}),\s*"([a-z-]+)"/g,
        ))
          made.add(`${status} ${code}`);
  expect(listed.sort()).toEqual([...made].sort());
});
