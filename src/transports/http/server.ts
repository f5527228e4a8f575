import type { KeyObject } from "node:crypto";
import { once } from "node:events";
import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import { createServer as createSecureServer } from "node:https";
import type { AddressInfo } from "node:net";
import { TributaryError } from "../../errors.ts";
import type { Env } from "../../federation/env.ts";
import type { Identities } from "./identities.ts";
import { type NonceBook, nonceBook } from "./nonces.ts";
import { type Problem, signatureHeaders, type WireLimits } from "./protocol.ts";
import { type Buckets, isLoopback, networkOf, type Rate, tokenBuckets } from "./rates.ts";
import { Refused, refusalOf } from "./refusal.ts";
import { findRoute, type Reply, type Route } from "./route.ts";
import { bodyDigest, isSignedBy } from "./signature.ts";
import { turnstile } from "./turnstile.ts";

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
  /** Requests of one client. Default: 200 a second, 1,000 at once. */
  readonly clientRate?: Rate;
  /** Refusals of strangers from one network, after which it is heard no more for a while. Default: 5 a second, 100 at once. */
  readonly strangerRate?: Rate;
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

/** Bodies of bytes that are taken in at one time, so that memory does not grow with the clients; slow ones come on top. */
const BODIES = 32;

/** Milliseconds after which a body is slow: it goes on, and the next one has its turn. */
const TURN = 500;

/** A client that fetches 4 MiB chunks at 800 MB/s stays below. */
const CLIENT_RATE: Rate = { perSecond: 200, burst: 1000 };

const STRANGER_RATE: Rate = { perSecond: 5, burst: 100 };

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
  const bodies = turnstile(BODIES);
  const { clientRate = CLIENT_RATE, strangerRate = STRANGER_RATE } = options;
  const clients = tokenBuckets(options.env, clientRate);
  const strangers = tokenBuckets(options.env, strangerRate);
  const underWay = new Set<AbortController>();
  const listener = (request: IncomingMessage, response: ServerResponse): void => {
    const gone = new AbortController();
    underWay.add(gone);
    response.on("close", () => {
      underWay.delete(gone);
      gone.abort(new Error("the connection is closed"));
    });
    void answer(request, response, {
      ...options,
      nonces,
      bodies,
      clients,
      strangers,
      network: networkOf(request),
      gone: gone.signal,
    });
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
  /** Where bodies of bytes wait in the network for their turn. */
  readonly bodies: ReturnType<typeof turnstile>;
  /** Requests of clients. */
  readonly clients: Buckets;
  /** Refusals of those who are no clients, by network. */
  readonly strangers: Buckets;
  readonly network: string;
  /** Aborted when whoever asked is gone, or the server closes. */
  readonly gone: AbortSignal;
}

async function answer(request: IncomingMessage, response: ServerResponse, options: Answering): Promise<void> {
  const { env, onAnswer, onError } = options;
  const began = env.monotonic();
  const met: Met = { bytesIn: 0 };
  let bytesOut = 0;
  let route = "";
  let code: string | undefined;
  try {
    const found = findRoute(options.routes, request.method ?? "", request.url ?? "");
    route = found.route.path;
    const reply = await answered(request, found, options, met);
    const { client } = met;
    const { parameters } = found;
    const moves = (): void => found.route.moves?.({ parameters, ...(client !== undefined && { client }) });
    bytesOut = await send(response, reply, { gone: options.gone, moves });
  } catch (error) {
    if (!(error instanceof Refused)) onError?.(error, route);
    const refused = met.client === undefined ? toStranger(refusalOf(error), options) : refusalOf(error);
    code = refused.code;
    const problem: Problem = { error: { code: refused.code, message: refused.message } };
    const headers = refused.retryAfter === undefined ? {} : { "retry-after": String(refused.retryAfter) };
    // A body that is not wanted is not read: the connection ends with the answer.
    const unread = request.complete ? {} : { connection: "close" };
    const reply = { status: refused.status, json: problem, headers: { ...headers, ...unread } };
    bytesOut = await send(response, reply, { gone: options.gone, moves: () => undefined });
  }
  onAnswer?.({
    method: request.method ?? "",
    route,
    status: response.statusCode,
    ...met,
    bytesOut,
    ms: env.monotonic() - began,
    ...(code !== undefined && { code }),
  });
}

/** What became known of a request on its way to the answer. */
interface Met {
  /** Who signed it. */
  client?: string;
  bytesIn: number;
}

/** A refusal of somebody who is no client: the first hundred have their reason, a network that goes on is told to wait. */
function toStranger(refused: Refused, { strangers, network }: Answering): Refused {
  if (refused.status >= 500) return refused;
  const wait = strangers.take(network);
  return wait > 0 ? tooMany("your network was refused too often", wait) : refused;
}

function tooMany(what: string, wait: number): Refused {
  const seconds = Math.ceil(wait);
  return new Refused(429, "too-many", `${what}; try again in ${seconds} s`, seconds);
}

