import type { Env } from "../../federation/env.ts";

/** Remembers what was seen for a while. */
export interface NonceBook {
  /** Whether this was not seen within the time that is kept; remembers it. */
  isNew(nonce: string): boolean;
}

/** A book that keeps `seconds` at least and twice that at most, in two pages. */
export function nonceBook(env: Pick<Env, "monotonic">, seconds: number): NonceBook {
  let page = new Set<string>();
  let before = new Set<string>();
  let turned = env.monotonic();
  return {
    isNew(nonce) {
      if (env.monotonic() - turned > seconds * 1000) {
        before = env.monotonic() - turned > 2 * seconds * 1000 ? new Set() : page;
        page = new Set();
        turned = env.monotonic();
      }
      if (page.has(nonce) || before.has(nonce)) return false;
      page.add(nonce);
      return true;
    },
  };
}
