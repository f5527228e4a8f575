import type { z } from "zod";
import { TributaryError } from "../../errors.ts";
import type { Env } from "../../federation/env.ts";
import { messages, PROTOCOL, type Welcome } from "./protocol.ts";
import { type Answer, type Send, type Signer, sendTo } from "./send.ts";

/** How a client reaches a server. */
export interface ConnectionOptions {
  /** Origin of the server. */
  readonly url: string;
  readonly env: Env;
  /** Aborts waits and requests. */
  readonly signal: AbortSignal;
  /** Told why nothing goes on, and when it is tried again. */
  readonly onWait?: (why: string, seconds: number) => void;
  /** Sends one request. Default: signed, over connections that stay open. */
  readonly send?: Send;
}

/** One request. */
export interface Ask<T> {
  readonly method: "GET" | "POST" | "PUT";
  readonly path: string;
  readonly json?: unknown;
  /** Pieces of a body of bytes. */
  readonly bytes?: readonly Uint8Array[];
  /** The digest of `bytes`, where it is known. */
  readonly digest?: string;
  readonly signer?: Signer;
  /** Where the bytes of the answer go, if they have its length. */
  readonly into?: Uint8Array;
  /** Called when a part of the answer has come. */
  readonly onPiece?: () => void;
  /** The form of the answer. */
  readonly schema?: z.ZodType<T>;
  readonly headers?: Readonly<Record<string, string>>;
  /** Longest time for the answer. Default: 60 s. */
  readonly timeoutMs?: number;
}

/** A server, reached again and again until it answers. */
export interface Connection {
  readonly welcome: Welcome;
  /** Milliseconds of the server's clock, by that of this machine since they met. */
  time(): number;
  /** The message that is answered. Waits for a server that is away or busy; throws TributaryError where the request is refused. */
  ask<T>(ask: Ask<T> & { readonly schema: z.ZodType<T> }): Promise<T>;
  /** The bytes that are answered. */
  fetch(ask: Ask<never>): Promise<Uint8Array>;
}

/** Tries at a request that arrived otherwise than it was sent: a bit may have turned on the way. */
const TRIES = 4;

/** Longest pause between two tries. */
const MOST_PAUSE = 30_000;

/** Meets a server: checks that both speak one protocol, and takes over its clock and limits. */
export async function connect(options: ConnectionOptions): Promise<Connection> {
  const { url, env, signal, onWait = () => {}, send = sendTo(url) } = options;
  let offset = 0;
  let welcome = await hello();

  async function hello(): Promise<Welcome> {
    const bytes = await persist({ method: "GET", path: "/v1/hello" });
    // Of another version only this much is known.
    const { server, protocol } = read(messages.version, bytes);
    const { least, most } = protocol;
    if (PROTOCOL < least || PROTOCOL > most) {
      throw new TributaryError(
        "protocol",
        `${url} speaks protocol ${least === most ? least : `${least} to ${most}`}, this program ${PROTOCOL}; install the version of the server (${server})`,
      );
    }
    const met = read(messages.welcome, bytes);
    offset = met.time - env.monotonic();
    return met;
  }

  /** One try. */
  function attempt({
    method,
    path,
    json,
    bytes,
    digest,
    signer,
    into,
    onPiece,
    headers = {},
    timeoutMs = 60_000,
  }: Ask<unknown>): Promise<Answer> {
    const body = json === undefined ? bytes : [new TextEncoder().encode(JSON.stringify(json))];
    return send({
      method,
      path,
      headers: json === undefined ? headers : { "content-type": "application/json", ...headers },
      ...(body && { body }),
      ...(digest !== undefined && { digest }),
      ...(into && { into }),
      ...(onPiece && { onPiece }),
      ...(signer && { signed: { signer, time: env.monotonic() + offset } }),
      timeoutMs,
      signal,
    });
  }

  /** Tries until there is an answer that another try would not change. */
  async function persist(ask: Ask<unknown>): Promise<Uint8Array> {
    for (let tries = 0; ; tries++) {
      signal.throwIfAborted();
      let why: string;
      let pause = Math.min(MOST_PAUSE, 250 * 2 ** tries);
      try {
        const { status, headers, body } = await attempt(ask);
        if (status >= 200 && status < 300) return body;
        const { code, message } = problemOf(body, status);
        if (code === "stale-request" && tries === 0) {
          welcome = await hello();
          continue;
        }
        if (!passing(status) && !(code === "bad-signature" && tries < TRIES))
          throw new TributaryError(code, `${url}: ${message}`);
        why = message;
        const asked = Number(headers.get("retry-after"));
        if (asked > 0) pause = Math.min(MOST_PAUSE, 1000 * asked);
      } catch (error) {
        if (signal.aborted || error instanceof TributaryError) throw error;
        if (isPlain(error))
          throw new TributaryError(
            "no-tls",
            `${url} does not speak TLS; is its address http://, or the port another?`,
          );
        why = `${url} cannot be reached: ${causeOf(error)}`;
      }
      onWait(why, pause / 1000);
      await env.sleep(pause, signal);
    }
  }

  return {
    get welcome() {
      return welcome;
    },
    time: () => env.monotonic() + offset,
    ask: async (ask) => read(ask.schema, await persist(ask)),
    fetch: persist,
  };
}

/** Whether a status may pass by itself: too many requests, or a server that is ill or behind a proxy that is. */
function passing(status: number): boolean {
  return status === 408 || status === 429 || status >= 500;
}

function problemOf(body: Uint8Array, status: number): { readonly code: string; readonly message: string } {
  try {
    return messages.problem.parse(JSON.parse(new TextDecoder().decode(body))).error;
  } catch {
    return {
      code: `http-${status}`,
      message: `the server answered ${status} without a reason that could be read; is there a proxy before it?`,
    };
  }
}

function read<T>(schema: z.ZodType<T>, body: Uint8Array): T {
  let json: unknown;
  try {
    json = JSON.parse(new TextDecoder().decode(body));
  } catch {
    throw new TributaryError(
      "not-json",
      "the answer is not JSON; is a coordinator of tributary at this address?",
    );
  }
  const result = schema.safeParse(json);
  if (result.success) return result.data;
  const [issue] = result.error.issues;
  throw new TributaryError(
    "protocol",
    `the server's answer is not of protocol ${PROTOCOL}: ${issue?.path.join(".") || "the message"}: ${issue?.message}`,
  );
}

/** Whether a server answered a TLS greeting with something else. */
function isPlain(error: unknown): boolean {
  return (
    error instanceof Error &&
    "code" in error &&
    error.code === "EPROTO" &&
    /wrong version number|packet length too long/.test(error.message)
  );
}

function causeOf(error: unknown): string {
  if (!(error instanceof Error)) return String(error);
  return error.cause instanceof Error ? error.cause.message || error.message : error.message;
}
