import type { KeyObject } from "node:crypto";
import { once } from "node:events";
import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import { createServer as createSecureServer } from "node:https";
import type { AddressInfo } from "node:net";
import { TributaryError } from "../../errors.ts";
import type { Env } from "../../federation/env.ts";
import { lentBuffers } from "./buffers.ts";
import type { Identities } from "./identities.ts";
import { type NonceBook, nonceBook } from "./nonces.ts";
import { type Problem, signatureHeaders, type WireLimits } from "./protocol.ts";
import { Refused } from "./refusal.ts";
import { type Call, findRoute, type Reply, type Route } from "./route.ts";
import { bodyDigest, isSignedBy } from "./signature.ts";

/** Where and how a server listens. */
export interface ListenOptions {
  /** Default: 127.0.0.1. */
  readonly host?: string;
  /** 0 for any free one. */
  readonly port: number;
  /** Certificate and private key in PEM; required off loopback. */
  readonly tls?: { readonly cert: string; readonly key: string };
  /** Allows plain HTTP off loopback, for a proxy that ends TLS in front of it. */
  readonly plain?: boolean;
}

/** What a server is made of. */
export interface ServerOptions extends ListenOptions {
  readonly routes: readonly Route[];
  readonly identities: Identities;
  readonly limits: WireLimits;
  readonly env: Env;
  /** Called for each answered request; for logs and metrics. */
  onAnswer?(answered: Answered): void;
  /** Called with what was thrown inside and is not told to clients. */
  onError?(error: unknown, route: string): void;
  /** Most connections at one time. Default: 10,000. */
  readonly connections?: number;
}

/** A request that has its answer. */
export interface Answered {
  readonly method: string;
  /** The path as the route writes it, so that no identifier becomes a label. */
  readonly route: string;
  readonly status: number;
  readonly code?: string;
  readonly client?: string;
  /** Bytes of the bodies. */
  readonly bytesIn: number;
  readonly bytesOut: number;
  readonly ms: number;
}

/** A server that listens. */
export interface RunningServer {
  readonly url: string;
  /** Takes no more requests, lets those under way end, and closes every connection after a while. */
  close(): Promise<void>;
}

/** Chunks that are taken in at one time: a bound of memory that does not grow with the clients. */
const BODIES = 32;

/** Seconds that a request's time may differ from the server's clock. */
const TOLERANCE = 300;

/** Throws TributaryError `tls-required` where other machines could reach the server without TLS and nobody has allowed that. */
export function assertEncrypted({
  host = "127.0.0.1",
  tls,
  plain = false,
}: Omit<ListenOptions, "port">): void {
  if (tls || plain || isLoopback(host)) return;
  throw new TributaryError(
    "tls-required",
    `${host} can be reached from other machines, and what travels would not be encrypted; give a certificate and its key, or allow plain HTTP where a proxy in front of it ends TLS`,
  );
}

/** Starts a server; resolves when it listens. */
export async function startServer(options: ServerOptions): Promise<RunningServer> {
  const { host = "127.0.0.1", port, tls } = options;
  assertEncrypted(options);
  const nonces = nonceBook(options.env, 2 * TOLERANCE);
  const { chunkBytes, manifestBytes } = options.limits;
  const bodies = lentBuffers(BODIES, Math.max(chunkBytes, manifestBytes));
  const underWay = new Set<AbortController>();
  const listener = (request: IncomingMessage, response: ServerResponse): void => {
    const gone = new AbortController();
    underWay.add(gone);
    response.on("close", () => {
      underWay.delete(gone);
      gone.abort(new Error("the connection is closed"));
    });
    void answer(request, response, { ...options, nonces, bodies, gone: gone.signal });
  };
  const timeouts = { connectionsCheckingInterval: 500, headersTimeout: 10_000, requestTimeout: 3_600_000 };
  const server: Server = tls
    ? createSecureServer({ ...timeouts, ...tls, minVersion: "TLSv1.2" }, listener)
    : createServer(timeouts, listener);
  server.keepAliveTimeout = 65_000;
  server.maxHeadersCount = 64;
  server.maxConnections = options.connections ?? 10_000;
  await new Promise<void>((resolve, reject) => {
    server.once("error", reject);
    server.listen(port, host, () => {
      server.off("error", reject);
      resolve();
    });
  });
  const { port: bound } = server.address() as AddressInfo;
  const shown = host.includes(":") ? `[${host}]` : host;
  return {
    url: `${tls ? "https" : "http"}://${shown}:${bound}`,
    close: () =>
      new Promise((resolve) => {
        server.close(() => resolve());
        // Whoever waits for work or events is answered now.
        for (const waiting of underWay) waiting.abort(new Error("the server is closing"));
        server.closeIdleConnections();
        setTimeout(() => server.closeAllConnections(), 2000).unref();
      }),
  };
}

