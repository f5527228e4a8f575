import { Agent, type IncomingMessage, request as plainRequest, type RequestOptions } from "node:http";
import { Agent as SecureAgent, request as secureRequest } from "node:https";
import { joined } from "../../federation/digest.ts";
import { patience } from "./patience.ts";
import { bodyDigest, type ClientKey, signatureOf } from "./signature.ts";

/** One request as it leaves. */
export interface Outgoing {
  readonly method: "GET" | "POST" | "PUT";
  /** Path and query. */
  readonly path: string;
  /** Pieces of the body, in order. */
  readonly body?: readonly Uint8Array[];
  /** SHA-256 of the body, where it is known. */
  readonly digest?: string;
  readonly headers: Readonly<Record<string, string>>;
  /** Who signs, and at which time of the server's clock. */
  readonly signed?: { readonly signer: Signer; readonly time: number };
  /** Where the body of the answer goes, if it has that length. */
  readonly into?: Uint8Array;
  /** Called when a part of the answer has come. */
  readonly onPiece?: () => void;
  /** Longest time for the answer. */
  readonly timeoutMs: number;
  /** Whoever asks is gone. */
  readonly signal: AbortSignal;
}

/** What came back. */
export interface Answer {
  readonly status: number;
  readonly headers: { get(name: string): string | null };
  readonly body: Uint8Array;
}

/** Sends one request, once; rejects where there is no answer. */
export type Send = (request: Outgoing) => Promise<Answer>;

/** Who signs. */
export interface Signer {
  readonly client: string;
  readonly key: ClientKey;
}

/** Bodies up to this size are read into memory that is taken at once. */
const AT_ONCE = 64 * 2 ** 20;

/**
 * Signs requests and sends them over connections that stay open. Bodies leave piece by piece from where they are, and arrive
 * in the array that is handed on: `fetch` would copy both, and its streams cost more than the network on a fast one.
 */
export function sendTo(url: string): Send {
  const { protocol, hostname, port, pathname } = new URL(url);
  const secure = protocol === "https:";
  const agent = new (secure ? SecureAgent : Agent)({ keepAlive: true });
  const open = secure ? secureRequest : plainRequest;
  const common: RequestOptions = {
    // An address of IPv6 stands in brackets in a URL only.
    hostname: hostname.replace(/^\[|\]$/g, ""),
    agent,
    ...(port !== "" && { port }),
  };
  const root = pathname.replace(/\/+$/, "");

  function once(
    { method, path, body = [], headers, into, onPiece }: Outgoing,
    signature: Readonly<Record<string, string>>,
    signal: AbortSignal,
  ): Promise<Answer> {
    return new Promise((resolve, reject) => {
      const length = body.reduce((sum, piece) => sum + piece.length, 0);
      const request = open({
        ...common,
        method,
        path: `${root}${path}`,
        headers: {
          ...headers,
          ...signature,
          ...((length > 0 || method !== "GET") && { "content-length": length }),
        },
      });
      const stop = (): void => void request.destroy(signal.reason);
      const end = (): void => signal.removeEventListener("abort", stop);
      signal.addEventListener("abort", stop, { once: true });
      request.on("error", (error) => {
        end();
        reject(new Unanswered(error, request.reusedSocket && !signal.aborted));
      });
      request.on("response", (response) => {
        const { statusCode: status = 0, headers: told } = response;
        if (onPiece) response.on("data", onPiece);
        bodyOf(response, into)
          .then((bytes) => {
            const get = (name: string): string | null => String(told[name] ?? "") || null;
            resolve({ status, headers: { get }, body: bytes });
          }, reject)
          .finally(end);
      });
      if (signal.aborted) return stop();
      request.cork();
      for (const piece of body) request.write(piece);
      request.uncork();
      request.end();
    });
  }

  return async (outgoing) => {
    const { method, path, body = [], digest, signed, timeoutMs } = outgoing;
    const signature = (): Record<string, string> =>
      signed
        ? signatureOf(
            { method, path, body: digest ?? bodyDigest(body), client: signed.signer.client },
            signed.signer.key,
            signed.time,
          )
        : {};
    const waiting = patience(timeoutMs, outgoing.signal);
    try {
      for (;;) {
        try {
          return await once(outgoing, signature(), waiting.signal);
        } catch (error) {
          // A server closes a connection that was idle just as it is used again: that says nothing about the server.
          if (!(error instanceof Unanswered)) throw error;
          if (!error.wasIdle) throw error.cause;
        }
      }
    } finally {
      waiting.end();
    }
  };
}

/** A request without an answer. */
class Unanswered extends Error {
  /** Whether it was sent over a connection that had been used before. */
  readonly wasIdle: boolean;

  constructor(cause: Error, wasIdle: boolean) {
    super(cause.message, { cause });
    this.wasIdle = wasIdle;
  }
}

/** The body of an answer, whole; rejects where the connection ends before it does. */
function bodyOf(response: IncomingMessage, into: Uint8Array | undefined): Promise<Uint8Array> {
  const length = Number(response.headers["content-length"] ?? Number.NaN);
  const fresh = (): Uint8Array | undefined =>
    length <= AT_ONCE ? Buffer.allocUnsafeSlow(length) : undefined;
  const whole = into?.length === length && response.statusCode === 200 ? into : fresh();
  const pieces: Uint8Array[] = [];
  let at = 0;
  return new Promise((resolve, reject) => {
    response.on("data", (piece: Buffer) => {
      // The parser ends a message at its length, so that it fits.
      if (whole) whole.set(piece, at);
      else pieces.push(piece);
      at += piece.length;
    });
    response.on("error", reject);
    response.on("end", () => {
      if (response.complete) resolve(whole ?? joined(pieces));
      else reject(new Error(`the connection ended after ${at} bytes of the answer`));
    });
  });
}
