import type { z } from "zod";
import { TributaryError } from "../../errors.ts";
import type { Env } from "../../federation/env.ts";
import { messages, PROTOCOL, type Welcome } from "./protocol.ts";
import { bodyDigest, type ClientKey, signatureOf } from "./signature.ts";

/** How a client reaches a server. */
export interface ConnectionOptions {
  /** Origin of the server. */
  readonly url: string;
  readonly env: Env;
  /** Aborts waits and requests. */
  readonly signal: AbortSignal;
  /** Told why nothing goes on, and when it is tried again. */
  readonly onWait?: (why: string, seconds: number) => void;
}

/** Who signs. */
export interface Signer {
  readonly client: string;
  readonly key: ClientKey;
}

/** One request. */
export interface Ask<T> {
  readonly method: "GET" | "POST" | "PUT";
  readonly path: string;
  readonly json?: unknown;
  readonly bytes?: Uint8Array;
  /** The digest of `bytes`, where it is known. */
  readonly digest?: string;
  readonly signer?: Signer;
  /** The form of the answer. */
  readonly schema?: z.ZodType<T>;
  readonly headers?: Readonly<Record<string, string>>;
  /** Longest time for the answer. Default: 60 s. */
  readonly timeoutMs?: number;
}

/** A server, reached again and again until it answers. */
export interface Connection {
  readonly welcome: Welcome;
  /** The message that is answered. Waits for a server that is away or busy; throws TributaryError where the request is refused. */
  ask<T>(ask: Ask<T> & { readonly schema: z.ZodType<T> }): Promise<T>;
  /** The bytes that are answered. */
  fetch(ask: Ask<never>): Promise<Uint8Array>;
}

/** Longest pause between two tries. */
const MOST_PAUSE = 30_000;

/** Meets a server: checks that both speak one protocol, and takes over its clock and limits. */
export async function connect(options: ConnectionOptions): Promise<Connection> {
  const { url, env, signal, onWait = () => {} } = options;
  let offset = 0;
  let welcome = await hello();

  async function hello(): Promise<Welcome> {
    const met = read(messages.welcome, await persist({ method: "GET", path: "/v1/hello" }));
    offset = met.time - env.monotonic();
    const { least, most } = met.protocol;
    if (PROTOCOL < least || PROTOCOL > most) {
      throw new TributaryError(
        "protocol",
        `${url} speaks protocol ${least === most ? least : `${least} to ${most}`}, this program ${PROTOCOL}; install the version of the server (${met.server})`,
      );
    }
    return met;
  }

  /** One try. */
  async function attempt({
    method,
    path,
    json,
    bytes,
    digest,
    signer,
    headers,
    timeoutMs = 60_000,
  }: Ask<unknown>): Promise<Response> {
    const body = json === undefined ? bytes : new TextEncoder().encode(JSON.stringify(json));
    const signed = signer && {
      ...signatureOf(
        { method, path, body: digest ?? bodyDigest(body ?? new Uint8Array()), client: signer.client },
        signer.key,
        env.monotonic() + offset,
      ),
    };
    return fetch(`${url}${path}`, {
      method,
      // Bodies are not views of shared memory.
      ...(body && { body: body as Uint8Array<ArrayBuffer> }),
      headers: {
        ...(json === undefined ? {} : { "content-type": "application/json" }),
        ...signed,
        ...headers,
      },
      signal: AbortSignal.any([signal, AbortSignal.timeout(timeoutMs)]),
      redirect: "error",
    });
  }

  /** Tries until there is an answer that another try would not change. */
  async function persist(ask: Ask<unknown>): Promise<Uint8Array> {
    for (let tries = 0; ; tries++) {
      signal.throwIfAborted();
      let why: string;
      let pause = Math.min(MOST_PAUSE, 250 * 2 ** tries);
      try {
        const response = await attempt(ask);
        const body = new Uint8Array(await response.arrayBuffer());
        if (response.ok) return body;
        const { code, message } = problemOf(body, response.status);
        if (code === "stale-request" && tries === 0) {
          welcome = await hello();
          continue;
        }
        if (!passing(response.status)) throw new TributaryError(code, `${url}: ${message}`);
        why = message;
        const asked = Number(response.headers.get("retry-after"));
        if (asked > 0) pause = Math.min(MOST_PAUSE, 1000 * asked);
      } catch (error) {
        if (signal.aborted || error instanceof TributaryError) throw error;
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
  const result = schema.safeParse(JSON.parse(new TextDecoder().decode(body)));
  if (result.success) return result.data;
  const [issue] = result.error.issues;
  throw new TributaryError(
    "protocol",
    `the server's answer is not of protocol ${PROTOCOL}: ${issue?.path.join(".")}: ${issue?.message}`,
  );
}

function causeOf(error: unknown): string {
  if (!(error instanceof Error)) return String(error);
  return error.cause instanceof Error ? error.cause.message || error.message : error.message;
}
