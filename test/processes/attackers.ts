/** Hostile connections as a program of their own: `node attackers.mjs SETTINGS.json`; says at SIGTERM what they were answered. */
import { randomBytes } from "node:crypto";
import { readFile } from "node:fs/promises";
import { connect } from "node:net";
import { bodyDigest, newClientKey, readClientKey, signatureOf } from "../../src/transports/http/signature.ts";

/** What the program reads. */
export interface AttackersOptions {
  readonly url: string;
  readonly connections: number;
  /** A client whose key was stolen for requests that are too old. */
  readonly client: string;
  readonly key: string;
  /** A signed request of that client that the server has had. */
  readonly seen: {
    readonly path: string;
    readonly headers: Readonly<Record<string, string>>;
    readonly body: string;
  };
}

const { url, connections, client, key, seen } = JSON.parse(
  await readFile(process.argv[2] ?? "", "utf8"),
) as AttackersOptions;
const { port } = new URL(url);
const stranger = newClientKey();
const run = "/v1/runs/toy";

/** What one connection sends: at once, and then a piece each second. */
interface Attack {
  readonly first: string;
  readonly drip?: string;
}

function request(
  method: string,
  path: string,
  {
    headers = {},
    body = "",
    length = Buffer.byteLength(body),
  }: { headers?: Record<string, string>; body?: string; length?: number } = {},
): string {
  const lines = Object.entries({ host: "127.0.0.1", "content-length": String(length), ...headers });
  return `${method} ${path} HTTP/1.1\r\n${lines.map(([name, value]) => `${name}: ${value}\r\n`).join("")}\r\n${body}`;
}

function signed(
  method: string,
  path: string,
  body: string,
  how: { key: ReturnType<typeof newClientKey>; time: number; as?: string },
): string {
  const headers = signatureOf(
    { method, path, body: bodyDigest(body), client: how.as ?? client },
    how.key,
    how.time,
  );
  return request(method, path, { headers, body });
}

const own = readClientKey(key);
const ids = JSON.stringify({ ids: ["0".repeat(64)] });
const digest = "a".repeat(64);

const attacks: Readonly<Record<string, () => Attack>> = {
  "slow headers": () => ({ first: "GET /v1/hello HTTP/1.1\r\n", drip: "x-a: b\r\n" }),
  "slow body": () => ({ first: request("POST", `${run}/submit`, { length: 100_000 }), drip: "{" }),
  "declared too large": () => ({ first: request("PUT", `${run}/blobs/${digest}`, { length: 10 ** 12 }) }),
  "chunked without end": () => ({
    first: `POST ${run}/submit HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n${`1000\r\n${"x".repeat(4096)}\r\n`.repeat(100)}`,
    drip: `1000\r\n${"x".repeat(4096)}\r\n`,
  }),
  "header bomb": () => ({ first: `GET /v1/hello HTTP/1.1\r\n${"x-bomb: y\r\n".repeat(5000)}\r\n` }),
  "one long header": () => ({ first: `GET /v1/hello HTTP/1.1\r\nx: ${"y".repeat(100_000)}\r\n\r\n` }),
  unsigned: () => ({ first: request("GET", `${run}/next?wait=25`) }),
  "bad signature": () => ({
    first: signed("POST", `${run}/blobs/missing`, ids, { key: stranger, time: Date.now() }),
  }),
  "unknown client": () => ({
    first: signed("POST", `${run}/blobs/missing`, ids, { key: stranger, time: Date.now(), as: "mallory" }),
  }),
  stale: () => ({
    first: signed("POST", `${run}/blobs/missing`, ids, { key: own, time: Date.now() - 3_600_000 }),
  }),
  replayed: () => ({ first: request("POST", seen.path, { headers: { ...seen.headers }, body: seen.body }) }),
  "other path under a signature": () => ({
    first: request("POST", `${run}/submit`, { headers: { ...seen.headers }, body: seen.body }),
  }),
  "guessed token": () => ({
    first: request("POST", "/v1/enrol", {
      body: JSON.stringify({
        token: randomBytes(16).toString("base64url"),
        publicKey: stranger.publicKey,
        name: "mallory",
      }),
    }),
  }),
  "no JSON": () => ({ first: request("POST", "/v1/enrol", { body: "{".repeat(10_000) }) }),
  "JSON of another form": () => ({
    first: request("POST", "/v1/enrol", { body: '{"__proto__":{"token":"x"},"constructor":1}' }),
  }),
  "unknown path": () => ({ first: request("GET", `/${randomBytes(4).toString("hex")}`) }),
  "path trick": () => ({ first: request("GET", `${run}/blobs/..%2f..%2fjournal.sqlite`) }),
  "dots in the path": () => ({ first: request("GET", "/v1/runs/../../etc/passwd") }),
  "wrong method": () => ({ first: request("DELETE", `${run}/next`) }),
  "not HTTP": () => ({ first: `${randomBytes(200).toString("latin1")}\r\n\r\n` }),
};

const answers = new Map<string, Map<string, number>>(Object.keys(attacks).map((kind) => [kind, new Map()]));
const kinds = Object.entries(attacks);
let over = false;

function attack(place: number): void {
  if (over) return;
  const [kind, make] = kinds[place % kinds.length] ?? ["", (): Attack => ({ first: "" })];
  const { first, drip } = make();
  const socket = connect(Number(port), "127.0.0.1");
  let status = "closed";
  socket.on("connect", () => socket.write(first, "latin1"));
  socket.on("data", (piece) => {
    status = /^HTTP\/1\.1 (\d+)/.exec(piece.toString("latin1"))?.[1] ?? status;
    if (drip === undefined) socket.end();
  });
  socket.on("error", () => undefined);
  const timer = drip === undefined ? undefined : setInterval(() => socket.write(drip), 1000);
  socket.on("close", () => {
    clearInterval(timer);
    const counts = answers.get(kind);
    counts?.set(status, (counts.get(status) ?? 0) + 1);
    setTimeout(attack, 200, place);
  });
}

for (let place = 0; place < connections; place++) setTimeout(attack, 2 * place, place);
process.stdout.write(`${JSON.stringify({ type: "attacking" })}\n`);
process.once("SIGTERM", () => {
  over = true;
  const said = Object.fromEntries([...answers].map(([kind, counts]) => [kind, Object.fromEntries(counts)]));
  process.stdout.write(`${JSON.stringify({ type: "answers", answers: said })}\n`, () => process.exit(0));
});
