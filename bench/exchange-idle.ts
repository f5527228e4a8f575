/** Clients that wait for work: `node exchange-idle.mjs SETTINGS.json`. */
import { readFile } from "node:fs/promises";
import { Agent, request } from "node:http";
import { bodyDigest, readClientKey, signatureOf } from "../src/transports/http/signature.ts";

/** What the program reads. */
export interface IdleOptions {
  readonly url: string;
  /** Private keys in PEM by client. */
  readonly keys: Readonly<Record<string, string>>;
}

const { url, keys } = JSON.parse(await readFile(process.argv[2] ?? "", "utf8")) as IdleOptions;
const agent = new Agent({ keepAlive: true });
const path = "/v1/runs/toy/next?wait=25&since=0";
let asked = 0;
for (const [client, pem] of Object.entries(keys)) {
  const signed = { method: "GET", path, body: bodyDigest(""), client };
  const headers = signatureOf(signed, readClientKey(pem), Date.now());
  const one = request(`${url}${path}`, { agent, headers });
  one.on("error", () => undefined);
  one.end();
  // A listen queue holds a few hundred connections.
  if (++asked % 100 === 0) await new Promise((resolve) => setTimeout(resolve, 20));
}
process.stdout.write(`${JSON.stringify({ type: "waiting", clients: asked })}\n`);
