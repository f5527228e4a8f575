import { once } from "node:events";
import { type ClientRequest, request } from "node:http";
import { expect, it } from "vitest";
import { sha256Text } from "../../src/federation/digest.ts";
import { newClientKey, signatureOf } from "../../src/transports/http/signature.ts";
import { toyServer } from "./toy-server.ts";

it("bodies that do not come on hold no place for ever: one that does is taken in beside a hundred of them", async () => {
  const server = await toyServer();
  const key = newClientKey();
  const token = await server.identities.issueToken(60);
  await server.identities.enrol({ token, publicKey: key.publicKey, name: "c00" });

  async function put(text: string): Promise<ClientRequest> {
    const body = await sha256Text(text);
    const path = `/v1/runs/toy/blobs/${body}`;
    const headers = signatureOf({ method: "PUT", path, body, client: "c00" }, key, Date.now());
    return request(`${server.url}${path}`, {
      method: "PUT",
      headers: { ...headers, "content-length": text.length },
    });
  }

  const stalled: ClientRequest[] = [];
  const connected: Promise<unknown>[] = [];
  for (let i = 0; i < 100; i++) {
    const sender = await put(`a body that stops ${i}`);
    sender.on("error", () => undefined);
    connected.push(once(sender, "socket"));
    sender.write("a body");
    stalled.push(sender);
  }
  await Promise.all(connected);
  const began = performance.now();
  const honest = await put("a body that comes");
  honest.end("a body that comes");
  const [response] = await once(honest, "response");
  expect(response.statusCode).toBe(204);
  // Thirty-two have a place at one time, for half a second.
  expect(performance.now() - began).toBeLessThan(8000);
  for (const sender of stalled) sender.destroy();
  await server.close();
}, 20_000);