/** Answers a request after every check that its route asks for: rates and sizes first, then who it is, then its form. */
async function answered(
  request: IncomingMessage,
  { route, parameters, query }: ReturnType<typeof findRoute>,
  { identities, env, nonces, bodies, clients, strangers, network, gone }: Answering,
  met: Met,
): Promise<Reply> {
  const header = (name: string): string => String(request.headers[name] ?? "");
  if (route.who === "operator") identities.assertOperator(request.headers.authorization);
  const wait = route.who === "anyone" && route.body ? strangers.wait(network) : 0;
  if (wait > 0) throw tooMany("your network was refused too often", wait);
  const limit = route.body?.limit ?? 0;
  const declared = Number(request.headers["content-length"] ?? 0);
  if (!(declared <= limit)) throw tooLarge(declared, limit);
  const known = route.who === "client" ? knownClient() : undefined;
  const common = { parameters, query, headers: request.headers, gone };
  if (route.body?.kind === "bytes") {
    // The path names the digest of the body, so the signature is checked before any of it is read.
    const client = known && authenticate(known, parameters.get("digest") ?? "");
    const moves = (): void => route.moves?.({ parameters, ...(client !== undefined && { client }) });
    const bytes = bodyOf(request, limit, (size) => {
      met.bytesIn = size;
      moves();
    });
    const call = { ...common, bytes, json: undefined, ...(client !== undefined && { client }) };
    // In an object: the turn ends before the answer where the body is slow.
    const { reply } = await bodies(async () => {
      const reply = route.handle(call);
      const over = new AbortController();
      const slow = env.sleep(TURN, over.signal).catch(() => undefined);
      await Promise.race([Promise.allSettled([reply]), slow]);
      over.abort("over");
      return { reply };
    });
    return reply;
  }
  const pieces: Uint8Array[] = [];
  if (limit > 0) for await (const piece of bodyOf(request, limit, () => undefined)) pieces.push(piece);
  const body = Buffer.concat(pieces);
  met.bytesIn = body.length;
  const client = known && authenticate(known, bodyDigest(body));
  const json = route.body?.kind === "json" ? route.body.parse(body) : undefined;
  return route.handle({ ...common, bytes: none(), json, ...(client !== undefined && { client }) });

  /** The client that a request says it is from, and its key. */
  function knownClient(): { readonly id: string; readonly key: KeyObject } {
    const id = header(signatureHeaders.client);
    if (id === "")
      throw new Refused(401, "unsigned", "the request is not signed; join with an enrolment token first");
    const key = identities.keyOf(id);
    if (key) return { id, key };
    throw new Refused(
      401,
      "unknown-client",
      `no client ${id.slice(0, 64)} is enrolled here, or it was removed`,
    );
  }

  function authenticate({ id, key }: ReturnType<typeof knownClient>, body: string): string {
    const time = header(signatureHeaders.time);
    const nonce = header(signatureHeaders.nonce);
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
    met.client = id;
    const wait = clients.take(id);
    if (wait > 0) throw tooMany(`${id} sends more requests than are taken of one client`, wait);
    return id;
  }
}

/** Milliseconds after which a body has to have come at `SLOWEST` at least. */
const PATIENCE = 10_000;

/** Bytes per second. */
const SLOWEST = 4096;

/** The pieces of a body as they arrive, up to its limit. A sender that only drips is cut off. */
async function* bodyOf(
  request: IncomingMessage,
  limit: number,
  onSize: (size: number) => void,
): AsyncGenerator<Uint8Array> {
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
    // Whoever stops reading still answers.
    for await (const piece of request.iterator({ destroyOnReturn: false })) {
      size += piece.length;
      if (size > limit) throw tooLarge(size, limit);
      onSize(size);
      yield piece;
    }
  } catch (error) {
    if (error instanceof Refused) throw error;
    throw new Refused(400, "cut-off", `the connection ended after ${size} bytes of the body; send it again`);
  } finally {
    clearInterval(watch);
  }
}

async function* none(): AsyncGenerator<Uint8Array> {}

function tooLarge(got: number, limit: number): Refused {
  return new Refused(413, "too-large", `the body has ${got} bytes or more, the limit here is ${limit}`);
}

/** Bytes that are handed to the network at one time. */
const SLICE = 2 ** 20;

/** Sends an answer; the number of bytes of its body. */
async function send(
  response: ServerResponse,
  reply: Reply,
  { gone, moves }: { readonly gone: AbortSignal; readonly moves: () => void },
): Promise<number> {
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
  const bytesOut = body?.length ?? 0;
  let at = 0;
  for (; bytesOut - at > SLICE && !gone.aborted; at += SLICE) {
    if (!response.write(body?.subarray(at, at + SLICE)))
      await once(response, "drain", { signal: gone }).catch(() => undefined);
    moves();
  }
  await new Promise<void>((resolve) => {
    response.once("close", resolve);
    response.end(body?.subarray(at) ?? "", () => resolve());
  });
  return bytesOut;
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