/** What every request is answered with. */
interface Answering extends ServerOptions {
  readonly nonces: NonceBook;
  /** Where bodies of bytes are read into; those that find no place wait in the network. */
  readonly bodies: ReturnType<typeof lentBuffers>;
  /** Aborted when whoever asked is gone, or the server closes. */
  readonly gone: AbortSignal;
}

async function answer(request: IncomingMessage, response: ServerResponse, options: Answering): Promise<void> {
  const { env, onAnswer, onError } = options;
  const began = env.monotonic();
  let bytesIn = 0;
  let bytesOut = 0;
  let route = "";
  let client: string | undefined;
  let code: string | undefined;
  try {
    const found = findRoute(options.routes, request.method ?? "", request.url ?? "");
    route = found.route.path;
    const reply = await answered(request, found, options, (call) => {
      client = call.client;
      bytesIn = call.bytes.length;
      return found.route.handle(call);
    });
    bytesOut = await send(response, reply, options.gone);
  } catch (error) {
    const refused = error instanceof Refused ? error : unexpected(error);
    if (refused !== error) onError?.(error, route);
    code = refused.code;
    const problem: Problem = { error: { code: refused.code, message: refused.message } };
    const headers = refused.retryAfter === undefined ? {} : { "retry-after": String(refused.retryAfter) };
    // A body that is not wanted is not read: the connection ends with the answer.
    const unread = request.readableEnded ? {} : { connection: "close" };
    bytesOut = await send(
      response,
      { status: refused.status, json: problem, headers: { ...headers, ...unread } },
      options.gone,
    );
  }
  onAnswer?.({
    method: request.method ?? "",
    route,
    status: response.statusCode,
    bytesIn,
    bytesOut,
    ms: env.monotonic() - began,
    ...(client !== undefined && { client }),
    ...(code !== undefined && { code }),
  });
}

/** Answers a request after every check that its route asks for: sizes first, then who it is, then its form. */
async function answered(
  request: IncomingMessage,
  { route, parameters, query }: ReturnType<typeof findRoute>,
  { identities, env, nonces, bodies, gone }: Answering,
  handle: (call: Call) => Promise<Reply>,
): Promise<Reply> {
  if (route.who === "operator") identities.assertOperator(request.headers.authorization);
  const limit = route.body?.limit ?? 0;
  const declared = Number(request.headers["content-length"] ?? 0);
  if (!(declared <= limit)) throw tooLarge(declared, limit);
  const common = { parameters, query, headers: request.headers, gone };
  if (route.body?.kind === "bytes") {
    // The path names the digest of the body, so the signature is checked before any of it is read.
    const client = route.who === "client" ? authenticate(parameters.get("digest") ?? "") : undefined;
    return bodies(async (buffer) => {
      const bytes = await readBody(request, buffer.subarray(0, limit));
      return handle({ ...common, bytes, json: undefined, ...(client !== undefined && { client }) });
    });
  }
  const bytes = await readBody(request, Buffer.allocUnsafeSlow(Math.min(limit, declared || limit)));
  const client = route.who === "client" ? authenticate(bodyDigest(bytes)) : undefined;
  const json = route.body?.kind === "json" ? route.body.parse(bytes) : undefined;
  return handle({ ...common, bytes, json, ...(client !== undefined && { client }) });

  function authenticate(body: string): string {
    const header = (name: string): string => String(request.headers[name] ?? "");
    const id = header(signatureHeaders.client);
    const time = header(signatureHeaders.time);
    const nonce = header(signatureHeaders.nonce);
    if (id === "")
      throw new Refused(401, "unsigned", "the request is not signed; join with an enrolment token first");
    const key: KeyObject | undefined = identities.keyOf(id);
    if (!key)
      throw new Refused(
        401,
        "unknown-client",
        `no client ${id.slice(0, 64)} is enrolled here, or it was removed`,
      );
    const signed = { method: request.method ?? "", path: request.url ?? "", body, client: id, time, nonce };
    if (!isSignedBy(key, signed, header(signatureHeaders.signature)))
      throw new Refused(401, "bad-signature", "the signature does not fit the request");
    const off = (Number(time) - env.wall()) / 1000;
    if (!(Math.abs(off) <= TOLERANCE))
      throw new Refused(
        401,
        "stale-request",
        `the request was signed ${Math.round(Math.abs(off))} s away from the server's clock; ask /v1/hello for its time`,
      );
    if (request.method === "POST" && !nonces.isNew(`${id} ${nonce}`))
      throw new Refused(401, "replayed", "this request was sent before");
    return id;
  }
}

