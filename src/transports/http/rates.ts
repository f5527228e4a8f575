import type { IncomingMessage } from "node:http";
import { isIPv6 } from "node:net";
import type { Env } from "../../federation/env.ts";

/** What is let through of a stream of requests. */
export interface Rate {
  /** Requests a second in the long run. */
  readonly perSecond: number;
  /** Requests at once after a pause. */
  readonly burst: number;
}

/** A token bucket for each of many keys. */
export interface Buckets {
  /** Takes a token; 0, or the seconds until there is one. */
  take(key: string): number;
  /** Seconds until a key has a token; 0 where it has one. */
  wait(key: string): number;
}

/** Keys that are remembered; the one that was quiet for the longest time is forgotten first. */
const KEYS = 20_000;

/** Full buckets that fill at a rate. */
export function tokenBuckets(env: Pick<Env, "monotonic">, { perSecond, burst }: Rate): Buckets {
  const buckets = new Map<string, { readonly tokens: number; readonly at: number }>();

  function tokensOf(key: string): number {
    const bucket = buckets.get(key);
    return bucket
      ? Math.min(burst, bucket.tokens + ((env.monotonic() - bucket.at) / 1000) * perSecond)
      : burst;
  }

  const secondsTo = (tokens: number): number => (tokens >= 1 ? 0 : (1 - tokens) / perSecond);

  return {
    take(key) {
      const tokens = tokensOf(key);
      const wait = secondsTo(tokens);
      // A map keeps the order of insertion: who asks goes to its end.
      buckets.delete(key);
      buckets.set(key, { tokens: wait > 0 ? tokens : tokens - 1, at: env.monotonic() });
      const oldest = buckets.keys().next().value ?? key;
      if (buckets.size > KEYS) buckets.delete(oldest);
      return wait;
    },
    wait: (key) => secondsTo(tokensOf(key)),
  };
}

/**
 * The network that a request comes from: an IPv4 address, or the first 64 bits of an IPv6 address, which one machine has to
 * itself. Behind a proxy on this machine it is what that proxy appended to `X-Forwarded-For`.
 */
export function networkOf({ socket, headers }: Pick<IncomingMessage, "socket" | "headers">): string {
  const peer = plain(socket.remoteAddress ?? "");
  const forwarded = String(headers["x-forwarded-for"] ?? "")
    .split(",")
    .at(-1)
    ?.trim();
  const address = forwarded && isLoopback(peer) ? plain(forwarded) : peer;
  if (!isIPv6(address)) return address.slice(0, 64);
  const [head = "", tail] = address.split("::");
  const before = head === "" ? [] : head.split(":");
  const after = tail === undefined || tail === "" ? [] : tail.split(":");
  const zeros =
    tail === undefined ? [] : Array<string>(Math.max(0, 8 - before.length - after.length)).fill("0");
  return [...before, ...zeros, ...after].slice(0, 4).join(":");
}

/** Whether a host is reached from this machine alone. */
export function isLoopback(host: string): boolean {
  return host === "localhost" || host === "::1" || /^127\.\d+\.\d+\.\d+$/.test(host);
}

/** An IPv4 address as IPv4, also where it came over a socket of both kinds. */
function plain(address: string): string {
  return address.replace(/^::ffff:(?=\d+\.)/, "");
}