/** Milliseconds after which a body has to have come at `SLOWEST` at least. */
const PATIENCE = 10_000;

/** Bytes per second. */
const SLOWEST = 4096;

/** Reads a body into a buffer that has its limit; what was read of it. A sender that only drips is cut off. */
async function readBody(request: IncomingMessage, into: Buffer): Promise<Uint8Array> {
  let size = 0;
  const began = performance.now();
  const watch = setInterval(() => {
    const ms = performance.now() - began;
    if (ms > PATIENCE && (1000 * size) / ms < SLOWEST)
      request.destroy(
        new Refused(408, "too-slow", `a body came at less than ${SLOWEST} bytes a second; send it again`),
      );
  }, PATIENCE / 4);
  try {
    for await (const piece of request) {
      if (size + piece.length > into.length) throw tooLarge(size + piece.length, into.length);
      into.set(piece, size);
      size += piece.length;
    }
  } finally {
    clearInterval(watch);
  }
  return into.subarray(0, size);
}

function tooLarge(got: number, limit: number): Refused {
  return new Refused(413, "too-large", `the body has ${got} bytes or more, the limit here is ${limit}`);
}

/** Sends an answer; the number of bytes of its body. */
async function send(response: ServerResponse, reply: Reply, gone: AbortSignal): Promise<number> {
  const { status, json, bytes, text, events, headers = {} } = reply;
  if (response.destroyed || response.headersSent) return 0;
  const common = { "cache-control": "no-store", "x-content-type-options": "nosniff" };
  if (events) {
    response.writeHead(status, {
      ...common,
      "content-type": "text/event-stream",
      "x-accel-buffering": "no",
      ...headers,
    });
    return sendEvents(response, events, gone);
  }
  const written = json === undefined ? text : JSON.stringify(json);
  const body = written === undefined ? bytes : Buffer.from(written);
  response.writeHead(status, {
    ...common,
    "content-type": json === undefined ? "application/octet-stream" : "application/json",
    ...(body === undefined ? {} : { "content-length": body.length }),
    ...headers,
  });
  await new Promise<void>((resolve) => {
    response.once("close", resolve);
    response.end(body ?? "", () => resolve());
  });
  return body?.length ?? 0;
}

/** Sends events as fast as whoever listens takes them. */
async function sendEvents(
  response: ServerResponse,
  events: AsyncIterable<string>,
  gone: AbortSignal,
): Promise<number> {
  let sent = 0;
  response.flushHeaders();
  for await (const piece of events) {
    if (gone.aborted) break;
    sent += piece.length;
    if (!response.write(piece)) await once(response, "drain", { signal: gone }).catch(() => undefined);
  }
  response.end();
  return sent;
}

/** What was thrown inside: stores that are full say so and ask for another try, anything else is told to the log alone. */
function unexpected(error: unknown): Refused {
  if (error instanceof TributaryError && error.code === "disk-write")
    return new Refused(507, "storage", "the server cannot write at the moment; send it again later", 5);
  const refused = new Refused(500, "internal", "the server failed; its log says why");
  refused.cause = error;
  return refused;
}

/** Whether a host is reached from this machine alone. */
function isLoopback(host: string): boolean {
  return host === "localhost" || host === "::1" || /^127\.\d+\.\d+\.\d+$/.test(host);
}
